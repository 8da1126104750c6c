defmodule Tank.Store.Cluster.ReadCacheTest do
  # Values that a member has cached, when others write, and when what it holds becomes another state altogether.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{ClusterCase, Tree}

  @moduletag :tmp_dir

  @here [favor: :low_latency]

  test "what others write, and what a snapshot brings, takes the place of what is cached", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3, config: [snapshot_interval_entries: 200, log_retention_entries: 50, purge_batch: 50])
    leader = await_leader(peers)
    [lagging, other] = peers -- [leader]
    write(leader, 1..20, :old)
    await_agreement(peers)
    for peer <- peers, n <- 1..20, do: assert(cached(peer, n) == {:ok, :old})

    # Each member has the answer of the last write to show, also to who asks at a follower.
    write(other, 1..10, :new)
    for peer <- peers, n <- 1..10, do: assert(read(peer, n) == {:ok, :new})

    before = status(lagging)
    signal(lagging, "STOP")
    write(leader, 1..20, :newer)
    :ok = call(leader, ClusterCase, :local_fill, ["fill", 2_000, 10])
    {:ok, _revision} = call(leader, Tree, :delete, [store(), ["k", "1"]])
    await_purge(leader, before.last_log_index)
    signal(lagging, "CONT")
    assert read(lagging, 1, 30_000) == {:error, :not_found}
    for n <- 2..20, do: assert(read(lagging, n) == {:ok, :newer})
    await_agreement(peers)
    later = status(lagging)
    assert later.log_entries - before.log_entries < later.applied_index - before.applied_index, "no snapshot was sent"
    for peer <- peers, n <- 2..20, options <- [[], @here], do: assert(cached(peer, n, options) == {:ok, :newer})
  end

  test "a member that joins another cluster shows nothing of what it held before", %{tmp_dir: dir} do
    [a, b] = start_nodes(dir, 2)
    # Of a revision that the other cluster has not come to.
    write(b, 1..50, :of_b)
    write(a, 1..5, :of_a)
    for n <- 1..50, do: assert(cached(b, n) == {:ok, :of_b})
    :ok = cluster(b, :join, [{store(), a.node}, 30_000])
    for n <- 1..5, options <- [[], @here], do: assert(cached(b, n, options) == {:ok, :of_a})
    for n <- 6..50, options <- [[], @here], do: assert(cached(b, n, options) == {:error, :not_found})
  end

  test "a leader that was stopped answers nothing that another one replaced", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    old = await_leader(peers)
    write(old, 1..5, :old)
    for n <- 1..5, do: assert(cached(old, n) == {:ok, :old})
    signal(old, "STOP")
    others = peers -- [old]
    eventually("another leader", fn -> match?({:ok, _revision}, put(hd(others), "on", 1)) end, 30_000)
    write(hd(others), 1..5, :new)
    signal(old, "CONT")
    for n <- 1..5, do: assert(read(old, n, 30_000) == {:ok, :new})
  end

  defp write(peer, numbers, value) do
    for n <- numbers, do: {:ok, _revision} = call(peer, Tree, :put, [store(), ["k", "#{n}"], value])
  end

  defp read(peer, n, timeout \\ 5_000), do: call(peer, Tree, :get, [store(), ["k", "#{n}"], [timeout: timeout]])

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end

  # The third read finds it in the table.
  defp cached(peer, n, options \\ []) do
    [answer] = Enum.uniq(for _read <- 1..3, do: call(peer, Tree, :get, [store(), ["k", "#{n}"], options]))
    answer
  end
end
