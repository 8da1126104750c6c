defmodule Tank.Store.Dashboard.Histogram do
  @moduledoc false
  # Quantiles of what a histogram counted between two moments.

  alias Tank.Store.Native

  @doc """
  The time, in microseconds, that a part of what was counted took at the most: within its bucket, in proportion. nil when
  nothing was counted.

      iex> none = List.duplicate(0, 17)
      iex> Tank.Store.Dashboard.Histogram.quantile(none, none, 0.5)
      nil
      iex> [first, second | others] = none
      iex> Tank.Store.Dashboard.Histogram.quantile(none, [first, second + 10 | others], 0.5)
      75
  """
  @spec quantile([non_neg_integer], [non_neg_integer], float) :: non_neg_integer | nil
  def quantile(before, now, part) do
    counts = Enum.zip_with(now, before, &max(&1 - &2, 0))
    wanted = Enum.sum(counts) * part
    if wanted > 0, do: find(Enum.zip(counts, ranges()), wanted)
  end

  defp find([{count, {from, to}} | _slower], wanted) when count >= wanted,
    do: round(from + (to - from) * wanted / count)

  defp find([{_count, {_from, to}}], _wanted), do: to
  defp find([{count, _range} | slower], wanted), do: find(slower, wanted - count)

  # The last one has no end: its beginning stands for all of it.
  defp ranges do
    bounds = Native.histogram_bounds()
    last = List.last(bounds)
    Enum.zip([0 | bounds], bounds ++ [last])
  end
end
