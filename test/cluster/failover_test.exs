defmodule Tank.Store.Cluster.FailoverTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{History, Linearizable}

  @moduletag :tmp_dir

  # A few keys, so that clients get into each other's way; new ones each round, so that histories stay short.
  @keys 8
  @clients 3

  test "the leader is killed three times under clients on all nodes", %{tmp_dir: dir} do
    kill_leaders(dir, 3)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "the leader is killed fifty times under clients on all nodes", %{tmp_dir: dir} do
    kill_leaders(dir, 50)
  end

  defp kill_leaders(dir, kills) do
    peers = start_cluster(dir, 3)

    {_peers, rounds} =
      Enum.reduce(1..kills, {peers, []}, fn round, {peers, rounds} ->
        {peers, found} = kill_leader(peers, round, dir)
        {peers, [found | rounds]}
      end)

    pauses = rounds |> Enum.map(& &1.pause_ms) |> Enum.sort()

    IO.puts(
      "#{kills} leaders killed, #{rounds |> Enum.map(& &1.acknowledged) |> Enum.sum()} acknowledged writes, 0 lost, " <>
        "all histories linearizable; to the next acknowledged write: median #{Enum.at(pauses, div(kills, 2))} ms, " <>
        "least #{hd(pauses)} ms, most #{List.last(pauses)} ms"
    )
  end

  defp kill_leader(peers, round, dir) do
    leader = await_leader(peers)
    survivors = peers -- [leader]
    keys = for key <- 1..@keys, do: "r#{round}-k#{key}"
    path = fn peer -> Path.join(dir, "history_#{round}_#{Enum.find_index(peers, &(&1 == peer))}") end
    for peer <- peers, do: :ok = call(peer, History, :start, [:clients, path.(peer), @clients, keys, store()])
    await_progress(peers)

    killed_at = History.now()
    kill_node(leader)
    await_progress(survivors)
    for peer <- survivors, do: :ok = call(peer, History, :stop, [:clients])

    history = History.read(Path.join(dir, "history_#{round}_"))
    assert Map.keys(history) |> Enum.sort() == Enum.sort(keys)

    for {key, entries} <- history do
      assert Linearizable.check(entries) == :ok, "round #{round}: #{key} of #{inspect(entries, limit: :infinity)}"
    end

    acknowledged = History.acknowledged_at(history)
    back = restart_node(leader)
    peers = Enum.map(peers, &if(&1 == leader, do: back, else: &1))
    await_agreement(peers)
    {peers, %{acknowledged: length(acknowledged), pause_ms: pause_ms(acknowledged, killed_at)}}
  end

  # Each node has had writes acknowledged since now. Those that the clients wait for go to a leader that is gone, and
  # are asked of the next one.
  defp await_progress(peers) do
    for peer <- peers do
      count = fn -> call(peer, History, :acknowledged, [:clients]) end
      enough = count.() + 20 * @clients
      eventually("clients of #{peer.node} to go on", fn -> count.() >= enough or {:not_yet, count.()} end, 30_000)
    end
  end

  # The longest time without any acknowledgement since the kill: what was under way may still have been answered.
  defp pause_ms(acknowledged, killed_at) do
    [killed_at | acknowledged |> Enum.filter(&(&1 > killed_at)) |> Enum.sort()]
    |> Enum.chunk_every(2, 1, :discard)
    |> Enum.map(fn [a, b] -> div(b - a, 1_000_000) end)
    |> Enum.max()
  end
end
