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
  The speed-up of the first of two series over the second, round by round. It is above 1 where the first is better,
  whether more or less is better.

  A round in which one of them is zero is left out.
  """
  @spec speed_ups([number], [number], :more | :less) :: [float]
  def speed_ups(values, others, :less), do: speed_ups(others, values, :more)

  def speed_ups(values, others, :more) do
    for {value, other} <- Enum.zip(values, others), value > 0, other > 0, do: value / other
  end
end
