defmodule Tank.Store.DegradeTest do
  # A full disk under a store with the default settings: reads never stop, nothing is restarted, and writes work again soon
  # after there is space. The fault point is in the log's writer; real disks: test/faults/disk_full_test.exs.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Cluster, Native, Projection, Running, Server, Tree, Watch}

  @moduletag :tmp_dir
  @moduletag :capture_log

  # The longest interval between two tries, and opening.
  @healed_ms_max 5_000

  # Reads in all ways, all the time, until it is stopped; then it says how often, and what went wrong.
  defp start_reader(fun) do
    test = self()
    spawn_link(fn -> read_on(test, fun, 0, []) end)
  end

  defp read_on(test, fun, count, problems) do
    problem =
      try do
        if fun.(), do: [], else: [:wrong]
      rescue
        error -> [error]
      end

    receive do
      :stop -> send(test, {:read, self(), count + 1, problems ++ problem})
    after
      0 -> read_on(test, fun, count + 1, Enum.take(problems ++ problem, 5))
    end
  end

  defp stop_reader(reader) do
    send(reader, :stop)
    receive do: ({:read, ^reader, count, problems} -> {count, problems})
  end

  defp await_degraded(id) do
    eventually("the store to be degraded", fn ->
      match?({:ok, %{failure: :disk_full}}, Cluster.status(id)) || {:not_yet, Cluster.status(id)}
    end)
  end

  defp write_until_refused do
    eventually("a write to be refused", fn -> Tank.Store.put_pod(pod("filler")) == {:error, :disk_full} end)
  end

  test "reads never stop, nothing is restarted, and writes work again within 5 seconds", %{tmp_dir: dir} do
    tank = start_tank(dir)
    [instance, supervisor] = [instance(:tank), Process.whereis(Tank.Store.Supervisor)]
    for n <- 1..100, do: :ok = Tank.Store.put_pod(pod("pod#{n}"))
    names = MapSet.new(1..100, &"pod#{&1}")

    readers =
      Enum.map(
        [
          fn -> MapSet.subset?(names, MapSet.new(Tank.Store.list_pods(), & &1.name)) end,
          fn -> Tank.Store.get_pod("pod7") == {:ok, pod("pod7")} end,
          fn -> Tree.get(:tank, [:tank, :pods, "pod8"], favor: :low_latency) == {:ok, pod("pod8")} end,
          fn -> match?({:ok, [_ | _], _revision}, Tree.list(:tank, [:tank, :pods])) end,
          fn -> Tree.count(:tank, [:tank, :pods, :*]) |> elem(1) >= 100 end
        ],
        &start_reader/1
      )

    arm("log_full", "return")
    write_until_refused()
    await_degraded(:tank)
    # Some tries to open it again, all in vain.
    for _write <- 1..30 do
      assert Tank.Store.put_pod(pod("refused")) == {:error, :disk_full}
      assert Tank.Store.delete_pod("pod1") == {:error, :disk_full}
      Process.sleep(100)
    end

    assert {:ok, %{failure: :disk_full, entries: entries}} = Cluster.status(:tank)
    assert entries >= 100
    assert Backup.create(:tank, Path.join(dir, "backup")) == {:error, :disk_full}
    disarm("log_full")
    freed_at = System.monotonic_time(:millisecond)
    eventually("a write to be taken", fn -> Tank.Store.put_pod(pod("after")) == :ok end)
    healed_ms = System.monotonic_time(:millisecond) - freed_at
    IO.puts("\nwrites work #{healed_ms} ms after the disk takes them")
    assert healed_ms < @healed_ms_max

    for reader <- readers do
      assert {count, []} = stop_reader(reader)
      assert count > 100
    end

    assert {:ok, %{failure: nil}} = Cluster.status(:tank)

    assert [tank, instance, supervisor] == [
             Process.whereis(Tank.Store),
             instance(:tank),
             Process.whereis(Tank.Store.Supervisor)
           ]

    assert Tank.Store.get_pod("after") == {:ok, pod("after")}
    assert Tank.Store.get_pod("refused") == {:error, :not_found}
    assert MapSet.subset?(names, MapSet.new(listed_names()))
  end

  test "again and again: the store is opened as often as its disk fails", %{tmp_dir: dir} do
    tank = start_tank(dir)

    for round <- 1..4 do
      :ok = Tank.Store.put_pod(pod("pod#{round}"))
      arm("log_full", "return")
      write_until_refused()
      await_degraded(:tank)
      disarm("log_full")
      eventually("a write to be taken", fn -> Tank.Store.put_pod(pod("filler")) == :ok end)
    end

    assert Process.whereis(Tank.Store) == tank
    assert Enum.sort(["filler" | for(n <- 1..4, do: "pod#{n}")]) == listed_names()
  end

  @tag :long
  test "engines that failed are gone a while after the store is healed", %{tmp_dir: dir} do
    id = start_store(dir)

    for round <- 1..3 do
      arm("log_full", "return")
      eventually("a write to be refused", fn -> Tree.put(id, [:a], round) == {:error, :disk_full} end)
      await_degraded(id)
      disarm("log_full")
      eventually("a write to be taken", fn -> match?({:ok, _revision}, Tree.put(id, [:a], round)) end)
    end

    # This process called them: its garbage keeps them. The threads of stores of other tests end a moment after them.
    :erlang.garbage_collect()
    eventually("one engine to be left", fn -> raft_threads() <= 1 || {:not_yet, raft_threads()} end, 60_000)
    assert Tree.get(id, [:a]) == {:ok, 3}
  end

  # An engine has one for as long as it lives, and another one while it reads or writes files.
  defp raft_threads do
    "/proc/self/task/*/comm" |> Path.wildcard() |> Enum.count(&match?({:ok, "tank-raft\n"}, File.read(&1)))
  end

  test "what another engine failed with does not concern the one that is open", %{tmp_dir: dir} do
    id = start_store(dir)
    {:ok, _revision} = Tree.put(id, [:a], 1)
    {:ok, engine} = Running.fetch(id)
    server = Server.whereis(id)
    send(server, {:tank_store_failed, Native.opening(engine) - 1, :engine_failed})
    # Whatever it does about that, it does before it answers.
    assert %{store: ^engine} = :sys.get_state(server)
    assert {:ok, %{failure: nil}} = Cluster.status(id)
    assert {:ok, _revision} = Tree.put(id, [:a], 2)
    assert Server.whereis(id) == server
  end

  test "what follows the store goes on afterwards", %{tmp_dir: dir} do
    start_tank(dir)
    {:ok, revision} = Tree.put(:tank, [:a, "1"], 1)
    projection = start_supervised!({Projection, store: :tank, pattern: [:a], table: :degrade_test})
    {:ok, watch} = Watch.start(:tank, [:a], from: :now)
    ref = watch.ref
    arm("log_full", "return")
    write_until_refused()
    await_degraded(:tank)
    assert_receive {:store_watch, ^ref, {:cancelled, :store_stopped}}
    assert Watch.start(:tank, [:a], from: {:after, revision}) == {:error, :disk_full}
    assert :ets.lookup(:degrade_test, [:a, "1"]) == [{[:a, "1"], 1}]
    disarm("log_full")

    {:ok, revision} =
      eventually("a write to be taken", fn -> with {:error, _disk_full} <- Tree.put(:tank, [:a, "2"], 2), do: nil end)

    assert Projection.await(projection, revision, 10_000) == :ok
    assert Enum.sort(:ets.tab2list(:degrade_test)) == [{[:a, "1"], 1}, {[:a, "2"], 2}]
  end

  test "it can be stopped meanwhile, and starts again with all there was", %{tmp_dir: dir} do
    id = start_store(dir)
    Tree.put!(id, [:a], 1)
    arm("log_full", "return")
    eventually("a write to be refused", fn -> Tree.put(id, [:b], 1) == {:error, :disk_full} end)
    await_degraded(id)
    assert Tree.get(id, [:a]) == {:ok, 1}
    assert Cluster.stop(id) == :ok
    assert Tree.get(id, [:a]) == {:error, :noproc}
    # A store that is only started says at once what is wrong.
    assert {:error, %{reason: :disk_full}} = Cluster.start(dir, id)
    disarm("log_full")
    {:ok, ^id} = Cluster.start(dir, id)
    assert Tree.get(id, [:a]) == {:ok, 1}
  end
end
