defmodule Tank.Store.Cluster.LeaseTest do
  # Leases of three members, while leaders and holders are stopped.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.LeaseFight

  @moduletag :tmp_dir

  defp acquire(peer, name, ttl),
    do: call(peer, Tank.Store.Lease, :acquire, [store(), name, [holder: peer.node, ttl: ttl]])

  defp renew(peer, lease), do: call(peer, Tank.Store.Lease, :renew, [lease])
  defp read(peer, name), do: call(peer, Tank.Store.Lease, :read, [store(), name])
  defp now, do: System.monotonic_time(:millisecond)

  defp await_end(peer, name, timeout \\ 30_000) do
    eventually("#{name} to end", fn -> read(peer, name) == {:error, :not_found} end, timeout)
    now()
  end

  test "a new leader gives every lease its whole time again", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [next, third] = peers -- [leader]
    ttl = 2_000
    {:ok, lease} = acquire(third, "a", ttl)
    granted = now()
    # Some of its time goes by: what is left must be enough for the leadership to move.
    eventually("a quarter of the time", fn -> now() - granted > 500 end)
    assert cluster(third, :transfer_leader, [store(), next.node]) == :ok
    moved = now()
    await_leader(peers)
    assert await_end(third, "a") - moved >= ttl - 100
    assert renew(third, lease) == {:error, :lease_ended}

    # The same when the leader dies.
    {:ok, lease} = acquire(third, "a", ttl)
    granted = now()
    eventually("a quarter of the time", fn -> now() - granted > 500 end)
    killed = now()
    kill_node(next)
    survivors = peers -- [next]
    await_leader(survivors)
    assert await_end(third, "a") - killed >= ttl
    assert {:ok, again} = acquire(third, "a", ttl)
    assert again.epoch > lease.epoch
  end

  test "a leader that was stopped, or cut off, takes no lease from who could not renew it", %{tmp_dir: dir} do
    [peer] = start_nodes(dir, 1)
    ttl = 1_000
    {:ok, lease} = acquire(peer, "a", ttl)
    signal(peer, "STOP")
    stopped = now()
    eventually("its time to go by", fn -> now() - stopped > ttl + 200 end)
    continued = now()
    signal(peer, "CONT")
    assert {:ok, %{epoch: epoch}} = read(peer, "a")
    assert epoch == lease.epoch
    assert await_end(peer, "a") - continued >= ttl

    # Two of three are stopped: the third cannot commit anything, and leads on when they are back, or another one does.
    peers = start_cluster(Path.join(dir, "three"), 3)
    leader = await_leader(peers)
    {:ok, lease} = acquire(leader, "a", ttl)
    others = peers -- [leader]
    for other <- others, do: signal(other, "STOP")
    stopped = now()
    eventually("its time to go by", fn -> now() - stopped > ttl + 200 end)
    continued = now()
    for other <- others, do: signal(other, "CONT")
    # The holder comes back at once, and goes on.
    assert {:ok, _safe_ms} = renew(leader, lease)
    assert await_end(leader, "a") - continued >= ttl
  end

  # Both the leader's node and the holder's, twice.
  @short 4
  test "20 clients fight for a lease while holders and leaders are stopped past its time: no stale one writes",
       %{tmp_dir: dir} do
    LeaseFight.run(start_cluster(dir, 3), @short)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "20 clients fight for a lease, for longer", %{tmp_dir: dir} do
    LeaseFight.run(start_cluster(dir, 3), String.to_integer(System.get_env("TANK_STOPS", "60")))
  end
end
