defmodule Tank.Store.Links.BehindTest do
  # A member that was away catches up as fast as its link allows, by log and by snapshot, and holds up nobody.
  use Tank.Store.LinkCase

  alias Tank.Store.{ClusterCase, Lab}

  @moduletag :links
  @moduletag timeout: 900_000

  @value_bytes 62_500
  # Once so much has come the transfer is on: the member's start is over.
  @begun_bytes 1_000_000

  # Every entry stays in the log; or hardly any, so that only a snapshot helps.
  @by %{log: [], snapshot: [snapshot_interval_entries: 200, log_retention_entries: 50, purge_batch: 50]}

  for {megabytes, by, name, link} <- [
        {60, :log, "16 Mbit/s, 60 ms", [rate: 16_000_000, rtt: 60]},
        {60, :snapshot, "16 Mbit/s, 60 ms", [rate: 16_000_000, rtt: 60]},
        {60, :log, "100 Mbit/s, 20 ms", [rate: 100_000_000, rtt: 20]},
        {60, :snapshot, "100 Mbit/s, 20 ms", [rate: 100_000_000, rtt: 20]},
        {500, :log, "100 Mbit/s, 20 ms", [rate: 100_000_000, rtt: 20]},
        {500, :snapshot, "100 Mbit/s, 20 ms", [rate: 100_000_000, rtt: 20]}
      ] do
    test "#{megabytes} MB behind, by #{by}, at #{name}", %{tmp_dir: dir} do
      catch_up(dir, unquote(megabytes), unquote(by), unquote(name), unquote(link))
    end
  end

  defp catch_up(dir, megabytes, by, name, link) do
    {lab, leader, [other, away]} = start_lab_cluster(dir, config: @by[by])
    kill_node(away)
    count = div(megabytes * 1_000_000, @value_bytes)
    :ok = call(leader, ClusterCase, :local_fill, ["fill", count, @value_bytes], 600_000)
    {:ok, %{applied_index: target, purged_index: purged}} = cluster(leader, :status, [store()])
    # All that the member has, and more.
    if by == :snapshot, do: await_purge(leader, 100), else: assert(purged == nil)

    {leader, [other]} = settle(lab, [leader, other], link)
    authority = authority([leader, other])
    received = Lab.received_bytes(lab, number(lab, away))
    :ok = call(other, ClusterCase, :start_writer, ["during"])
    begun = Task.async(fn -> await_bytes(lab, away, received + @begun_bytes) end)
    back = restart_node(away)
    began_ms = Task.await(begun, 60_000)
    # Three times what it may take.
    deadline_ms = began_ms + round(3 * megabytes * 8_000_000 / (0.7 * link[:rate]) * 1_000) + 30_000
    index = applied(back, target, deadline_ms)
    check(index >= target, "caught up to log entry #{index} of #{target}")
    took_ms = now_ms() - began_ms
    bytes = Lab.received_bytes(lab, number(lab, away)) - received
    %{acknowledged: written, errors: errors} = call(other, ClusterCase, :stop_writer, ["during"], 60_000)

    lacked = count * @value_bytes
    mbit = (lacked - @begun_bytes) * 8 / took_ms / 1_000
    heads = ["link Mbit/s", "lacked MB", "received MB", "took s", "Mbit/s", "writes/s of others"]
    row = [link[:rate] / 1_000_000, lacked / 1_000_000, bytes / 1_000_000, took_ms / 1_000, mbit]
    table("#{megabytes} MB behind, by #{by}, at #{name}", heads, [row ++ [length(written) * 1_000 / took_ms]])

    check(mbit >= 0.7 * link[:rate] / 1_000_000, "caught up at #{round(mbit)} Mbit/s")
    check(bytes <= 1.2 * lacked, "received #{div(bytes, 1_000_000)} MB for the #{megabytes} MB that it lacked")
    check(errors == [], "others' writes: #{inspect(Enum.frequencies(errors))}")

    check(
      authority([leader, other]) == authority,
      "the terms and leaders were #{inspect(authority)}, now #{inspect(authority([leader, other]))}"
    )

    verdict("#{megabytes} MB behind, by #{by}, at #{name}")
    :ok = Lab.heal(lab)
    await_agreement([leader, other, back])
  end

  defp await_bytes(lab, peer, bytes) do
    eventually(
      "the first bytes of the transfer",
      fn ->
        received = Lab.received_bytes(lab, number(lab, peer))
        if received >= bytes, do: now_ms(), else: {:not_yet, received}
      end,
      60_000
    )
  end

  # The index that it has come to, `target` unless the deadline was earlier.
  defp applied(peer, target, deadline_ms) do
    {:ok, %{applied_index: index}} = cluster(peer, :status, [store()])

    if index >= target or now_ms() > deadline_ms do
      index
    else
      Process.sleep(20)
      applied(peer, target, deadline_ms)
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
