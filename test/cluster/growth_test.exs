defmodule Tank.Store.Cluster.GrowthTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterCase

  @moduletag :tmp_dir

  test "one member, three, five, and three again under writers, one step with a member down: nothing is lost",
       context do
    %{tmp_dir: dir} = context
    [a, b, c, d, e] = peers = start_nodes(dir, 5)
    # On the member that stays, and on one that comes.
    :ok = call(a, ClusterCase, :start_writer, ["a"])
    join = fn peer, to -> assert cluster(peer, :join, [store(), to.node, 60_000]) == :ok end
    join.(b, a)
    :ok = call(b, ClusterCase, :start_writer, ["b"])
    join.(c, b)
    kill_node(c)
    # While one of three is down.
    join.(d, a)
    c = restart_node(c)
    join.(e, c)
    assert members(a) == nodes([a, b, c, d, e])
    kill_node(e)
    assert cluster(b, :remove_member, [store(), e.node, 60_000]) == :ok
    assert cluster(d, :reset, [store(), 60_000]) == :ok
    assert members(c) == nodes([a, b, c])

    for {peer, prefix} <- [{a, "a"}, {b, "b"}] do
      %{acknowledged: acknowledged, errors: errors} = call(peer, ClusterCase, :stop_writer, [prefix])
      assert length(acknowledged) > 100
      assert errors == []
      {:ok, _revision} = put(peer, "settled", prefix)
      await_agreement([a, b, c])

      for reader <- [a, b, c] do
        held = list(reader)
        assert Enum.reject(acknowledged, fn {number, _at} -> held["#{prefix}-#{number}"] == number end) == []
      end
    end

    assert length(peers) == 5
  end

  test "a change that the rest could not agree to is refused, and leaves nothing behind", %{tmp_dir: dir} do
    [_, _, _] = peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [other, gone] = peers -- [leader]
    kill_node(gone)

    eventually("the leader to notice", fn ->
      {:ok, %{members: members}} = cluster(leader, :status, [store()])
      Enum.any?(members, &(&1.node == gone.node and &1.reachable == false))
    end)

    missing = {:error, {:tank, :members_missing, %{store_id: store(), nodes: [gone.node]}}}

    # Two of three are there; of the two that would be left, one.
    for call <- [
          fn -> cluster(other, :reset, [store(), 20_000]) end,
          fn -> cluster(leader, :reset, [store(), 20_000]) end,
          fn -> cluster(other, :remove_member, [store(), leader.node, 20_000]) end,
          fn -> cluster(leader, :demote, [store(), other.node, 20_000]) end
        ] do
      assert call.() == missing
      assert {:ok, _revision} = put(other, "k", 1)
      assert members(leader) == nodes(peers)
    end

    # The one that is gone can be removed, and then any other.
    assert cluster(leader, :remove_member, [store(), gone.node]) == :ok
    assert cluster(other, :reset, [store()]) == :ok
    assert members(leader) == [leader.node]
    assert {:ok, _revision} = put(leader, "k", 2)
  end

  test "a member that was removed while it was down leaves for good, or joins again", %{tmp_dir: dir} do
    [a, b, c] = peers = start_cluster(dir, 3)
    {:ok, _revision} = put(a, "k", 1)
    # A majority has it; this one too before it stops.
    assert get(c, "k") == {:ok, 1}
    :ok = cluster(c, :stop, [store()])
    assert cluster(a, :remove_member, [store(), c.node]) == :ok
    {:ok, _store} = cluster(c, :start, [c.dir, store()])
    assert {:error, reason} = put(c, "k", 2, 1_000)
    assert reason in [:timeout, :no_quorum]
    assert list(c) == %{"k" => 1}
    assert cluster(c, :join, [store(), b.node, 20_000]) == :ok
    assert members(c) == nodes(peers)

    :ok = cluster(c, :stop, [store()])
    assert cluster(b, :remove_member, [store(), c.node]) == :ok
    {:ok, _store} = cluster(c, :start, [c.dir, store()])
    assert cluster(c, :reset, [store(), 20_000]) == :ok
    assert members(a) == nodes([a, b])
  end

  defp members(peer) do
    {:ok, nodes} = cluster(peer, :nodes, [store()])
    nodes
  end

  defp nodes(peers), do: peers |> Enum.map(& &1.node) |> Enum.sort()
end
