defmodule Tank.Store.Cluster.KilledJoinerTest do
  # A node is killed while it joins, at any moment: the cluster takes writes all the time, and the node joins again.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  test("a joiner killed at 10 random moments", %{tmp_dir: dir}, do: rounds(dir, 2, 10))

  # Once it votes, the other one can write nothing without it: it must not come back as what it was.
  test("a joiner of a single member killed at 5 random moments", %{tmp_dir: dir}, do: rounds(dir, 1, 5))

  @tag :long
  @tag timeout: :infinity
  test("a joiner killed at 100 random moments", %{tmp_dir: dir}, do: rounds(dir, 2, 100))

  defp rounds(dir, members, count) do
    [a | _] = peers = start_cluster(Path.join(dir, "cluster"), members)
    [joiner] = start_nodes(Path.join(dir, "joiner"), 1)
    :ok = call(a, Tank.Store.ClusterCase, :local_fill, ["k", 2_000, 500])
    {microseconds, :ok} = :timer.tc(fn -> cluster(joiner, :join, [store(), a.node, 30_000]) end)
    :ok = cluster(joiner, :reset, [store(), 30_000])
    {:ok, _} = cluster(joiner, :start, [joiner.dir, store(), 30_000])
    IO.puts("a join takes #{div(microseconds, 1000)} ms")

    Enum.reduce(1..count, {joiner, []}, fn round, {joiner, was} ->
      {joiner, found} = round(round, peers, joiner, div(microseconds, 1000))
      {joiner, [found | was]}
    end)
    |> elem(1)
    |> Enum.frequencies()
    |> IO.inspect(label: "after the kill the joiner was")
  end

  defp round(round, peers, joiner, join_ms) do
    {:ok, _} = put(joiner, "its own", round)
    # The call ends with the node.
    {joining, monitor} = spawn_monitor(fn -> cluster(joiner, :join, [store(), hd(peers).node, 30_000]) end)
    # Any moment will do: this waits for nothing.
    receive after: (:rand.uniform(div(join_ms * 5, 4)) -> :ok)
    kill_node(joiner)
    assert_receive {:DOWN, ^monitor, :process, ^joining, _killed}, 30_000
    if length(peers) > 1, do: write_round(peers, round)

    joiner = restart_node(joiner)
    write_round(peers, round)
    # What it was, or a member, which votes by itself if it did not yet.
    found = state(joiner, round)
    if found == :learner, do: await_voter(joiner)
    last = List.last(peers)
    assert cluster(joiner, :join, [store(), last.node, 30_000]) == :ok, "round #{round}: it was #{inspect(found)}"
    assert get(joiner, "round") == {:ok, round}
    assert map_size(list(joiner)) == 2_001
    await_agreement([joiner | peers])
    assert length(voters(hd(peers))) == length(peers) + 1
    assert cluster(joiner, :reset, [store(), 30_000]) == :ok
    {:ok, _} = cluster(joiner, :start, [joiner.dir, store(), 30_000])
    assert length(voters(hd(peers))) == length(peers)
    {joiner, found}
  end

  defp write_round(peers, round), do: for(peer <- peers, do: assert({:ok, _} = put(peer, "round", round, 30_000)))

  defp state(joiner, round) do
    {:ok, %{members: members, member_id: id}} = cluster(joiner, :status, [store()])

    case members do
      [_alone] ->
        assert get(joiner, "its own") == {:ok, round}
        :what_it_was

      [] ->
        flunk("a store without members")

      members ->
        assert get(joiner, "round", 30_000) == {:ok, round}
        Enum.find(members, &(&1.member_id == id)).role
    end
  end

  defp await_voter(joiner) do
    {:ok, %{member_id: id}} = cluster(joiner, :status, [store()])

    eventually(
      "the learner to vote",
      fn ->
        {:ok, %{members: members}} = cluster(joiner, :status, [store()])
        Enum.any?(members, &(&1.member_id == id and &1.role in [:leader, :voter])) or {:not_yet, members}
      end,
      30_000
    )
  end

  defp voters(peer) do
    {:ok, %{members: members}} = cluster(peer, :status, [store()])
    Enum.filter(members, &(&1.role in [:leader, :voter]))
  end
end
