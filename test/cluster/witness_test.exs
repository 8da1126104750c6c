defmodule Tank.Store.Cluster.WitnessTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterCase

  @moduletag :tmp_dir

  defp roles(peer), do: peer |> status() |> Map.fetch!(:members) |> Map.new(&{&1.node, &1.role})

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end

  test "two members and a witness lose any one, and the witness serves nobody", %{tmp_dir: dir} do
    [a, b, w] = start_nodes(dir, 3)
    assert cluster(b, :join, [store(), a.node, 30_000]) == :ok
    assert cluster(w, :join, [store(), a.node, 30_000, [role: :witness]]) == :ok
    assert {:ok, _revision} = put(a, "k", 1)
    assert roles(await_leader([a, b, w]))[w.node] == :witness

    for {call, what} <- [{fn -> put(w, "k", 2) end, :write}, {fn -> get(w, "k") end, :read}] do
      assert {what, call.()} == {what, {:error, :witness}}
    end

    assert call(w, Tank.Store.Call, :values, [store(), ""]) == {:error, :witness}
    assert cluster(w, :nodes, [store()]) == {:ok, Enum.sort([a.node, b.node, w.node])}
    assert cluster(w, :wait_for_leader, [store()]) == :ok

    assert {:error, {:tank, :is_a_witness, %{node: node}}} = cluster(a, :transfer_leader, [store(), w.node])
    assert node == w.node

    # With a clean stop leadership goes to the other member, with kill -9 that one takes it.
    leader = await_leader([a, b, w])
    [other] = [a, b] -- [leader]
    :ok = cluster(leader, :stop, [store()])
    assert {:ok, _revision} = put(other, "k", 2)
    assert status(w).leader == other.node
    assert {:ok, _store} = cluster(leader, :start, [leader.dir, store()])
    assert cluster(leader, :wait_for_leader, [store(), 20_000]) == :ok
    kill_node(other)
    assert {:ok, _revision} = put(leader, "k", 3, 20_000)
    eventually("the member to lead", fn -> status(w).leader == leader.node end)
    other = restart_node(other)
    assert get(other, "k", 20_000) == {:ok, 3}

    # It stays one over a restart, and nobody is left with it alone.
    kill_node(w)
    w = restart_node(w)
    eventually("the witness to be in touch", fn -> cluster(w, :wait_for_leader, [store(), 1_000]) == :ok end)
    assert get(w, "k") == {:error, :witness}
    assert cluster(other, :reset, [store(), 20_000]) == :ok
    assert cluster(leader, :reset, [store(), 5_000]) == {:error, :only_witnesses_left}
    assert {:ok, _revision} = put(leader, "k", 4)

    # Joining again makes a member of it, which reads and leads.
    assert cluster(w, :join, [store(), leader.node, 30_000]) == :ok
    assert get(w, "k") == {:ok, 4}
    assert cluster(leader, :reset, [store(), 20_000]) == :ok
    assert {:ok, _revision} = put(w, "k", 5)
  end

  test "a witness joins by itself, and founds nothing", %{tmp_dir: dir} do
    [w, a, b] = peers = dir |> start_nodes(3, store: false) |> Enum.sort_by(& &1.node)

    start = fn peer, nodes, role, timeout ->
      config = %{cluster_name: store(), cluster: nodes, role: role}
      cluster(peer, :start, [peer.dir, config, timeout])
    end

    assert {:error, _reason} = start.(w, [w.node, a.node], :witness, 1_000)
    :ok = cluster(w, :stop, [store()])

    # With members that may found.
    nodes = for peer <- [a, b], do: peer.node
    waiting = Task.async(fn -> start.(b, nodes, :voter, 30_000) end)
    assert start.(a, nodes, :voter, 30_000) == {:ok, store()}
    assert Task.await(waiting, 60_000) == {:ok, store()}
    assert start.(w, nodes, :witness, 30_000) == {:ok, store()}
    assert roles(await_leader(peers))[w.node] == :witness
  end

  test "a witness is started as one by Tank.Store, too", %{tmp_dir: dir} do
    [a, b, w] = peers = start_nodes(dir, 3, store: false)
    nodes = for peer <- [a, b], do: peer.node
    start = fn peer, options -> call(peer, ClusterCase, :local_start_tank, [peer.dir, [cluster: nodes] ++ options]) end
    [a, b] |> Enum.map(&Task.async(fn -> :ok = start.(&1, []) end)) |> Task.await_many(60_000)
    assert start.(w, role: :witness) == :ok
    assert call(a, Tank.Store, :put_pod, [pod("web")]) == :ok
    assert call(w, Tank.Store, :put_pod, [pod("web")]) == {:error, :witness}
    {:ok, %{members: members}} = call(hd(peers), Tank.Store.Cluster, :status, [:tank])
    assert Map.new(members, &{&1.node, &1.role})[w.node] == :witness
  end
end
