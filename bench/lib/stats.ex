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

  @doc """
  How many times better the first of two series is, round by round: above 1 it is better, whether more is or less.

  A round in which one of them is zero says nothing, and is left out.
  """
  @spec advantages([number], [number], :more | :less) :: [float]
  def advantages(values, others, :less), do: advantages(others, values, :more)

  def advantages(values, others, :more) do
    for {value, other} <- Enum.zip(values, others), value > 0, other > 0, do: value / other
  end
end
