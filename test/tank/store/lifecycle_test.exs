defmodule Tank.Store.LifecycleTest do
  # Starting, attaching, stopping, and starting anew after every kind of end: no acknowledged write is ever lost.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Error, Server, Tree}

  @moduletag :tmp_dir

  # Seeds in `init`, as Tank's reconciler does.
  defmodule Seeder do
    use GenServer
    def start_link(test), do: GenServer.start_link(__MODULE__, test)

    @impl true
    def init(test) do
      created = Tank.Store.create_pod(%Tank.Pod{name: "seed"})
      send(test, {:seeded, created, Tank.Store.get_pod("seed"), Tank.Store.list_pods()})
      {:ok, test}
    end
  end

  test "a store that takes long to open holds up no other", %{tmp_dir: dir} do
    slow = unique_id()
    # Of another supervisor (Tank.Store.Application). It need not open: that it is heard is enough.
    other = Enum.find(Stream.repeatedly(&unique_id/0), &(:erlang.phash2(&1, 64) != :erlang.phash2(slow, 64)))
    File.write!(Path.join(dir, "file"), "")

    arm("apply", "pause")
    opening = Task.async(fn -> Cluster.start(Path.join(dir, "slow"), slow, 60_000) end)
    eventually("the store to be opening", fn -> server(slow) != nil end)
    assert {:error, reason} = Cluster.start(Path.join(dir, "file/store"), other, 10_000)
    assert reason != :timeout
    disarm("apply")
    assert Task.await(opening, 60_000) == {:ok, slow}
    :ok = Cluster.stop(slow)
  end

  describe "before it is first started" do
    # As in a new VM.
    setup do
      :persistent_term.erase(Tank.Store.Owner)
      :ok
    end

    test "every call says so" do
      assert_not_started()
    end

    test "a running store of that name is not used", %{tmp_dir: dir} do
      start_store(dir, store_id: :tank)
      assert_not_started()
    end

    defp assert_not_started do
      for call <- [
            fn -> Tank.Store.put_pod(pod("web")) end,
            fn -> Tank.Store.put_pod(pod(7)) end,
            fn -> Tank.Store.create_pod(pod("web")) end,
            fn -> Tank.Store.get_pod("web") end,
            fn -> Tank.Store.delete_pod("web") end,
            fn -> Tank.Store.list_pods() end,
            fn -> Tank.Store.put_at([:a], 1) end,
            fn -> Tank.Store.get_at([:a]) end,
            fn -> Tank.Store.delete_at([:a]) end,
            fn -> Tank.Store.children_at([:a]) end
          ] do
        assert_raise RuntimeError, "Tank.Store is not started", call
      end
    end
  end

  describe "while it does not run after that" do
    test "writes give an error, and reads raise one: stopped, or with a store that was stopped", %{tmp_dir: dir} do
      start_tank(dir)
      :ok = Tank.Store.put_pod(pod("web"))
      stop_tank()
      assert_noproc()

      Process.flag(:trap_exit, true)
      {:ok, pid} = Tank.Store.start_link(data_dir: dir)
      :ok = Cluster.stop(:tank)
      assert_receive {:EXIT, ^pid, {:store_stopped, _reason}}, 5_000
      assert_noproc()

      # One that it only used, and that runs on.
      store = start_store(dir, store_id: :tank)
      start_supervised!({Tank.Store, store_id: store})
      assert Tank.Store.list_pods() == [pod("web")]
      stop_tank()
      assert_noproc()
    end

    for {what, end_it} <- [
          {"it was killed", quote(do: &kill/1)},
          {"it crashed", quote(do: &GenServer.stop(&1, :oops))}
        ] do
      test "after #{what}, reads of what this node knows go on until it runs again, or is stopped", %{tmp_dir: dir} do
        Process.flag(:trap_exit, true)
        {:ok, pid} = Tank.Store.start_link(data_dir: dir)
        :ok = Tank.Store.put_pod(pod("web"))
        unquote(end_it).(pid)
        eventually("the store to be closed", fn -> Server.whereis(:tank) == nil end)
        assert Tank.Store.list_pods() == [pod("web")]
        assert Tank.Store.children_at([:tank, :pods]) == {:ok, [{"web", pod("web")}]}
        assert Tree.get(:tank, [:tank, :pods, "web"], favor: :low_latency) == {:ok, pod("web")}
        assert {:ok, [_web], _revision} = Tree.list(:tank, [:tank, :pods], favor: :low_latency)
        assert_writes_noproc()
        for read <- linearizable_reads(), do: assert(%Error{reason: :noproc} = catch_error(read.()))

        {:ok, pid} = Tank.Store.start_link(data_dir: dir)
        :ok = Tank.Store.delete_pod("web")
        assert Tank.Store.list_pods() == []
        unquote(end_it).(pid)
        eventually("the store to be closed", fn -> Server.whereis(:tank) == nil end)
        assert Tank.Store.list_pods() == []
        :ok = Cluster.stop(:tank)
        assert_noproc()
      end
    end

    for {what, kill} <- [
          {"Tank.Store", quote(do: &kill_tank/0)},
          {"the process that owns the store", quote(do: fn -> kill_server(:tank) end)}
        ] do
      test "list_pods never fails while #{what} is killed and restarted", %{tmp_dir: dir} do
        start_tank(dir)
        :ok = Tank.Store.put_pod(pod("kept"))
        reader = Task.async(fn -> list_until_told(0) end)
        for _time <- 1..3, do: unquote(kill).()
        send(reader.pid, :stop)
        assert Task.await(reader) > 100
      end
    end

    defp list_until_told(count) do
      receive do
        :stop -> count
      after
        0 ->
          assert Enum.map(Tank.Store.list_pods(), & &1.name) == ["kept"]
          list_until_told(count + 1)
      end
    end

    defp assert_noproc do
      assert_writes_noproc()
      local_reads = [fn -> Tank.Store.list_pods() end, fn -> Tank.Store.children_at([:a]) end]

      for read <- local_reads ++ linearizable_reads(),
          do: assert(%Error{reason: :noproc} = catch_error(read.()))
    end

    defp linearizable_reads, do: [fn -> Tank.Store.get_pod("web") end, fn -> Tank.Store.get_at([:a]) end]

    defp assert_writes_noproc do
      for write <- [
            fn -> Tank.Store.put_pod(pod("web")) end,
            fn -> Tank.Store.create_pod(pod("web")) end,
            fn -> Tank.Store.delete_pod("web") end,
            fn -> Tank.Store.put_at([:a], 1) end,
            fn -> Tank.Store.delete_at([:a]) end
          ],
          do: assert(write.() == {:error, :noproc})
    end
  end

  describe "a start" do
    test "returns when the store answers: the next child seeds in its init", %{tmp_dir: dir} do
      children = [{Tank.Store, data_dir: dir}, {Seeder, self()}]
      start_supervised!(%{id: :sup, start: {Supervisor, :start_link, [children, [strategy: :rest_for_one]]}})
      seed = pod("seed")
      assert_received {:seeded, :ok, {:ok, ^seed}, [^seed]}

      # The whole tree anew, on the same directory.
      stop_supervised!(:sup)
      start_supervised!(%{id: :sup, start: {Supervisor, :start_link, [children, [strategy: :rest_for_one]]}})
      assert_received {:seeded, {:error, :exists}, {:ok, ^seed}, [^seed]}

      # Only Tank.Store anew: the seeder after it, too.
      old = Process.whereis(Tank.Store)
      kill(old)
      await_tank(old)
      assert_receive {:seeded, {:error, :exists}, {:ok, ^seed}, [^seed]}, 5_000
    end

    test "registers the name, and a second one finds it taken", %{tmp_dir: dir} do
      pid = start_tank(dir)
      assert Process.whereis(Tank.Store) == pid
      assert Tank.Store.start_link(data_dir: dir) == {:error, {:already_started, pid}}
      assert Tank.Store.start_link() == {:error, {:already_started, pid}}
    end

    test "makes the directory, and those above it", %{tmp_dir: dir} do
      start_tank(Path.join(dir, "some/where/below"))
      assert Tank.Store.put_pod(pod("web")) == :ok
      assert File.exists?(Path.join(dir, "some/where/below/FORMAT"))
    end

    test "makes a directory that only its user can read", %{tmp_dir: dir} do
      start_tank(Path.join(dir, "private"))
      assert Bitwise.band(File.stat!(Path.join(dir, "private")).mode, 0o777) == 0o700
    end

    test "uses the id :tank unless another is given", %{tmp_dir: dir} do
      start_tank(dir)
      assert Cluster.get_store_ids() == [:tank]
      stop_tank()
      start_tank(Path.join(dir, "other"), store_id: :other)
      assert Cluster.get_store_ids() == [:other]
    end

    test "takes the options of a store", %{tmp_dir: dir} do
      start_tank(dir, value_bytes_max: 1000)
      # A binary's external term format is 6 bytes longer.
      largest = String.duplicate("v", 1000 - 6)
      assert Tank.Store.put_at([:v], largest) == :ok
      assert Tank.Store.put_at([:v], largest <> "v") == {:error, {:too_large, :value, 1000}}
      assert Tank.Store.create_pod(pod("web", volumes: largest)) == {:error, {:too_large, :value, 1000}}
      assert Tank.Store.get_at([:v]) == {:ok, largest}
      assert Tank.Store.list_pods() == []
    end

    test "on a relative path, through a link, and with .. in it, is on the same directory", %{tmp_dir: dir} do
      start_tank(dir)
      :ok = Tank.Store.put_pod(pod("web"))
      stop_tank()
      link = dir <> "_link"
      File.rm(link)
      File.ln_s!(Path.expand(dir), link)
      on_exit(fn -> File.rm(link) end)

      for path <- [Path.relative_to_cwd(dir), link, Path.join(dir, "../#{Path.basename(dir)}"), dir <> "/"] do
        start_tank(path)
        assert Tank.Store.list_pods() == [pod("web")]
        stop_tank()
      end
    end
  end

  describe "with a data_dir" do
    test "the store ends when Tank.Store is stopped, and its directory is free", %{tmp_dir: dir} do
      start_tank(dir)
      stop_tank()
      refute Cluster.is_store_running(:tank)
      assert Cluster.get_store_ids() == []
      # Under another id it would be refused for that, and not for a lock.
      assert {:error, %Error{reason: {:wrong_store, "tank"}}} = Cluster.start(dir, :not_tank)
    end

    test "the store ends when Tank.Store is killed and not started again", %{tmp_dir: dir} do
      {:ok, pid} = start_unlinked(data_dir: dir)
      kill(pid)
      eventually("the store to be closed", fn -> Cluster.get_store_ids() == [] and instance(:tank) == nil end)
      assert {:ok, :tank} = Cluster.start(dir, :tank)
      :ok = Cluster.stop(:tank)
    end

    test "a store that runs there already is used, and left running", %{tmp_dir: dir} do
      start_store(dir, store_id: :tank)
      server = server(:tank)
      start_tank(dir)
      :ok = Tank.Store.put_pod(pod("web"))
      stop_tank()
      assert server(:tank) == server
    end

    test "a store of that id in another directory is not touched", %{tmp_dir: dir} do
      start_store(Path.join(dir, "a"), store_id: :tank)
      server = server(:tank)
      assert {:error, {:store_init_failed, error}} = start_unlinked(data_dir: Path.join(dir, "b"))
      assert error.reason == {:already_running, Path.expand(Path.join(dir, "a"))}
      assert server(:tank) == server
      refute File.exists?(Path.join(dir, "b"))
    end

    test "a store whose owner was killed is waited for, at whatever moment of its closing", %{tmp_dir: dir} do
      for _round <- 1..20 do
        assert {:ok, :tank} = Cluster.start(dir, :tank)
        pids = [instance(:tank), server(:tank)]
        monitors = Enum.map(pids, &Process.monitor/1)
        for pid <- pids, do: Process.exit(pid, :kill)
        for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, :process, _pid, _reason}, 5_000)
        refute Cluster.is_store_running(:tank)
      end

      assert {:ok, :tank} = Cluster.start(dir, :tank)
      :ok = Cluster.stop(:tank)
    end

    test "a store that is just being stopped is not taken over: it is started when that is done", %{tmp_dir: dir} do
      for _round <- 1..10 do
        {:ok, :tank} = Cluster.start(dir, :tank)
        stopping = Task.async(fn -> Cluster.stop(:tank) end)
        start_tank(dir)
        old = Process.whereis(Tank.Store)
        :ok = Task.await(stopping)
        # It was there before the store stopped, or started one of its own.
        if Process.alive?(old), do: assert(Tank.Store.list_pods() == [])
        stop_tank()
      end
    end

    test "who stops a store for its dead owner does not stop its successor", %{tmp_dir: dir} do
      {:ok, pid} = start_unlinked(data_dir: dir)
      instance = instance(:tank)
      kill(pid)
      eventually("the store to be closed", fn -> instance(:tank) == nil end)
      start_tank(dir)
      # As the server of the first one asked for, on a machine with much to do.
      assert Tank.Store.Instance.stop(:tank, instance) == :ok
      assert Tank.Store.list_pods() == []
    end

    test "a store that is just being opened anew is waited for", %{tmp_dir: dir} do
      start_store(dir, store_id: :tank)

      for _ <- 1..3 do
        old = server(:tank)
        kill(old)
        # At this moment, there is an instance without a server.
        start_tank(dir)
        assert Tank.Store.put_pod(pod("web")) == :ok
        stop_tank()
        assert server(:tank) not in [nil, old]
      end
    end
  end

  describe "without a data_dir" do
    test "it attaches to a running store, and never stops it", %{tmp_dir: dir} do
      id = start_store(dir)
      server = server(id)
      start_supervised!({Tank.Store, store_id: id})
      :ok = Tank.Store.put_pod(pod("web"))
      stop_tank()
      assert server(id) == server

      start_supervised!({Tank.Store, store_id: id, data_dir: nil})
      assert Tank.Store.list_pods() == [pod("web")]
      kill_tank()
      assert Tank.Store.list_pods() == [pod("web")]
      assert server(id) == server
      assert Cluster.is_store_running(id)
    end

    test "there must be one", %{tmp_dir: _dir} do
      for {options, id} <- [{[], :tank}, {[store_id: :no_such_store], :no_such_store}] do
        assert {:error, {:store_init_failed, %Error{reason: {:no_data_dir, ^id}} = error}} = start_unlinked(options)
        assert Exception.message(error) =~ "no :data_dir given, and no store #{inspect(id)} runs"
      end

      assert Process.whereis(Tank.Store) == nil
    end

    test "it stops when the store is stopped, so that its supervisor hears of it", %{tmp_dir: dir} do
      id = start_store(dir)
      {:ok, pid} = start_unlinked(store_id: id)
      monitor = Process.monitor(pid)
      :ok = Cluster.stop(id)
      assert_receive {:DOWN, ^monitor, :process, ^pid, {:store_stopped, _reason}}, 5_000
      assert %Error{reason: :noproc} = catch_error(Tank.Store.list_pods())
    end

    test "its end leaves a store alone that another process started since under the same id", %{tmp_dir: dir} do
      pid = start_tank(dir)
      # What it is told of the end of its own store waits in its mailbox.
      :ok = :sys.suspend(pid)
      :ok = Cluster.stop(:tank)
      start_store(dir, store_id: :tank)
      successor = instance(:tank)
      stop_tank()
      assert instance(:tank) == successor
      assert Cluster.is_store_running(:tank)
    end
  end

  describe "nothing acknowledged is lost" do
    for {what, restart} <- [
          {"by a clean stop", quote(do: fn dir -> {stop_tank(), start_tank(dir)} end)},
          {"by a kill of Tank.Store", quote(do: fn _dir -> kill_tank() end)},
          {"by a kill of the process that owns the store", quote(do: fn _dir -> kill_owning_server() end)},
          {"by a kill of the store's supervisor", quote(do: fn _dir -> kill_instance() end)},
          {"by a kill of everything at once", quote(do: fn _dir -> kill_all() end)},
          {"by an exit of Tank.Store", quote(do: fn _dir -> exit_tank() end)}
        ] do
      test what, %{tmp_dir: dir} do
        restart = unquote(restart)
        start_tank(dir)
        :ok = Tank.Store.put_pod(pod("kept"))

        pods =
          for round <- 1..5, reduce: [pod("kept")] do
            pods ->
              new = pod("round#{round}")
              :ok = Tank.Store.put_pod(new)
              :ok = Tank.Store.put_pod(pod("gone"))
              :ok = Tank.Store.delete_pod("gone")
              restart.(dir)
              assert Tank.Store.list_pods() |> Enum.sort() == Enum.sort([new | pods])
              assert Tank.Store.get_pod("gone") == {:error, :not_found}
              assert Tank.Store.create_pod(new) == {:error, :exists}
              [new | pods]
          end

        for pod <- pods, do: assert(Tank.Store.get_pod(pod.name) == {:ok, pod})
      end
    end

    for {what, kill} <- [
          {"Tank.Store is killed", quote(do: &kill_tank/0)},
          {"the process that owns the store is killed", quote(do: &kill_owning_server/0)}
        ] do
      test "while #{what} under writers", %{tmp_dir: dir} do
        kill = unquote(kill)
        start_tank(dir)
        writers = for writer <- 1..8, do: Task.async(fn -> write_until_told(writer, 0, []) end)

        for round <- 1..3 do
          eventually("writes in round #{round}", fn -> length(listed_names()) > round * 100 end)
          kill.()
        end

        for task <- writers, do: send(task.pid, :stop)
        acknowledged = Enum.flat_map(writers, &Task.await/1)
        kill.()
        lost = acknowledged -- Enum.map(Tank.Store.list_pods(), & &1.name)
        assert lost == [], "#{length(lost)} of #{length(acknowledged)} acknowledged writes are lost"
      end
    end
  end

  # The fourth time within ten seconds the store's supervisor gives up, and Tank.Store is started anew too.
  defp kill_owning_server do
    kill_server(:tank)
    :sys.get_state(Tank.Store, 60_000)
  end

  defp kill_instance do
    old = Process.whereis(Tank.Store)
    kill(instance(:tank))
    await_tank(old)
  end

  defp kill_all do
    [old | _] = pids = [Process.whereis(Tank.Store), instance(:tank), server(:tank)]
    for pid <- pids, do: Process.exit(pid, :kill)
    await_tank(old)
  end

  defp exit_tank do
    old = Process.whereis(Tank.Store)
    GenServer.stop(old, :oops)
    await_tank(old)
  end

  defp write_until_told(writer, i, acknowledged) do
    receive do
      :stop -> acknowledged
    after
      0 ->
        name = "w#{writer}-#{i}"

        if written?(name),
          do: write_until_told(writer, i + 1, [name | acknowledged]),
          else: write_until_told(writer, i + 1, acknowledged)
    end
  end

  # While the store is down, a call returns an error or raises.
  defp written?(name) do
    Tank.Store.put_pod(pod(name)) == :ok
  rescue
    RuntimeError -> false
  end

  defp start_unlinked(opts) do
    trapped = Process.flag(:trap_exit, true)
    started = Tank.Store.start_link(opts)

    case started do
      {:ok, pid} ->
        Process.unlink(pid)
        on_exit(fn -> if Process.alive?(pid), do: GenServer.stop(pid) end)

      # From OTP 26 on, what `start_link` returns is all that the caller is told.
      {:error, reason} ->
        if String.to_integer(System.otp_release()) < 26, do: assert_receive({:EXIT, _pid, ^reason})
    end

    Process.flag(:trap_exit, trapped)
    started
  end
end
