defmodule Tank.Store.ChildrenTest do
  # What a supervisor starts: stores, and all that follows one.
  use Tank.Store.TankCase, async: true

  import ExUnit.CaptureLog

  alias Tank.Store.{Backup, Cluster, Error, Grove, Lease, Projection, Syncer, Tree, Watch}

  @moduletag :tmp_dir

  defmodule Mirror do
    @behaviour Tank.Store.Syncer
    def on_status_updated(_status), do: :ok
    def on_updates(_updates), do: :ok
  end

  describe "a store as a child" do
    test "starts with its supervisor, any number of times, and stops with it", %{tmp_dir: dir} do
      ids = for _n <- 1..3, do: unique_id()
      children = for id <- ids, do: {Cluster, store_id: id, data_dir: Path.join(dir, "#{id}"), value_bytes_max: 1_024}
      {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)

      for id <- ids do
        assert {:ok, 1} = Tree.put(id, [:a], id)
        assert {:error, {:too_large, :value, 1_024}} = Tree.put(id, [:a], String.duplicate("x", 2_000))
      end

      assert Enum.sort(for {id, _pid, _type, _modules} <- Supervisor.which_children(supervisor), do: id) ==
               Enum.sort(for id <- ids, do: {Cluster, id})

      :ok = Supervisor.stop(supervisor)
      for id <- ids, do: refute(Cluster.is_store_running(id))

      # All of it is there, and the directories are free.
      {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
      for id <- ids, do: assert(Tree.get(id, [:a]) == {:ok, id})
      Supervisor.stop(supervisor)
    end

    test "is restarted when it is killed, and keeps what was written", %{tmp_dir: dir} do
      id = unique_id()
      first = start_supervised!({Cluster, store_id: id, data_dir: dir})
      Tree.put!(id, [:a], 1)
      kill(first)

      eventually("the store to be restarted", fn ->
        match?([{{Cluster, ^id}, pid, _, _}] when is_pid(pid) and pid != first, supervised()) and
          Tree.get(id, [:a]) == {:ok, 1}
      end)

      :ok = stop_supervised({Cluster, id})
      refute Cluster.is_store_running(id)
    end

    test "ends when the store is stopped, so that its supervisor hears of it", %{tmp_dir: dir} do
      Process.flag(:trap_exit, true)
      id = unique_id()
      {:ok, pid} = Cluster.start_link(store_id: id, data_dir: dir)
      :ok = Cluster.stop(id)
      assert_receive {:EXIT, ^pid, {:store_stopped, _reason}}, 5_000
    end

    test "without a directory uses a running store, and leaves it running", %{tmp_dir: dir} do
      id = start_store(dir)
      start_supervised!({Cluster, store_id: id})
      :ok = stop_supervised({Cluster, id})
      assert Cluster.is_store_running(id)
    end

    test "says what is missing, and is no second one", %{tmp_dir: dir} do
      Process.flag(:trap_exit, true)
      assert {:error, {:store_init_failed, %Error{} = error}} = Cluster.start_link(store_id: :children_none)
      assert error.reason == {:no_data_dir, :children_none}
      assert Exception.message(error) =~ "no :data_dir given, and no store :children_none runs: give a :data_dir"

      id = unique_id()
      {:ok, pid} = Cluster.start_link(store_id: id, data_dir: dir)
      assert Cluster.start_link(store_id: id, data_dir: dir) == {:error, {:already_started, pid}}
      GenServer.stop(pid)
    end

    test "waits for its cluster for as long as it is told", %{tmp_dir: dir} do
      Process.flag(:trap_exit, true)
      options = [store_id: unique_id(), data_dir: dir, cluster: [:nobody@nowhere], forming: :all, timeout: 200]
      {micros, result} = :timer.tc(fn -> Cluster.start_link(options) end)
      assert {:error, {:store_init_failed, %Error{reason: {:tank, :no_cluster_formed, _props}} = error}} = result
      assert Exception.message(error) =~ "Start the other nodes, or give a longer :timeout"
      assert micros < 10_000_000
      refute Cluster.is_store_running(options[:store_id])
    end
  end

  describe "the rest of a supervision tree" do
    test "has unique ids, and follows a store through a restart", %{tmp_dir: dir} do
      id = unique_id()
      me = self()
      tables = for n <- 1..2, do: :"#{id}_#{n}"

      children =
        [{Cluster, store_id: id, data_dir: dir}] ++
          for(table <- tables, do: {Projection, store_id: id, pattern: [:a], table: table}) ++
          [
            {Watch, store_id: id, pattern: [:a], handler: &send(me, {:a, &1})},
            {Watch, store_id: id, pattern: [:b], handler: {__MODULE__, :forward, [me]}},
            {Syncer, store_id: id, prefix: [:keys], callbacks: Mirror},
            {Syncer, store_id: id, prefix: [:keys], callbacks: me},
            {Lease.Keeper, store_id: id, lease: "one", ttl: 10_000},
            {Lease.Keeper, store_id: id, lease: "two", ttl: 10_000},
            {Grove, store_id: id, name: :"#{id}_grove"},
            {Grove, store_id: id, prefix: [:other]}
          ]

      {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
      assert length(Supervisor.which_children(supervisor)) == 11

      assert_receive {:a, {:synced, 0}}, 5_000
      {:ok, revision} = Tree.put(id, [:a, :x], 1)
      assert_receive {:a, {:changes, ^revision, [%{path: [:a, :x]}]}}, 5_000
      {:ok, ref} = Grove.ref(:"#{id}_grove")
      :ok = Grove.save(ref, :group, 7)

      kill_server(id)
      {:ok, revision} = Tree.put(id, [:a, :y], 2)
      assert_receive {:a, {:changes, ^revision, [%{path: [:a, :y]}]}}, 10_000
      {:ok, revision} = Tree.put(id, [:b, :y], 3)
      assert_receive {:b, {:changes, ^revision, [%{path: [:b, :y]}]}}, 10_000
      for table <- tables, do: eventually("#{table}", fn -> length(:ets.tab2list(table)) == 2 end)
      assert Grove.load(ref, :group) == {:ok, 7}

      # No change came twice.
      refute_received {:a, {:changes, _revision, _changes}}
      Supervisor.stop(supervisor)
    end

    test "a handler is told when the history does not reach back, and gets a snapshot", %{tmp_dir: dir} do
      id = start_store(dir)
      me = self()
      for n <- 1..50, do: Tree.put!(id, [:a], n)
      :ok = Tree.compact(id, 50)
      {:ok, _pid} = Watch.start_link(store_id: id, from: {:after, 1}, handler: &send(me, &1))
      assert_receive {:cancelled, {:compacted, _min}}, 10_000
      assert_receive {:snapshot, [%{value: 50}], 50}, 10_000
    end
  end

  describe "options" do
    test "that are unknown raise everywhere, and name the nearest one", %{tmp_dir: dir} do
      id = start_store(dir)
      {:ok, lease} = Lease.acquire(id, "l", holder: 1, ttl: 10_000)
      {:ok, client} = Tank.Store.Backend.new(id, [])

      for {nearest, call} <- [
            timeout: &Tree.get(id, [:a], [{&1, 1}]),
            return_previous: &Tree.put(id, [:a], 1, [{&1, 1}]),
            keep_while: &Tree.txn(id, [], [{:put, [:a], 1, [{&1, 1}]}], []),
            favor: &Lease.read(id, "l", [{&1, 1}]),
            timeout: &Lease.renew(lease, [{&1, 1}]),
            holder: &Lease.acquire(id, "l", [{&1, 1}]),
            progress: &Backup.create(id, "never", [{&1, 1}]),
            store_id: &Backup.restore("never", "never", [{&1, 1}]),
            replace: &Backup.import(id, "never", [{&1, 1}]),
            progress_interval_ms: &Watch.start(id, [], [{&1, 1}]),
            handler: &Watch.start_link([{&1, 1}]),
            table: &Projection.start_link([{&1, 1}]),
            callbacks: &Syncer.start_link([{&1, 1}]),
            retry_ms: &Syncer.new(client, Mirror, [{&1, 1}]),
            revision: &Tank.Store.Backend.get(client, ["a"], [{&1, 1}]),
            lease: &Lease.Keeper.start_link([{&1, 1}]),
            merge: &Grove.init([{&1, 1}]),
            prefix: &Grove.start_link([{&1, 1}]),
            data_dir: &Cluster.start_link([{&1, 1}]),
            cluster: &Cluster.start(dir, %{:store_id => :never, &1 => 1}),
            favor: &Cluster.members(id, [{&1, :consistency}]),
            timeout: &Cluster.remove_member(id, node(), [{&1, 1}]),
            force: &Cluster.force_new_cluster(id, [{&1, true}]),
            role: &Cluster.join(id, node(), 1_000, [{&1, :voter}])
          ] do
        # One letter is missing.
        wrong = nearest |> Atom.to_string() |> String.replace(~r/^(..)./, "\\1") |> String.to_atom()
        message = "unknown option #{inspect(wrong)}, did you mean #{inspect(nearest)}?"
        assert_raise ArgumentError, message, fn -> call.(wrong) end
      end
    end

    test "that are no timeout raise", %{tmp_dir: dir} do
      id = start_store(dir)

      for wrong <- [-1, 1.5, "5", nil, :never],
          call <- [&Tree.get(id, [:a], timeout: &1), &Cluster.remove_member(id, node(), timeout: &1)] do
        assert_raise ArgumentError, "a timeout must be milliseconds or :infinity, got: #{inspect(wrong)}", fn ->
          call.(wrong)
        end
      end

      assert {:error, {:tank, :not_a_member, _props}} = Cluster.remove_member(id, :x@y, timeout: :infinity)
      assert {:error, {:tank, :not_a_member, _props}} = Cluster.remove_member(id, :x@y, 1_000)
    end
  end

  describe "values" do
    test "are in no report of a process that crashes, and in no message of an error", %{tmp_dir: dir} do
      Process.flag(:trap_exit, true)
      id = start_store(dir)
      secret = "hunter2-#{System.unique_integer([:positive])}"
      Tree.put!(id, [:a], secret)
      {:ok, projection} = Projection.start_link(store_id: id, table: :"#{id}_t")
      {:ok, watch} = Watch.start_link(store_id: id, pattern: [], handler: fn _message -> :ok end)
      {:ok, client} = Tank.Store.Backend.new(id, [])
      {:ok, syncer} = Syncer.new(client, self(), [])
      :ok = Syncer.start(syncer)
      assert_receive {:syncer, _ref, {:status, :in_sync}}, 5_000

      log =
        capture_log(fn ->
          for pid <- [projection, watch, syncer.pid] do
            # A message that no process understands, with a value in it, and a crash.
            send(pid, {:store_watch, make_ref(), secret})
            refute inspect(:sys.get_status(pid), limit: :infinity, printable_limit: :infinity) =~ secret
            GenServer.stop(pid, {:bad, :end})
          end
        end)

      refute log =~ secret

      for {:error, reason} <- [Tree.create(id, [:a], 1), Tree.put(id, [:a], 1, if_revision: 99)],
          do: refute(Exception.message(Error.exception(reason)) =~ secret)
    end
  end

  def forward(message, pid), do: send(pid, {:b, message})

  defp supervised do
    {:ok, supervisor} = ExUnit.fetch_test_supervisor()
    Supervisor.which_children(supervisor)
  end
end
