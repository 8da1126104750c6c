defmodule Tank.Bench.Stats do
  @moduledoc "Medians and their spread. A mean would let one pause of the machine decide."

  @doc "The median of a list of numbers."
  @spec median([number]) :: number
  def median(values) do
    sorted = Enum.sort(values)
    count = length(sorted)
    high = Enum.at(sorted, div(count, 2))
    if rem(count, 2) == 1, do: high, else: (high + Enum.at(sorted, div(count, 2) - 1)) / 2
  end

  @doc "Divides two series round by round: what slowed the machine down in a round slowed both."
  @spec ratios([number], [number]) :: [float]
  def ratios(values, others), do: Enum.zip_with(values, others, &(&1 / &2))
end
