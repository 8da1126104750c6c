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
end
