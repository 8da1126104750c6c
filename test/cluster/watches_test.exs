defmodule Tank.Store.Cluster.WatchesTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.WatchCollector

  @moduletag :tmp_dir

  # TANK_SECONDS=20 for a quick look.
  @seconds String.to_integer(System.get_env("TANK_SECONDS", "120"))
  @collectors 7
  @prefixes [[], [:test], [:test, "r1-0"], [:test, "a-3"], [:none]]

  test "a watch on any member tells what was written on any other", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    for peer <- peers, do: :ok = collector(peer, :all, [], 0)
    for {peer, n} <- Enum.with_index(peers), i <- 1..30, do: {:ok, _} = put(peer, "a-#{n}", i)
    {:ok, last} = put(hd(peers), "end", 0)
    await_agreement(peers)
    log = history(hd(peers), last)
    assert length(log) == last
    for peer <- peers, do: check(stop(peer, :all, last), [], log)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "each stream is the replay of the log, while leaders are killed", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    {:ok, first} = put(hd(peers), "begin", 0)
    start_all(peers, first)
    until = System.monotonic_time(:millisecond) + @seconds * 1_000
    {peers, kills, parts} = kill_leaders(peers, until, first, 0, [])
    stop_writers(peers)
    {:ok, last} = put(hd(peers), "end", 0)
    await_agreement(peers)
    logs = for peer <- peers, do: history(peer, last)
    assert [log] = Enum.uniq(logs)
    assert Enum.map(log, &elem(&1, 0)) == Enum.to_list(1..last)
    parts = parts ++ for(peer <- peers, n <- 1..@collectors, do: {prefix(n), stop(peer, name(n), last)})
    for {prefix, parts} <- parts, do: check(parts, prefix, log)
    count = parts |> Enum.map(fn {_prefix, parts} -> length(parts) end) |> Enum.sum()
    IO.puts("#{last} revisions, #{kills} leaders killed, #{count} watches: none lost, doubled or split a revision")
    assert kills > 0
  end

  # The node that is killed takes its watches with it; those of the others are compared.
  defp kill_leaders(peers, until, first, kills, parts) do
    Process.sleep(3_000)

    if System.monotonic_time(:millisecond) > until do
      {peers, kills, parts}
    else
      leader = await_leader(peers)
      kill_node(leader)
      Process.sleep(2_000)
      back = restart_node(leader)
      start_all([back], first)
      kill_leaders(Enum.map(peers, &if(&1 == leader, do: back, else: &1)), until, first, kills + 1, parts)
    end
  end

  defp start_all(peers, first) do
    for peer <- peers do
      for n <- 1..@collectors, do: :ok = collector(peer, name(n), prefix(n), first)
      :ok = call(peer, Tank.Store.ClusterCase, :start_writer, ["r#{:erlang.phash2(peer.node)}"])
    end
  end

  defp stop_writers(peers) do
    for peer <- peers, do: call(peer, Tank.Store.ClusterCase, :stop_writer, ["r#{:erlang.phash2(peer.node)}"])
  end

  defp check(parts, prefix, log) do
    for {first, upto, seen} <- parts do
      assert seen == WatchCollector.filtered(log, prefix, first, upto),
             "#{inspect(prefix)} behind #{first} up to #{upto}"
    end
  end

  defp collector(peer, name, prefix, first), do: call(peer, WatchCollector, :start, [name, store(), prefix, first])
  defp stop(peer, name, last), do: call(peer, WatchCollector, :stop, [name, last])
  defp history(peer, last), do: call(peer, WatchCollector, :history, [store(), 0, last])
  defp name(n), do: :"collector_#{n}"
  defp prefix(n), do: Enum.at(@prefixes, rem(n, length(@prefixes)))
end
