defmodule Tank.Store.Cluster.CatchUpTest do
  # A member that was away for more than the log holds comes back by snapshot.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterCase

  @moduletag :tmp_dir

  @value_bytes 1024

  test "while others write, through kills of the receiver and the sender, without an election", %{tmp_dir: dir} do
    away_for(dir, 4_000, snapshot_interval_entries: 500, log_retention_entries: 200, purge_batch: 100)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "200,000 writes of 1 KB, with the options as they are", %{tmp_dir: dir} do
    %{before: before, rate: rate} = away_for(dir, 200_000, [])
    assert rate * 2 >= before, "the others kept less than half of their rate"
  end

  defp away_for(dir, writes, config) do
    peers = start_cluster(dir, 3, config: config)
    leader = await_leader(peers)
    [other, away] = peers -- [leader]
    before = rate(leader, "before")
    kill_node(away)
    :ok = call(leader, ClusterCase, :local_fill, ["fill", writes, @value_bytes], 1_800_000)

    # While it receives, others write, and nobody else is elected.
    terms = fn -> for peer <- [leader, other], do: status(peer).term end
    term = terms.()
    back = restart_node(away)
    during = catching_up(leader, back)
    assert terms.() == term, "an election"
    await_agreement([leader, other, back])

    IO.puts(
      "a member away for #{writes} writes is back after #{during.ms} ms; memory grew by at most #{megabytes(during.grew)} MB " <>
        "where the state takes #{megabytes(status(back).memory_bytes)} MB; writes a second at the leader: #{before} before, " <>
        "#{during.rate} meanwhile"
    )

    # The state is held once more while it is installed, and what is on its way is bounded.
    assert during.grew < 4 * status(back).memory_bytes + 200_000_000

    # The receiver dies in the middle of it, and then the sender.
    kill_node(back)
    :ok = call(leader, ClusterCase, :local_fill, ["more", div(writes, 2), @value_bytes], 1_800_000)
    back = restart_node(back)
    await_snapshot(back)
    kill_node(back)
    back = restart_node(back)
    await_snapshot(back)
    kill_node(leader)
    assert {:ok, _revision} = put(other, "after the sender", 1, 30_000)
    await_same([other, back])
    leader = restart_node(leader)
    await_same([leader, other, back])
    for peer <- [leader, other, back], do: assert(status(peer).entries > writes + div(writes, 2))
    for peer <- [leader, other, back], do: assert(get(peer, "after the sender", 20_000) == {:ok, 1})
    Map.put(during, :before, before)
  end

  # Its own files tell that a snapshot is coming in; a quick one may be over already.
  defp await_snapshot(peer) do
    incoming = Path.join(peer.dir, "incoming")

    eventually("a snapshot to come in", fn ->
      match?({:ok, [_file | _more]}, File.ls(incoming)) or status(peer).applied_index > 1_000
    end)
  end

  defp catching_up(leader, back) do
    began = System.monotonic_time(:millisecond)
    floor = memory(back)
    :ok = call(leader, ClusterCase, :start_writer, ["during"])
    watcher = Task.async(fn -> most_memory(back, 0) end)
    target = status(leader).applied_index

    eventually(
      "the member to have caught up",
      fn ->
        index = status(back).applied_index
        index >= target or {:not_yet, {index, target}}
      end,
      300_000
    )

    ms = System.monotonic_time(:millisecond) - began
    send(watcher.pid, :stop)
    %{acknowledged: acknowledged, errors: errors} = call(leader, ClusterCase, :stop_writer, ["during"])
    assert errors == []
    %{ms: ms, rate: div(length(acknowledged) * 1000, max(ms, 1)), grew: Task.await(watcher) - floor}
  end

  defp rate(peer, prefix) do
    :ok = call(peer, ClusterCase, :start_writer, [prefix])
    began = System.monotonic_time(:millisecond)
    eventually("a second of writing", fn -> System.monotonic_time(:millisecond) - began > 1_000 end)
    length(call(peer, ClusterCase, :stop_writer, [prefix]).acknowledged)
  end

  defp most_memory(peer, most) do
    receive do
      :stop -> most
    after
      20 -> most_memory(peer, max(most, memory(peer)))
    end
  end

  # Bytes in memory, of the whole VM.
  defp memory(peer) do
    [_line, kilobytes] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/#{peer.os_pid}/status"))
    String.to_integer(kilobytes) * 1024
  end

  defp megabytes(bytes), do: div(bytes, 1_000_000)

  defp await_same(peers) do
    eventually("all to have the same state", fn -> same?(peers) end, 120_000)
  end

  defp same?(peers) do
    states = for peer <- peers, do: peer |> status() |> Map.take([:revision, :digest])
    match?([_one], Enum.uniq(states)) or {:not_yet, states}
  end

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end
end
