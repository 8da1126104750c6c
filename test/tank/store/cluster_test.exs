defmodule Tank.Store.ClusterTest do
  # What khepri_cluster's callers rely on, on one node: names, arities, what is taken and what comes back. What several
  # nodes do is in test/cluster/.
  use Tank.Store.TankCase, async: false

  import ExUnit.CaptureLog

  alias Tank.Store.{Call, Cluster, Path}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    id = unique_id()
    on_exit(fn -> Cluster.stop(id) end)
    {:ok, id: id, dir: Elixir.Path.expand(Elixir.Path.join(dir, "store"))}
  end

  test "every function has the arities of khepri_cluster" do
    for {name, arities} <- [
          start: 0..3,
          stop: 0..1,
          join: 1..3,
          reset: 0..2,
          members: 0..2,
          nodes: 0..2,
          locally_known_members: 0..2,
          locally_known_nodes: 0..2,
          wait_for_leader: 0..2,
          get_store_ids: 0..0,
          is_store_running: 1..1,
          get_default_store_id: 0..0,
          get_default_ra_system_or_data_dir: 0..0,
          get_default_data_dir: 0..0
        ],
        arity <- arities do
      assert Code.ensure_loaded?(Cluster) and function_exported?(Cluster, name, arity), "#{name}/#{arity}"
    end
  end

  describe "start" do
    test "takes a directory as a string or a charlist, and makes it", %{id: id, dir: dir} do
      assert Cluster.start(Elixir.Path.join(dir, "below"), id) == {:ok, id}
      assert File.dir?(Elixir.Path.join(dir, "below"))
      :ok = Cluster.stop(id)
      assert Cluster.start(String.to_charlist(dir <> "2"), id, 30_000) == {:ok, id}
      assert {:ok, %{data_dir: data_dir}} = Cluster.status(id)
      assert data_dir == dir <> "2"
    end

    test "with an atom is in the directory of that store", %{id: id, dir: dir} do
      assert Cluster.start(:no_such_system, id) == {:error, :system_not_started}
      {:ok, ^id} = Cluster.start(dir, id)
      # It runs there already; another one cannot.
      assert Cluster.start(id, id) == {:ok, id}
      assert {:error, %Tank.Store.Error{reason: {:locked, ^dir}}} = Cluster.start(id, unique_id())
    end

    test "takes a config with the id, and ignores initial_members with a warning", %{id: id, dir: dir} do
      config = %{cluster_name: id, value_bytes_max: 100, initial_members: [{id, node()}, {id, :"other@127.0.0.1"}]}
      assert capture_log(fn -> assert Cluster.start(dir, config) == {:ok, id} end) =~ "initial_members is ignored"
      assert Cluster.members(id) == {:ok, [{id, node()}]}
      assert put(id, String.duplicate("x", 200)) == {:error, {:too_large, :value, 100}}
      assert_raise ArgumentError, fn -> Cluster.start(dir, %{}) end
      assert_raise ArgumentError, fn -> Cluster.start(dir, "a name") end
      assert_raise ArgumentError, ~r/:role/, fn -> Cluster.start(dir, %{cluster_name: id, role: :king}) end
      assert_raise ArgumentError, ~r/:cluster/, fn -> Cluster.start(dir, %{cluster_name: id, cluster: :all}) end
    end

    test "makes a cluster of one, which leads itself and takes commands at once", %{id: id, dir: dir} do
      {:ok, ^id} = Cluster.start(dir, id)
      assert {:ok, _revision} = put(id, 1)
      assert {:ok, %{role: :leader, quorum: true, members: [%{role: :leader, lag: 0}]}} = Cluster.status(id)
      assert Cluster.leader(id) == {:ok, node()}
      assert Cluster.wait_for_leader(id) == :ok
    end

    test "of one that runs changes nothing, and in another directory is an error", %{id: id, dir: dir} do
      {:ok, ^id} = Cluster.start(dir, id)
      {:ok, _revision} = put(id, 1)
      server = server(id)
      assert Cluster.start(dir, id) == {:ok, id}
      assert Cluster.start(Elixir.Path.join(dir, "../store"), %{cluster_name: id, value_bytes_max: 1}) == {:ok, id}
      assert Cluster.start(dir <> "_other", id) == {:error, {:already_running, dir}}
      assert {server(id), get(id)} == {server, {:ok, 1}}
      refute File.exists?(dir <> "_other")
    end

    test "of one that is being opened anew waits for it", %{id: id, dir: dir} do
      {:ok, ^id} = Cluster.start(dir, id)
      {:ok, _revision} = put(id, 1)

      for _round <- 1..3 do
        kill(server(id))
        assert Cluster.start(dir, id, 30_000) == {:ok, id}
        assert Cluster.start(dir <> "_other", id) == {:error, {:already_running, dir}}
      end

      assert get(id) == {:ok, 1}
    end

    test "after a stop has the data, whatever members are told", %{id: id, dir: dir} do
      {:ok, ^id} = Cluster.start(dir, id)
      {:ok, _revision} = put(id, 1)
      :ok = Cluster.stop(id)
      assert Cluster.start(dir, %{cluster_name: id, initial_members: []}) == {:ok, id}
      assert get(id) == {:ok, 1}
    end

    test "two stores in one VM never mix", %{id: id, dir: dir} do
      other = unique_id()
      on_exit(fn -> Cluster.stop(other) end)
      {:ok, ^id} = Cluster.start(dir, id)
      {:ok, ^other} = Cluster.start(dir <> "_other", other)
      {:ok, _revision} = put(id, 1)
      assert get(other) == {:error, :not_found}
      {:ok, _revision} = put(other, 2)
      assert {get(id), get(other)} == {{:ok, 1}, {:ok, 2}}
      assert Cluster.members(other) == {:ok, [{other, node()}]}
      ids = Cluster.get_store_ids()
      assert id in ids and other in ids and ids == Enum.sort(ids)
      :ok = Cluster.stop(id)
      assert {Cluster.is_store_running(id), Cluster.is_store_running(other)} == {false, true}
      assert get(other) == {:ok, 2}
    end

    test "in no time is a timeout, and the store may come up all the same", %{id: id, dir: dir} do
      assert Cluster.start(dir, id, 0) == {:error, :timeout}
      assert Cluster.wait_for_leader(id, 30_000) == :ok
    end
  end

  test "after a stop, and before a start, every operation is :noproc, at once", %{id: id, dir: dir} do
    assert Cluster.stop(id) == :ok
    {:ok, ^id} = Cluster.start(dir, id)
    assert Cluster.stop(id) == :ok
    assert Cluster.stop(id) == :ok

    for call <- [
          fn -> Cluster.members(id) end,
          fn -> Cluster.members(id, favor: :low_latency) end,
          fn -> Cluster.nodes(id, :infinity) end,
          fn -> Cluster.locally_known_members(id) end,
          fn -> Cluster.locally_known_nodes(id) end,
          fn -> Cluster.status(id) end,
          fn -> Cluster.leader(id) end,
          fn -> Cluster.transfer_leader(id, node()) end,
          fn -> Cluster.remove_member(id, node()) end,
          fn -> Cluster.promote(id, node()) end,
          fn -> Cluster.demote(id, node()) end,
          fn -> Cluster.subscribe(id) end,
          fn -> put(id, 1) end,
          fn -> get(id) end
        ] do
      {microseconds, result} = :timer.tc(call)
      assert result == {:error, :noproc}
      assert microseconds < 1_000_000
    end

    not_a_store = {:error, {:tank, :not_a_tank_store, %{store_id: id}}}
    assert Cluster.join(id, :"other@127.0.0.1") == not_a_store
    assert Cluster.join({id, :"other@127.0.0.1"}, 1_000) == not_a_store
    assert Cluster.reset(id, 1_000) == not_a_store
    assert Cluster.force_new_cluster(id) == not_a_store
    # Nothing of that touched the disk.
    assert File.exists?(Elixir.Path.join(dir, "FORMAT"))
  end

  test "members and nodes take timeouts and options in each form", %{id: id, dir: dir} do
    {:ok, ^id} = Cluster.start(dir, id)

    for options <- [
          5_000,
          :infinity,
          %{},
          %{timeout: 1_000},
          %{favor: :consistency, timeout: :infinity},
          [favor: :low_latency],
          [favor: :low_latency, timeout: 0]
        ] do
      assert Cluster.members(id, options) == {:ok, [{id, node()}]}
      assert Cluster.nodes(id, options) == {:ok, [node()]}
      assert Cluster.locally_known_members(id, options) == {:ok, [{id, node()}]}
      assert Cluster.locally_known_nodes(id, options) == {:ok, [node()]}
    end

    for wrong <- [%{favor: :speed}, [timeout: :soon], -1],
        do: assert_raise(ArgumentError, fn -> Cluster.members(id, wrong) end)
  end

  test "who waits for a leader before the start hears of it", %{id: id, dir: dir} do
    waiting = for target <- [id, {id, node()}], do: Task.async(fn -> Cluster.wait_for_leader(target, 30_000) end)
    never = Task.async(fn -> Cluster.wait_for_leader(:never_started, 200) end)
    {:ok, ^id} = Cluster.start(dir, id)
    assert Task.await_many(waiting, 30_000) == [:ok, :ok]
    assert Task.await(never) == {:error, :noproc}
  end

  test "every timeout may be :infinity", %{id: id, dir: dir} do
    assert Cluster.start(dir, id, :infinity) == {:ok, id}
    assert Cluster.wait_for_leader(id, :infinity) == :ok
    assert Cluster.join(id, node(), :infinity) == :ok
    assert Cluster.members(id, :infinity) == {:ok, [{id, node()}]}
    assert Cluster.transfer_leader(id, node(), :infinity) == :ok
    assert {:error, {:tank, :not_a_member, %{}}} = Cluster.remove_member(id, :"nobody@127.0.0.1", :infinity)
    assert Cluster.force_new_cluster(id, force: true, timeout: :infinity) == :ok
    assert Cluster.reset(id, :infinity) == :ok
  end

  test "status has its figures, and they move", %{id: id, dir: dir} do
    {:ok, ^id} = Cluster.start(dir, id)
    {:ok, before} = Cluster.status(id)
    # The log takes its space on the disk up to a megabyte ahead.
    {:ok, revision} = put(id, String.duplicate("x", 2_000_000))
    {:ok, status} = Cluster.status(id)
    assert %{store_id: ^id, data_dir: ^dir, role: :leader, quorum: true, revision: ^revision, entries: 1} = status
    assert {status.leader, status.term > 0} == {node(), true}
    assert status.last_log_index > before.last_log_index and status.applied_index == status.last_log_index
    assert status.memory_bytes > before.memory_bytes and status.disk_bytes > before.disk_bytes
    assert [%{node: here, role: :leader, lag: 0, reachable: true, member_id: member_id}] = status.members
    assert {here, member_id} == {node(), status.member_id}
  end

  test "a subscriber hears what is, and what comes, until it unsubscribes", %{id: id, dir: dir} do
    {:ok, ^id} = Cluster.start(dir, id)
    {:ok, %{term: term}} = Cluster.status(id)
    {here, members} = {node(), [{id, node()}]}
    assert Cluster.subscribe(id) == :ok
    assert_receive {:store_cluster, ^id, {:leader, ^here, ^term}}, 5_000
    assert_receive {:store_cluster, ^id, {:members, ^members}}, 5_000
    assert_receive {:store_cluster, ^id, {:quorum, :ok}}, 5_000
    # A new cluster has a new term.
    :ok = Cluster.force_new_cluster(id, force: true)
    assert_receive {:store_cluster, ^id, {:leader, ^here, later}} when later != term, 5_000
    assert Cluster.unsubscribe(id) == :ok
    flush(id)
    :ok = Cluster.force_new_cluster(id, force: true)
    refute_receive {:store_cluster, ^id, _event}, 200
  end

  test "reset of the only member leaves an empty directory, where another store may start", %{id: id, dir: dir} do
    {:ok, ^id} = Cluster.start(dir, id)
    {:ok, _revision} = put(id, 1)
    assert Cluster.reset(id) == :ok
    refute Cluster.is_store_running(id)
    assert {:ok, other} = Cluster.start(dir, unique_id())
    assert get(other) == {:error, :not_found}
    :ok = Cluster.stop(other)
  end

  describe "defaults" do
    setup do
      on_exit(fn -> for key <- [:default_store_id, :default_data_dir], do: Application.delete_env(:tank_store, key) end)
    end

    test "come from the environment, and calls without a store id are about them", %{id: id, dir: dir} do
      assert Cluster.get_default_store_id() == :tank
      assert Cluster.get_default_data_dir() == "tank##{node()}"
      Application.put_env(:tank_store, :default_store_id, id)
      Application.put_env(:tank_store, :default_data_dir, dir)
      assert Cluster.get_default_store_id() == id
      assert {Cluster.get_default_data_dir(), Cluster.get_default_ra_system_or_data_dir()} == {dir, dir}

      assert Cluster.start() == {:ok, id}
      assert Cluster.start(dir) == {:ok, id}
      assert {:ok, %{data_dir: ^dir}} = Cluster.status()
      here = {:ok, [{id, node()}]}
      assert [Cluster.members(), Cluster.members(1_000), Cluster.members(favor: :low_latency)] == [here, here, here]
      assert [Cluster.locally_known_members(), Cluster.locally_known_members(1_000)] == [here, here]
      assert [Cluster.nodes(), Cluster.nodes(%{timeout: 1_000})] == [{:ok, [node()]}, {:ok, [node()]}]
      assert Cluster.locally_known_nodes() == {:ok, [node()]}
      assert Cluster.wait_for_leader() == :ok
      # Joining itself is nothing.
      assert [Cluster.join(node()), Cluster.join({id, node()}), Cluster.join(node(), 1_000)] == [:ok, :ok, :ok]
      assert Cluster.reset() == :ok
      assert Cluster.reset(1_000) == {:error, {:tank, :not_a_tank_store, %{store_id: id}}}
      assert Cluster.stop() == :ok
    end

    test "that make no sense raise an error that names them" do
      for bad <- ["tank", nil, true, 1] do
        Application.put_env(:tank_store, :default_store_id, bad)
        assert_raise ArgumentError, ~r/:default_store_id/, fn -> Cluster.get_default_store_id() end
        assert_raise ArgumentError, ~r/:default_store_id/, fn -> Cluster.members() end
      end

      for bad <- ["", nil, 1, []] do
        Application.put_env(:tank_store, :default_data_dir, bad)
        assert_raise ArgumentError, ~r/:default_data_dir/, fn -> Cluster.get_default_data_dir() end
        assert_raise ArgumentError, ~r/:default_data_dir/, fn -> Cluster.get_default_ra_system_or_data_dir() end
      end
    end
  end

  defp flush(id) do
    receive do
      {:store_cluster, ^id, _event} -> flush(id)
    after
      0 -> :ok
    end
  end

  defp put(id, value), do: Call.write(id, :put, key(), value, nil, 5_000)
  defp get(id), do: Call.get(id, key(), &{:ok, &1}, 5_000)

  defp key do
    {:ok, key} = Path.to_key([:k])
    key
  end
end
