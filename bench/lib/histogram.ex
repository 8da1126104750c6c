defmodule Tank.Bench.Histogram do
  @moduledoc """
  Latencies of many processes, counted without a message or an allocation.

  Exact to 100 ns below 0.4 ms, to 51 us up to a second; what took longer counts as a second.
  """

  @fine_ns 100
  @fine 4096
  @coarse_ns 51_200
  @coarse 20_000

  @type t :: :counters.counters_ref()

  @doc "An empty histogram."
  @spec new :: t
  def new, do: :counters.new(@fine + @coarse, [:write_concurrency])

  @doc "Counts one latency."
  @spec add(t, non_neg_integer) :: :ok
  def add(histogram, ns) when ns < @fine * @fine_ns, do: :counters.add(histogram, 1 + div(ns, @fine_ns), 1)

  def add(histogram, ns) do
    :counters.add(histogram, 1 + @fine + min(div(ns - @fine * @fine_ns, @coarse_ns), @coarse - 1), 1)
  end

  @doc "The percentiles `parts` (0.5 is the median), in microseconds."
  @spec percentiles(t, [float]) :: [float]
  def percentiles(histogram, parts) do
    counts = for bucket <- 1..(@fine + @coarse), (n = :counters.get(histogram, bucket)) > 0, do: {bucket - 1, n}
    total = counts |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    for part <- parts, do: at(counts, part * total)
  end

  defp at([], _rank), do: 0.0
  defp at([{bucket, _n}], _rank), do: micros(bucket)
  defp at([{bucket, n} | _rest], rank) when n >= rank, do: micros(bucket)
  defp at([{_bucket, n} | rest], rank), do: at(rest, rank - n)

  # The middle of a bucket.
  defp micros(bucket) when bucket < @fine, do: (bucket + 0.5) * @fine_ns / 1000
  defp micros(bucket), do: (@fine * @fine_ns + (bucket - @fine + 0.5) * @coarse_ns) / 1000
end
