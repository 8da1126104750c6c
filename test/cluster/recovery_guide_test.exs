defmodule Tank.Store.Cluster.RecoveryGuideTest do
  # Follows guides/recovery.md step by step, on clusters of three; and what the names of nodes are for.
  # "A mount is missing", with real mounts: test/faults/mount_test.exs.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterCase.Peer
  alias Tank.Store.{Backup, Error, Tree}

  @moduletag :tmp_dir

  describe "A disk is lost" do
    test "one member of a cluster", %{tmp_dir: dir} do
      [a, b, c] = peers = start_cluster(dir, 3)
      for n <- 1..20, do: {:ok, _} = put(a, "k#{n}", n)
      await_agreement(peers)
      {:ok, %{member_id: lost_id}} = cluster(c, :status, [store()])
      remove_dir(c.dir)

      # 1
      eventually("the alarm", fn ->
        match?({:ok, %{alarms: [directory_lost: _details]}}, cluster(c, :status, [store()]))
      end)

      assert map_size(list(c)) == 20

      # 2
      assert eventually("it to be removed", fn -> cluster(a, :remove_member, [store(), c.node]) == :ok end)
      # 3
      assert cluster(c, :stop, [store()]) == :ok
      assert cluster(c, :start, [c.dir, store(), 30_000]) == {:ok, store()}
      # 4
      assert cluster(c, :join, [store(), a.node, 30_000]) == :ok

      await_agreement(peers)
      assert get(c, "k7") == {:ok, 7}
      assert {:ok, %{member_id: new_id, alarms: [], members: members}} = cluster(c, :status, [store()])
      assert new_id != lost_id
      assert Enum.map(members, & &1.node) == Enum.sort(for peer <- [a, b, c], do: peer.node)
    end

    test "a single member", %{tmp_dir: root} do
      Process.flag(:trap_exit, true)
      {dir, backup} = {Path.join(root, "store"), Path.join(root, "backup")}
      {:ok, supervisor} = Supervisor.start_link([{Tank.Store, data_dir: dir}], strategy: :one_for_one)
      :ok = Tank.Store.put_pod(pod("saved"))
      {:ok, _about} = Backup.create(:tank, backup)
      :ok = Tank.Store.put_pod(pod("newer"))
      remove_dir(dir)

      eventually("it to be noticed", fn ->
        match?({:ok, %{failure: {:lost, :missing}}}, Tank.Store.Cluster.status(:tank))
      end)

      assert Tank.Store.put_pod(pod("x")) == {:error, {:lost, :missing}}

      # 1
      pods = Tank.Store.list_pods()
      assert Enum.sort(for pod <- pods, do: pod.name) == ["newer", "saved"]
      assert {:ok, [_newer, _saved], _revision} = Tree.list(:tank, [:tank, :pods])
      # 2
      assert Supervisor.terminate_child(supervisor, Tank.Store) == :ok

      assert {:error, {:store_init_failed, %Error{reason: {:lost, :missing}}}} =
               Supervisor.restart_child(supervisor, Tank.Store)

      # 3
      assert {:ok, _about} = Backup.restore(backup, dir)
      # 4
      assert {:ok, _pid} = Supervisor.restart_child(supervisor, Tank.Store)
      assert listed_names() == ["saved"]
      for pod <- pods, do: :ok = Tank.Store.put_pod(pod)
      assert listed_names() == ["newer", "saved"]
      Supervisor.stop(supervisor)
    end
  end

  describe "A node is renamed" do
    test "a member of a cluster says so, and works under its former name, or joins again", %{tmp_dir: dir} do
      [a, _b, c] = peers = start_cluster(dir, 3)
      {:ok, _} = put(a, "k", 1)
      kill_node(c)
      renamed = restart_node(%{c | name: c.name <> "_new"})
      assert renamed.node != c.node

      status =
        eventually("the alarm", fn ->
          with {:ok, %{alarms: [node_renamed: details]}} <- cluster(renamed, :status, [store()]),
               do: {:renamed, details}
        end)

      assert {:renamed, %{former: former, node: node, message: message}} = status
      assert {former, node} == {c.node, renamed.node}
      assert message =~ "remove_member"

      # 1
      stop_node(renamed)
      c = restart_node(c)
      await_agreement([a, c])
      eventually("no alarm", fn -> match?({:ok, %{alarms: []}}, cluster(c, :status, [store()])) end)

      kill_node(c)
      renamed = restart_node(%{c | name: c.name <> "_new"})
      # 2
      assert eventually("it to be removed", fn -> cluster(a, :remove_member, [store(), c.node]) == :ok end)
      # 3
      assert cluster(renamed, :join, [store(), a.node, 30_000]) == :ok
      assert get(renamed, "k") == {:ok, 1}
      await_agreement([a, renamed])
      {:ok, members} = cluster(a, :members, [store()])
      assert length(members) == length(peers) and {store(), renamed.node} in members
      eventually("no alarm", fn -> match?({:ok, %{alarms: []}}, cluster(renamed, :status, [store()])) end)
    end

    test "a single member takes the new name by itself", %{tmp_dir: dir} do
      [a] = start_nodes(dir, 1)
      {:ok, _} = put(a, "k", 1)
      kill_node(a)
      a = restart_node(%{a | name: a.name <> "_new"})
      eventually("the new name", fn -> cluster(a, :members, [store()]) == {:ok, [{store(), a.node}]} end)
      assert {:ok, %{alarms: []}} = cluster(a, :status, [store()])
      assert get(a, "k") == {:ok, 1}
    end

    test "a store that was opened before its node was distributed takes the name when another one joins", context do
      [b, c] = start_nodes(context.tmp_dir, 2)
      a = undistributed(Path.join(context.tmp_dir, "a"))
      {:ok, _} = put(a, "k", 1)
      assert cluster(a, :members, [store()]) == {:ok, [{store(), :nonode@nohost}]}

      a = distribute(a)
      for peer <- [b, c], do: assert(cluster(peer, :join, [store(), a.node, 30_000]) == :ok)
      for peer <- [a, b, c], do: assert({:ok, _} = put(peer, "of #{peer.node}", 1))
      for peer <- [a, b, c], do: assert(get(peer, "k") == {:ok, 1})
      await_agreement([a, b, c])
      assert cluster(a, :transfer_leader, [store(), b.node]) == :ok
      for peer <- [a, b, c], do: assert({:ok, _} = put(peer, "later of #{peer.node}", 1))
      {:ok, members} = cluster(a, :members, [store()])
      assert Enum.sort(members) == Enum.sort(for peer <- [a, b, c], do: {store(), peer.node})
    end

    test "without anybody joining it takes the name soon", %{tmp_dir: dir} do
      a = distribute(undistributed(Path.join(dir, "a")))

      eventually(
        "the new name",
        fn -> cluster(a, :members, [store()]) == {:ok, [{store(), a.node}]} end,
        15_000
      )
    end

    test "a node that is not distributed is told that it reaches nobody", %{tmp_dir: dir} do
      a = undistributed(Path.join(dir, "a"))

      assert {:error, {:tank, :failed_to_join_remote_node, %{}}} =
               cluster(a, :join, [store(), :"tank@127.0.0.1", 5_000])

      assert {:ok, _} = put(a, "k", 1)
    end
  end

  defp undistributed(dir) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    args = [~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false", ~c"-setcookie", ~c"tank_cluster_test"] ++ paths
    {:ok, control, _node} = :peer.start(%{connection: :standard_io, args: args, wait_boot: 60_000})
    {:ok, _apps} = :peer.call(control, Application, :ensure_all_started, [:tank_store], 60_000)
    peer = %Peer{control: control, node: :nonode@nohost, dir: dir, os_pid: :peer.call(control, System, :pid, [])}
    on_exit(fn -> stop_node(peer) end)
    {:ok, _store} = cluster(peer, :start, [dir, store(), 30_000])
    peer
  end

  defp distribute(peer) do
    name = :"late_#{System.unique_integer([:positive])}_#{System.pid()}@127.0.0.1"
    {:ok, _pid} = call(peer, :net_kernel, :start, [[name, :longnames]])
    %{peer | node: name}
  end
end
