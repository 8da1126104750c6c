defmodule Tank.Store.RegistryTest do
  # The registry of one node. Other tests of this VM start stores meanwhile: what is looked at has ids of its own.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Cluster
  alias Tank.Store.Registry, as: Stores

  @moduletag :tmp_dir

  defmodule Config do
    defstruct [:data_dir, :mode, :timeout, :options, reader_pool_size: 10, writer_pool_size: 5]
  end

  describe "stores of this library" do
    test "are listed from the return of their start to the return of their stop", %{tmp_dir: dir} do
      before = System.system_time(:millisecond)
      id = start_store(dir)
      assert {:ok, row} = Stores.get_store_info(id)
      assert %{store_id: ^id, mode: :single, data_dir: ^dir, timeout: 5_000} = row
      assert row.node == node()
      assert row.registered_at in before..System.system_time(:millisecond)

      assert Map.keys(row) |> Enum.sort() == [:data_dir, :mode, :node, :registered_at, :store_id, :timeout]
      assert {:ok, rows} = Stores.list_stores_on_node(node())
      assert row in rows

      for _time <- 1..5 do
        :ok = Cluster.stop(id)
        assert Stores.get_store_info(id) == {:error, :not_found}
        {:ok, ^id} = Cluster.start(dir, id, 60_000)
        assert {:ok, %{store_id: ^id}} = Stores.get_store_info(id)
      end
    end

    test "started by Tank.Store are listed too", %{tmp_dir: dir} do
      id = unique_id()
      start_tank(dir, store_id: id)
      assert {:ok, %{data_dir: ^dir}} = Stores.get_store_info(id)
      stop_tank()
      assert Stores.get_store_info(id) == {:error, :not_found}
    end

    test "are told when their engine fails and when it is open again", %{tmp_dir: dir} do
      id = start_store(dir)
      :ok = Stores.subscribe()
      kill_server(id)
      assert_receive {:store_event, :retired, %{store_id: ^id}}, 5_000
      assert_receive {:store_event, :announced, %{store_id: ^id}}, 5_000
      refute_received {:store_event, _type, %{store_id: ^id}}
    end

    test "that fail to open are not announced", %{tmp_dir: dir} do
      :ok = Stores.subscribe()
      File.write!(Path.join(dir, "FORMAT"), "nonsense")
      id = unique_id()
      assert {:error, _reason} = Cluster.start(dir, id)
      mark = mark()
      assert Enum.filter(heard_until(mark), fn {_type, row} -> row.store_id == id end) == []
    end

    test "that are unannounced stay so until they are opened anew", %{tmp_dir: dir} do
      id = start_store(dir)
      :ok = Stores.unannounce_store(id)
      assert Stores.get_store_info(id) == {:error, :not_found}
      kill_registry()
      # As long as the registry takes to look at the stores again, and once more.
      look_now()
      assert Stores.get_store_info(id) == {:error, :not_found}
      kill_server(id)
      eventually("the store to be announced again", fn -> match?({:ok, _row}, Stores.get_store_info(id)) end)
    end

    test "that somebody announces otherwise have their own row again when that one is killed", %{tmp_dir: dir} do
      id = start_store(dir)
      pid = announcer(id, data_dir: "/elsewhere")
      look_now()
      assert {:ok, %{data_dir: "/elsewhere"}} = Stores.get_store_info(id)
      kill(pid)
      eventually("its own row", fn -> match?({:ok, %{data_dir: ^dir}}, Stores.get_store_info(id)) end)
    end
  end

  describe "announce_store" do
    test "takes a map, a keyword list or a struct" do
      id = unique_id()
      options = %{data_dir: "/a", mode: :cluster, timeout: 9, reader_pool_size: 3, options: %{x: 1}}

      for config <- [options, Map.to_list(options), struct!(Config, Map.delete(options, :other))] do
        :ok = Stores.announce_store(id, config)
        assert {:ok, %{data_dir: "/a", mode: :cluster, timeout: 9}} = Stores.get_store_info(id)
        :ok = Stores.unannounce_store(id)
      end

      :ok = Stores.announce_store(id, %Config{data_dir: ~c"/b"})
      assert {:ok, %{data_dir: "/b", mode: :single, timeout: 5_000}} = Stores.get_store_info(id)
      :ok = Stores.unannounce_store(id)
    end

    test "refuses what is no config, and nothing is announced" do
      id = unique_id()

      for config <- [
            %{},
            [mode: :single],
            %{data_dir: nil},
            %{data_dir: 7},
            [data_dir: "/a", mode: :double],
            [data_dir: "/a", timeout: -1],
            [data_dir: "/a", timeout: "5"],
            "config",
            [1, 2]
          ] do
        assert_raise ArgumentError, fn -> Stores.announce_store(id, config) end
      end

      assert_raise FunctionClauseError, fn -> Stores.announce_store("id", data_dir: "/a") end
      assert Stores.get_store_info(id) == {:error, :not_found}
    end

    test "twice replaces the row, and what says the same is no change" do
      id = unique_id()
      :ok = Stores.subscribe()
      :ok = Stores.announce_store(id, data_dir: "/a")
      {:ok, first} = Stores.get_store_info(id)
      :ok = Stores.announce_store(id, data_dir: "/a")
      assert Stores.get_store_info(id) == {:ok, first}
      :ok = Stores.announce_store(id, data_dir: "/b")
      {:ok, second} = Stores.get_store_info(id)
      assert second.data_dir == "/b"
      assert second.registered_at >= first.registered_at
      {:ok, rows} = Stores.list_stores()
      assert for(%{store_id: ^id} = row <- rows, do: row) == [second]
      :ok = Stores.unannounce_store(id)
      :ok = Stores.unannounce_store(id)

      assert for({type, %{store_id: ^id} = row} <- heard_until(mark()), do: {type, row}) == [
               announced: first,
               announced: second,
               retired: second
             ]
    end

    test "depends on the process that announced last" do
      id = unique_id()
      first = announcer(id, data_dir: "/a")
      second = announcer(id, data_dir: "/a")
      kill(first)
      assert {:ok, _row} = Stores.get_store_info(id)
      kill(second)
      eventually("the row to go", fn -> Stores.get_store_info(id) == {:error, :not_found} end)
    end

    test "by a process that ends normally stays, by one that is shut down it does not" do
      [stays, goes, crashes] = for _id <- 1..3, do: unique_id()
      ended = announcer(stays, data_dir: "/a")
      shut_down = announcer(goes, data_dir: "/a")
      crashed = announcer(crashes, data_dir: "/a")
      send(ended, {:end, :normal})
      send(shut_down, {:end, :shutdown})
      send(crashed, {:end, :some_error})

      for id <- [goes, crashes],
          do: eventually("#{id} to go", fn -> Stores.get_store_info(id) == {:error, :not_found} end)

      eventually("the process to end", fn -> not Process.alive?(ended) end)
      assert {:ok, row} = Stores.get_store_info(stays)
      # Also through the death of the registry.
      kill_registry()
      assert Stores.get_store_info(stays) == {:ok, row}
      :ok = Stores.unannounce_store(stays)
    end
  end

  describe "subscribers" do
    test "are subscribed once, until they unsubscribe or end" do
      id = unique_id()
      for _time <- 1..3, do: :ok = Stores.subscribe(self())
      :ok = Stores.announce_store(id, data_dir: "/a")
      assert [{:announced, %{store_id: ^id}}] = of(id, heard_until(mark()))
      for _time <- 1..2, do: :ok = Stores.unsubscribe(self())
      :ok = Stores.unannounce_store(id)
      refute_received {:store_event, _type, %{store_id: ^id}}

      subscriber = spawn(fn -> receive do: (:never -> :ok) end)
      :ok = Stores.subscribe(subscriber)
      assert is_map_key(:sys.get_state(Stores).subscribers, subscriber)
      kill(subscriber)
      eventually("it to be forgotten", fn -> not is_map_key(:sys.get_state(Stores).subscribers, subscriber) end)
      assert :ets.lookup(Tank.Store.Registry.Table, {:subscribers, subscriber}) == []
      # One that is dead already is, too.
      :ok = Stores.subscribe(subscriber)
      eventually("it to be forgotten", fn -> not is_map_key(:sys.get_state(Stores).subscribers, subscriber) end)
    end

    test "get a snapshot once, and only with the option" do
      id = unique_id()
      :ok = Stores.announce_store(id, data_dir: "/a")
      :ok = Stores.subscribe(self(), snapshot: false)
      refute_received {:store_event, _type, _row}
      :ok = Stores.subscribe(self(), snapshot: true)
      :ok = Stores.subscribe(self(), snapshot: true)
      :ok = Stores.subscribe(self(), [])
      assert [{:announced, %{store_id: ^id}}] = of(id, heard_until(mark()))
      :ok = Stores.unannounce_store(id)
      assert_raise ArgumentError, fn -> Stores.subscribe(self(), snapshots: true) end
      assert_raise ArgumentError, fn -> Stores.subscribe(self(), snapshot: 1) end
    end

    test "miss nothing and hear nothing twice between the snapshot and what follows" do
      ids = for _id <- 1..5, do: unique_id()

      for _round <- 1..100 do
        Task.await_many([Task.async(fn -> churn(ids) end), Task.async(fn -> follow(ids) end)], 30_000)
      end

      for id <- ids, do: :ok = Stores.unannounce_store(id)
    end

    test "stay subscribed when the registry is killed" do
      id = unique_id()
      :ok = Stores.subscribe()
      kill_registry()
      :ok = Stores.announce_store(id, data_dir: "/a")
      assert [{:announced, %{store_id: ^id}}] = of(id, heard_until(mark()))
      :ok = Stores.unannounce_store(id)
    end
  end

  describe "the registry" do
    test "ignores what it does not know" do
      registry = Process.whereis(Stores)

      for message <- [
            :unknown,
            {:tank_registry, 2, {:ask, self()}},
            {:tank_registry, 1, {:ask, :nobody}},
            {:tank_registry, 1, {:ask, self()}},
            {:tank_registry, 1, {:all, self(), {:vm, 1}, 1, []}},
            {:tank_registry, 1, {:change, self(), {:vm, 1}, 1, {:retired, :x}}},
            {:tank_registry, 1, {:bye, self()}},
            {:tank_registry, 1, :nonsense},
            {make_ref(), :join, :registries, [self()]},
            {:DOWN, make_ref(), :process, self(), :killed},
            {:EXIT, self(), :killed},
            {:nodedown, :nobody@nowhere, []},
            {:nodeup, :nobody@nowhere, []},
            {:orphan, :nobody@nowhere, nil},
            {:again, self()},
            :enter
          ] do
        send(registry, message)
      end

      GenServer.cast(registry, :unknown)
      GenServer.cast(registry, {:opened, :nobody, self()})
      GenServer.cast(registry, {:closing, :nobody, self()})
      assert catch_exit(GenServer.call(registry, :unknown, 50))
      assert {:ok, _rows} = Stores.list_stores()
      assert Process.whereis(Stores) == registry
    end

    test "is one, and a child of another supervisor is none" do
      registry = Process.whereis(Stores)
      assert Stores.start_link() == {:error, {:already_started, registry}}
      {:ok, supervisor} = Supervisor.start_link([Stores], strategy: :one_for_one)
      assert [{Stores, :undefined, :worker, _modules}] = Supervisor.which_children(supervisor)
      Supervisor.stop(supervisor)
      assert Process.whereis(Stores) == registry
    end

    test "works without the scope, and joins it when it is there" do
      id = unique_id()
      supervisor = Tank.Store.Registry.Supervisor
      :ok = Supervisor.terminate_child(supervisor, Tank.Store.Registry.Scope)
      :ok = Stores.announce_store(id, data_dir: "/a")
      kill_registry()
      assert {:ok, _row} = Stores.get_store_info(id)
      {:ok, _scope} = Supervisor.restart_child(supervisor, Tank.Store.Registry.Scope)

      eventually("the registry to join", fn ->
        :pg.get_local_members(Tank.Store.Registry.Scope, :registries) == [Process.whereis(Stores)]
      end)

      :ok = Stores.unannounce_store(id)
    end

    test "that is not there makes calls return an error" do
      supervisor = Tank.Store.Registry.Supervisor
      :ok = Supervisor.terminate_child(supervisor, Tank.Store.Registry.Server)
      assert Stores.list_stores() == {:error, :noproc}
      assert Stores.list_stores_on_node(node()) == {:error, :noproc}
      assert Stores.get_store_info(:any) == {:error, :noproc}
      assert Stores.subscribe() == {:error, :noproc}
      {:ok, _registry} = Supervisor.restart_child(supervisor, Tank.Store.Registry.Server)
      assert {:ok, _rows} = Stores.list_stores()
    end
  end

  # A process that announces a store and lives on.
  defp announcer(id, config) do
    test = self()

    pid =
      spawn(fn ->
        :ok = Stores.announce_store(id, config)
        send(test, {:announced, id})
        receive do: ({:end, reason} -> exit(reason))
      end)

    receive do: ({:announced, ^id} -> pid)
  end

  # Announces and unannounces at random; so often that it lasts as long as `follow/1`, which it must not outrun forever.
  defp churn(ids) do
    for _time <- 1..400 do
      id = Enum.random(ids)

      if :rand.uniform(2) == 1,
        do: Stores.announce_store(id, data_dir: "/#{:rand.uniform(3)}"),
        else: Stores.unannounce_store(id)
    end
  end

  # Subscribes with a snapshot, and compares what the events lead to with answers of the registry. Its messages to one
  # process come in order, so an answer is about just the events before it.
  defp follow(ids) do
    :ok = Stores.subscribe(self(), snapshot: true)
    Enum.reduce(1..20, %{}, fn _time, rows -> follow(rows, ids) end)
  end

  defp follow(rows, ids) do
    registry = Process.whereis(Stores)
    ref = Process.monitor(registry)
    send(registry, {:"$gen_call", {self(), ref}, :list})
    rows = follow_until(ref, rows, ids)
    Process.demonitor(ref, [:flush])
    rows
  end

  defp follow_until(ref, rows, ids) do
    receive do
      {:store_event, type, %{store_id: id} = row} ->
        follow_until(ref, if(id in ids, do: change({type, row}, rows), else: rows), ids)

      {:DOWN, ^ref, :process, registry, reason} ->
        flunk("the registry #{inspect(registry)} ended: #{inspect(reason)}")

      {^ref, {:ok, listed}} ->
        assert rows == for(%{store_id: id} = row <- listed, id in ids, into: %{}, do: {id, row})
        rows
    after
      20_000 ->
        about = [:message_queue_len, :status, :current_stacktrace]

        flunk(
          "no answer: #{inspect(Process.info(Process.whereis(Stores), about))}, #{inspect(Process.info(self(), about))}"
        )
    end
  end

  defp change({:announced, row}, rows) do
    if rows[row.store_id] == row, do: flunk("told twice: #{inspect(row)}")
    Map.put(rows, row.store_id, row)
  end

  defp change({:retired, row}, rows) do
    if rows[row.store_id] != row, do: flunk("retired, and not known: #{inspect(row)}")
    Map.delete(rows, row.store_id)
  end

  # A store that is announced now: all events before its own have been sent.
  defp mark do
    id = unique_id()
    :ok = Stores.announce_store(id, data_dir: "/mark")
    :ok = Stores.unannounce_store(id)
    id
  end

  defp heard_until(mark) do
    receive do
      {:store_event, :announced, %{store_id: ^mark}} -> []
      {:store_event, type, row} -> [{type, row} | heard_until(mark)]
    after
      1_000 -> []
    end
  end

  defp of(id, events), do: for({_type, %{store_id: ^id}} = event <- events, do: event)

  defp kill_registry do
    old = Process.whereis(Stores)
    kill(old)
    eventually("the next registry", fn -> Process.whereis(Stores) not in [nil, old] end)
  end

  defp look_now do
    send(Stores, :look)
    {:ok, _rows} = Stores.list_stores()
  end
end
