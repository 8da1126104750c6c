defmodule Tank.Store.Cluster.SlowPeersTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{ClusterCase, Network}

  @moduletag :tmp_dir

  @value_bytes 64 * 1024

  test "a member that is stopped holds up nobody, and catches up when it goes on", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [other, stopped] = peers -- [leader]
    {:ok, _revision} = put(leader, "k", 0)
    term = status(leader).term
    floor = memory(leader)
    signal(stopped, "STOP")

    # More than distribution and relays hold, written on both sides.
    watcher = Task.async(fn -> longest_write([leader, other], 0) end)
    :ok = call(leader, ClusterCase, :local_fill, ["fill", 800, @value_bytes], 120_000)
    send(watcher.pid, :stop)
    longest_ms = Task.await(watcher, 60_000)
    grew = memory(leader) - floor

    # As long as nobody waits for the one that is stopped; a machine that is busy gets some time.
    assert longest_ms < 2_000, "a write took #{longest_ms} ms"
    assert status(leader).term == term, "an election"
    # The values are in memory, once as they are and once in the log's tail; and the queues are bounded.
    assert grew < 4 * 800 * @value_bytes + 100_000_000, "grew by #{grew}"
    assert suspended(leader) == []

    signal(stopped, "CONT")
    await_agreement(peers)
    assert get(stopped, "k", 20_000) == get(leader, "k")
    IO.puts("beside a stopped member: longest write #{longest_ms} ms, the leader grew by #{div(grew, 1_000_000)} MB")
  end

  @tag :faults
  test "a member behind 40 Mbit/s with 64 MB to catch up: no election, and nobody waits", %{tmp_dir: dir} do
    network = Network.up(3)

    peers =
      start_cluster(dir, 3,
        host: &Network.address/1,
        exec: &Network.exec(network, &1),
        config: [snapshot_interval_entries: 200, log_retention_entries: 50, purge_batch: 50]
      )

    number = fn peer -> Enum.find_index(peers, &(&1 == peer)) + 1 end
    leader = await_leader(peers)
    [other, away] = peers -- [leader]
    kill_node(away)
    :ok = call(leader, ClusterCase, :local_fill, ["fill", 1_024, @value_bytes], 240_000)
    term = status(leader).term
    floor = memory(leader)
    # What goes to the member that comes back, and the heartbeats to both, share the leader's way out.
    Network.slow_down(network, number.(leader), "40mbit")
    began = System.monotonic_time(:millisecond)
    back = restart_node(away)
    watcher = Task.async(fn -> longest_write([other], 0) end)

    eventually(
      "the member to have caught up",
      fn -> status(back).entries >= 1_024 or {:not_yet, status(back).entries} end,
      240_000
    )

    ms = System.monotonic_time(:millisecond) - began
    send(watcher.pid, :stop)
    longest_ms = Task.await(watcher, 60_000)
    grew = memory(leader) - floor
    assert status(leader).term == term, "an election"
    assert longest_ms < 2_000, "a write took #{longest_ms} ms"
    assert grew < 100_000_000, "grew by #{grew}"
    assert suspended(leader) == []

    IO.puts(
      "64 MB at 40 Mbit/s: #{ms} ms, longest write #{longest_ms} ms, the leader grew by #{div(grew, 1_000_000)} MB"
    )

    await_agreement([leader, other, back])
  end

  # Small writes, one after the other at each of the peers in turn: how long the slowest took.
  defp longest_write(peers, longest) do
    receive do
      :stop -> longest
    after
      0 ->
        times =
          for peer <- peers do
            {microseconds, {:ok, _revision}} = :timer.tc(fn -> put(peer, "small", 1) end)
            div(microseconds, 1_000)
          end

        longest_write(peers, Enum.max([longest | times]))
    end
  end

  # Processes that wait for a connection to take more.
  defp suspended(peer), do: call(peer, ClusterCase, :local_suspended, [])

  # Bytes in memory, of the whole VM.
  defp memory(peer) do
    [_line, kilobytes] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/#{peer.os_pid}/status"))
    String.to_integer(kilobytes) * 1024
  end

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end
end
