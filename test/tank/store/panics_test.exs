defmodule Tank.Store.PanicsTest do
  # A panic in any thread of the engine ends the store it happened in, for as long as its supervisor takes to open it
  # anew: never the VM, never another store, never an acknowledged write. Rust prints the panics.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Call

  @moduletag :tmp_dir

  # In the path of a write: the write that meets the panic is unknown, or known to have failed with the engine.
  for point <- ~w(ingress log_writer log_sync apply) do
    test "in #{point}: the store fails, is opened anew, and has all that was acknowledged", %{tmp_dir: dir} do
      other = start_store(Path.join(dir, "other"))
      other_server = server(other)
      {:ok, _revision} = put(other, "kept")
      start_tank(Path.join(dir, "tank"))
      owner = Process.whereis(Tank.Store)

      for round <- 1..2 do
        for i <- 1..100, do: :ok = Tank.Store.put_pod(pod("#{round}-#{i}"))
        failing = server(:tank)
        arm(unquote(point), "1*panic")
        assert {:error, reason} = Tank.Store.put_pod(pod("#{round}-unknown"))
        assert reason in [:engine_failed, :timeout]
        await_server(:tank, failing)
        expected = for r <- 1..round, i <- 1..100, do: "#{r}-#{i}"
        assert expected -- listed_names() == []
        assert Tank.Store.create_pod(pod("#{round}-1")) == {:error, :exists}
      end

      assert Process.whereis(Tank.Store) == owner
      assert server(other) == other_server
      assert get(other, "kept") == {:ok, "kept"}
      assert {:ok, _revision} = put(other, "more")
    end
  end

  test "in raft_watch, while the store is being opened: it is opened once more", %{tmp_dir: dir} do
    start_tank(dir)
    :ok = Tank.Store.put_pod(pod("web"))
    arm("raft_watch", "1*panic")
    # The store's supervisor hears of the kill, and then of the panic.
    :erlang.trace(instance(:tank), true, [:receive])
    kill(server(:tank))
    assert_receive {:trace, _, :receive, {:EXIT, failed, {:shutdown, %{reason: :engine_failed}}}}, 20_000
    await_server(:tank, failed)
    assert Tank.Store.list_pods() == [pod("web")]
    assert Tank.Store.put_pod(pod("db")) == :ok
  end

  for point <- ~w(reclaim term_cache) do
    test "in #{point}: nobody notices", %{tmp_dir: dir} do
      start_tank(dir)
      server = server(:tank)
      arm(unquote(point), "20*panic")

      for round <- 1..100 do
        :ok = Tank.Store.put_pod(pod("web", volumes: round))
        for _ <- 1..3, do: assert(Tank.Store.get_pod("web") == {:ok, pod("web", volumes: round)})
        assert Tank.Store.list_pods() == [pod("web", volumes: round)]
      end

      assert server(:tank) == server
    end
  end

  test "the panic says where it was, in the log", %{tmp_dir: dir} do
    start_tank(dir)
    failing = server(:tank)

    log =
      ExUnit.CaptureLog.capture_log(fn ->
        arm("apply", "1*panic")
        {:error, _reason} = Tank.Store.put_pod(pod("web"))
        await_server(:tank, failing)
      end)

    assert log =~ "store :tank failed: the engine failed (panic in apply"
    assert log =~ "; its supervisor restarts it"
  end

  test "again and again: the store gives up, and Tank.Store stops and says so", %{tmp_dir: dir} do
    other = start_store(Path.join(dir, "other"))
    other_server = server(other)
    Process.flag(:trap_exit, true)
    {:ok, owner} = Tank.Store.start_link(data_dir: Path.join(dir, "tank"))
    :ok = Tank.Store.put_pod(pod("web"))
    arm("apply", "panic")
    {:error, _reason} = Tank.Store.put_pod(pod("db"))
    assert_receive {:EXIT, ^owner, {:store_stopped, _reason}}, 10_000
    assert %Tank.Store.Error{reason: :noproc} = catch_error(Tank.Store.list_pods())
    assert instance(:tank) == nil

    # While it lasts, a start fails with a reason. It passes when the cause is gone.
    assert {:error, {:store_init_failed, error}} = Tank.Store.start_link(data_dir: Path.join(dir, "tank"))
    assert error.reason == :engine_failed
    disarm("apply")
    {:ok, owner} = Tank.Store.start_link(data_dir: Path.join(dir, "tank"))
    assert Tank.Store.get_pod("web") == {:ok, pod("web")}
    assert server(other) == other_server
    assert {:ok, _revision} = put(other, "more")
    :ok = GenServer.stop(owner)
  end

  test "under writers: each acknowledged write is there", %{tmp_dir: dir} do
    start_tank(dir)
    writers = for writer <- 1..8, do: Task.async(fn -> write_until_told(writer, 1, []) end)

    for {point, round} <- Enum.with_index(~w(apply log_writer ingress), 1) do
      eventually("writes in round #{round}", fn -> written_so_far() > round * 200 end)
      failing = server(:tank)
      arm(point, "1*panic")
      await_server(:tank, failing)
    end

    for task <- writers, do: send(task.pid, :stop)
    acknowledged = Enum.flat_map(writers, &Task.await/1)
    lost = acknowledged -- listed_names()
    assert lost == [], "#{length(lost)} of #{length(acknowledged)} acknowledged writes are lost"
  end

  defp write_until_told(writer, i, acknowledged) do
    receive do
      :stop -> acknowledged
    after
      0 ->
        name = "w#{writer}-#{i}"
        written? = Tank.Store.put_pod(pod(name)) == :ok
        write_until_told(writer, i + 1, if(written?, do: [name | acknowledged], else: acknowledged))
    end
  end

  defp written_so_far do
    length(listed_names())
  rescue
    Tank.Store.Error -> 0
  end

  defp put(id, name), do: Call.write(id, :put, key(name), name, nil, 5_000)
  defp get(id, name), do: Call.get(id, key(name), &{:ok, &1}, 5_000)
  defp key(name), do: Tank.Store.Path.child_key("", name)
end
