defmodule Tank.Store.Cluster.FailoverTest do
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir
  @moduletag :long
  @moduletag timeout: 3_600_000

  # TANK_KILLS=5 for a quick look.
  @kills String.to_integer(System.get_env("TANK_KILLS", "50"))

  test "the leader is killed again and again under writers on all nodes: nothing acknowledged is lost", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)

    {_peers, pauses, total} =
      Enum.reduce(1..@kills, {peers, [], 0}, fn round, {peers, pauses, total} ->
        {peers, pause, acknowledged} = kill_leader(peers, round, dir)
        {peers, [pause | pauses], total + acknowledged}
      end)

    sorted = Enum.sort(pauses)
    median = Enum.at(sorted, div(length(sorted), 2))

    IO.puts(
      "#{@kills} leaders killed, #{total} acknowledged writes, 0 lost; to the next acknowledged write: " <>
        "median #{median} ms, least #{hd(sorted)} ms, most #{List.last(sorted)} ms"
    )
  end

  defp kill_leader(peers, round, dir) do
    leader = await_leader(peers)
    survivors = peers -- [leader]
    file = fn peer -> Path.join(dir, "acknowledged_#{round}_#{Enum.find_index(peers, &(&1 == peer))}") end
    for peer <- peers, do: :ok = call(peer, Tank.Store.ClusterCase, :start_noting_writer, ["r#{round}", file.(peer)])
    Process.sleep(300)
    killed_at = System.os_time(:millisecond)
    kill_node(leader)
    Process.sleep(1_500)
    for peer <- survivors, do: call(peer, Tank.Store.ClusterCase, :stop_writer, ["r#{round}"])

    noted = for peer <- peers, {name, at} <- noted(file.(peer)), do: {name, at, peer}
    pause = longest_pause(for({_name, at, peer} <- noted, peer != leader, do: at), killed_at)

    {:ok, _} = put(hd(survivors), "settle", round)
    {:ok, ^round} = get(List.last(survivors), "settle")

    for peer <- survivors do
      held = list(peer)
      lost = for {name, _at, _peer} <- noted, not Map.has_key?(held, name), do: name
      assert lost == [], "round #{round}, #{peer.node}"
    end

    back = restart_node(leader)
    peers = Enum.map(peers, &if(&1 == leader, do: back, else: &1))
    await_agreement(peers)
    {peers, pause, length(noted)}
  end

  defp noted(file) do
    # The last line of a node that was killed may be cut off; then it was not acknowledged to anybody.
    for line <- file |> File.read!() |> String.split("\n"),
        [name, at] <- [String.split(line, " ")],
        at =~ ~r/^\d{13}$/ do
      {name, String.to_integer(at)}
    end
  end

  # Without an acknowledgement from any survivor.
  defp longest_pause(times, killed_at) do
    times = times |> Enum.filter(&(&1 >= killed_at)) |> Enum.sort()
    [killed_at | times] |> Enum.chunk_every(2, 1, :discard) |> Enum.map(fn [a, b] -> b - a end) |> Enum.max()
  end
end
