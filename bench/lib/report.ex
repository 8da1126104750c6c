defmodule Tank.Bench.Report do
  @moduledoc """
  What a workload found: series of measurements, one value a round, and the tables that show them.

  The tables are for people. The JSON has every value of every series, so that later runs and other stores can be
  compared without running this one again.
  """

  alias Tank.Bench.{Json, Machine, Stats}

  @type series :: %{metric: String.t(), params: map, unit: String.t(), values: [number]}
  @type table :: %{title: String.t(), head: [String.t()], rows: [[String.t()]]}
  @type t :: %{tables: [table], series: [series]}

  @doc "A series; one value a round."
  @spec series(String.t(), map, String.t(), [number]) :: series
  def series(metric, params, unit, values), do: %{metric: metric, params: params, unit: unit, values: values}

  @doc "Prints the tables, as Markdown."
  @spec print(t) :: :ok
  def print(report) do
    for table <- report.tables, do: IO.puts([table.title, "\n\n", lines(table), "\n"])
    IO.puts("load average after: #{Machine.load_average()}")
  end

  @doc "Writes all of it as JSON."
  @spec write!(t, atom, map, Path.t()) :: :ok
  def write!(report, name, machine, path) do
    series =
      for %{values: values} = series <- report.series do
        Map.merge(series, %{median: Stats.median(values), min: Enum.min(values), max: Enum.max(values)})
      end

    document = %{name: name, machine: machine, load_average_after: Machine.load_average(), series: series}
    File.write!(path, Json.encode(document))
  end

  @doc "The median with the lowest and the highest value: `1,234 (1,200-1,300)`."
  @spec spread([number]) :: String.t()
  def spread(values) do
    {low, high} = Enum.min_max(values)
    "#{number(Stats.median(values))} (#{number(low)}-#{number(high)})"
  end

  @doc "The median alone."
  @spec median([number]) :: String.t()
  def median(values), do: number(Stats.median(values))

  @doc "A number with three digits that mean something, and commas."
  @spec number(number) :: String.t()
  def number(value) when is_integer(value), do: commas(Integer.to_string(value))
  def number(value) when value >= 100, do: number(round(value))
  def number(value) when value >= 10, do: :erlang.float_to_binary(value * 1.0, decimals: 1)
  def number(value), do: :erlang.float_to_binary(value * 1.0, decimals: 2)

  defp commas(digits) do
    digits |> String.reverse() |> String.replace(~r/(\d{3})(?=\d)/, "\\1,") |> String.reverse()
  end

  defp lines(%{head: head, rows: rows}) do
    widths = [head | rows] |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)
    rule = Enum.map(widths, &String.duplicate("-", &1))
    for cells <- [head, rule | rows], do: line(cells, widths)
  end

  defp line(cells, widths) do
    ["| ", cells |> Enum.zip_with(widths, &String.pad_trailing/2) |> Enum.intersperse(" | "), " |\n"]
  end
end
