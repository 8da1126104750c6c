defmodule Tank.Store.Cluster.LogsTest do
  # The lines of guides/logs.md that take several members.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  alias Tank.Store.LogCollector

  defp await_line(peer, level, target, pattern) do
    eventually(
      "#{peer.node} to log #{inspect(pattern)}",
      fn ->
        lines = call(peer, LogCollector, :lines, [])

        Enum.any?(lines, fn {l, text, meta} -> {l, meta[:target]} == {level, target} and text =~ pattern end) ||
          {:not_yet, Enum.take(lines, -5)}
      end,
      30_000
    )
  end

  test "members come and go, leaders change, a quorum is lost and found", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    for peer <- peers, do: :ok = call(peer, LogCollector, :start, [])
    [follower, other] = peers -- [leader]

    # A cluster that works is silent; but on a busy machine leaders change, and the last join is told late.
    for n <- 1..200, do: {:ok, _revision} = call(follower, Tank.Store.Tree, :put, [store(), [:a], n])

    for peer <- peers,
        {level, text, meta} <- call(peer, LogCollector, :lines, []),
        level != :debug,
        do: assert(meta[:target] in [:cluster, :members], text)

    :ok = cluster(leader, :transfer_leader, [store(), follower.node, 10_000])
    await_line(follower, :info, :cluster, ~r/this member leads since term \d+/)
    await_line(other, :info, :cluster, ~r/#{follower.node} leads since term \d+/)

    :ok = cluster(follower, :remove_member, [store(), leader.node, 10_000])
    await_line(follower, :notice, :members, ~r/#{leader.node} is no member any more: 2 members/)

    kill_node(other)
    await_line(follower, :warning, :cluster, ~r/has lost its quorum/)

    # What the raft library says of the loss names its part and the store, and is limited.
    raft =
      for {level, _text, %{target: "openraft" <> _rest} = meta} <- call(follower, LogCollector, :lines, []),
          do: {level, meta}

    assert raft != [] and length(raft) < 100
    assert Enum.all?(raft, fn {_level, meta} -> meta.store_id == store() and meta.member == follower.node end)
    assert Enum.uniq(for {level, _meta} <- raft, do: level) == [:debug]

    restart_node(other)
    await_line(follower, :notice, :cluster, ~r/has a quorum again/)
  end

  test "a store finds its cluster, and one that holds another cluster's data does not start", %{tmp_dir: dir} do
    [first, second, third] = peers = start_nodes(dir, 3, store: false)
    for peer <- peers, do: :ok = call(peer, LogCollector, :start, [])
    assert start_listed(first, [first.node]) == {:ok, store()}
    assert {:ok, _revision} = put(first, "a", 1)
    assert start_listed(second, [first.node, second.node]) == {:ok, store()}
    await_line(second, :info, :formation, ~r/joins the cluster \d+ of #{first.node}/)
    await_line(first, :notice, :members, ~r/#{second.node} has joined: 2 members/)

    # It holds data, and was never in a cluster of the list that it is given later.
    {:ok, _store} = cluster(third, :start, [third.dir, store(), 30_000])
    {:ok, _revision} = put(third, "b", 1)
    :ok = cluster(third, :stop, [store()])
    assert {:error, {:tank, _why, _props}} = start_listed(third, [first.node, second.node, third.node])
    await_line(third, :error, :formation, ~r/does not start: /)
  end

  test "a member that was away gets a snapshot, and one that starts without the others names them", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3, config: [log_retention_entries: 50, snapshot_interval_entries: 200, purge_batch: 50])
    leader = await_leader(peers)
    [away, other] = peers -- [leader]
    for peer <- [leader, away], do: :ok = call(peer, LogCollector, :start, [])
    {:ok, before} = cluster(away, :status, [store()])
    signal(away, "STOP")
    :ok = call(leader, Tank.Store.ClusterCase, :local_fill, ["fill", 2_000, 10])
    await_purge(leader, before.last_log_index)
    signal(away, "CONT")
    await_line(leader, :info, "tank_engine::raft::replication", ~r/sent a snapshot to another member/)
    await_line(away, :info, "tank_engine::machine", ~r/installed a snapshot of another member/)

    for peer <- [leader, other], do: kill_node(peer)
    :ok = cluster(away, :stop, [store()])
    cluster(away, :start, [away.dir, store(), 2_000])
    await_line(away, :error, :cluster, ~r/has no quorum since it was opened: .*#{leader.node}/)
  end

  test "a member whose disk went back in time is replaced, once a majority is there", %{tmp_dir: dir} do
    [first, second, back] = peers = start_cluster(dir, 3)
    :ok = cluster(back, :stop, [store()])
    File.cp_r!(back.dir, Path.join(dir, "copy"))
    {:ok, _store} = cluster(back, :start, [back.dir, store(), 30_000])
    for number <- 1..20, do: {:ok, _revision} = put(first, "n#{number}", number)
    await_agreement(peers)
    # What members know of each other is told once a second.
    leader = await_leader(peers)
    {:ok, %{member_id: id}} = cluster(back, :status, [store()])

    eventually("the leader to know that it has all", fn ->
      {:ok, %{members: members}} = cluster(leader, :status, [store()])
      member = Enum.find(members, &(&1.member_id == id))
      member.lag == 0 || {:not_yet, member}
    end)

    :ok = cluster(back, :stop, [store()])
    File.rm_rf!(back.dir)
    File.rename!(Path.join(dir, "copy"), back.dir)
    :ok = call(back, LogCollector, :start, [])
    # Another one is away: without a majority it is not replaced.
    signal(second, "STOP")
    cluster(back, :start, [back.dir, store(), 5_000])
    await_line(back, :error, :alarm, ~r/alarm log_lost: /)
    await_line(back, :warning, :members, ~r/was not replaced by a new member: |waits to be replaced by a new member: /)
    signal(second, "CONT")
    await_line(back, :notice, :members, ~r/a new member has taken the place of the former one/)
  end
end
