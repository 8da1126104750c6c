defmodule Tank.Store.Links.WritersTest do
  # Many writers fill a slow link with what is acknowledged, not with what is sent again.
  use Tank.Store.LinkCase

  @moduletag :links
  @moduletag timeout: 300_000

  @value_bytes 10_000
  @warm_up_ms 2_000
  @measured_ms 10_000
  @reference_bytes 5_000_000

  for {writers, name, rate} <- [{20, "40 Mbit/s", 40_000_000}, {200, "100 Mbit/s", 100_000_000}] do
    test "#{writers} writers of 10 KB at #{name}", %{tmp_dir: dir} do
      fill(dir, unquote(writers), unquote(name), unquote(rate))
    end
  end

  # The copies for both followers share the leader's outgoing link.
  defp fill(dir, writers, name, rate) do
    {lab, leader, followers} = start_lab_cluster(dir)
    peers = [leader | followers]
    {leader, followers} = settle(lab, peers, rate: rate)
    tcp_mbit = mbit(2 * @reference_bytes, wire(lab, leader, followers).(@reference_bytes))
    authority = authority(peers)
    {count, errors} = write_together(leader, writers, @value_bytes, @warm_up_ms, @measured_ms)
    mbit = mbit(2 * count * @value_bytes, @measured_ms)
    heads = ["writers", "plain TCP Mbit/s", "values Mbit/s", "values/s"]
    table("#{writers} writers of 10 KB at #{name}", heads, [[writers, tcp_mbit, mbit, count * 1_000 / @measured_ms]])
    check(errors == [], inspect(Enum.frequencies(errors)))
    check(mbit >= 0.8 * tcp_mbit, "#{round(mbit)} Mbit/s of values where plain TCP carries #{round(tcp_mbit)}")

    check(
      authority(peers) == authority,
      "the terms and leaders were #{inspect(authority)}, now #{inspect(authority(peers))}"
    )

    verdict(name)
  end

  defp mbit(bytes, ms), do: bytes * 8 / ms / 1_000
end
