defmodule Tank.Bench.Comparison.Table do
  @moduledoc "The results of a case as a table: a line for each point and metric, with the speed-up over Khepri."

  alias Tank.Bench.{Report, Stats}

  # In the order of the columns.
  @names [
    tank: "Tank.Store",
    khepri: "Khepri",
    api: "Khepri's API on ours",
    ets: "ETS",
    disk: "disk",
    file: "file",
    message: "message",
    etcd: "etcd"
  ]

  @doc "The table of all rows of a case."
  @spec build(module, [Tank.Bench.Comparison.row()]) :: Report.table()
  def build(module, rows) do
    sides = for {side, _name} <- @names, Enum.any?(rows, &(&1.side == side)), do: side
    head = [module.title(), ""] ++ Enum.map(sides, &@names[&1]) ++ ["speed-up over Khepri (median)"]
    by_key = Map.new(rows, &{{&1.side, &1.params, &1.metric}, &1.values})

    lines =
      for params <- rows |> Enum.map(& &1.params) |> Enum.uniq() |> Enum.sort_by(&order/1),
          {metric, unit, better} <- module.metrics(),
          Enum.any?(sides, &by_key[{&1, params, metric}]) do
        cells = for side <- sides, do: cell(by_key[{side, params, metric}])
        ours = by_key[{:tank, params, metric}]
        [point(params), "#{metric}, #{unit}"] ++ cells ++ [speed_up(ours, by_key[{:khepri, params, metric}], better)]
      end

    %{title: module.title(), head: head, rows: lines}
  end

  @doc "The points at which both stores have a metric: params, metric, whether more or less is better, our values, Khepri's."
  @spec pairs(module, [Tank.Bench.Comparison.row()]) :: [{map, atom, :more | :less, [number], [number]}]
  def pairs(module, rows) do
    better = for {metric, _unit, better} <- module.metrics(), into: %{}, do: {metric, better}
    theirs = for %{side: :khepri} = row <- rows, into: %{}, do: {{row.params, row.metric}, row.values}

    for %{side: :tank} = row <- rows, values = theirs[{row.params, row.metric}] do
      {row.params, row.metric, better[row.metric], row.values, values}
    end
  end

  @doc "A point in words: what distinguishes it from the others."
  @spec point(map) :: String.t()
  def point(params) do
    params |> Enum.sort_by(&weight/1) |> Enum.map_join(", ", &words/1)
  end

  # Sizes in the order of their numbers, not of their digits; ways and kinds before them.
  defp order(params), do: params |> Enum.sort_by(&weight/1) |> Enum.map(&elem(&1, 1))

  defp weight({key, _value}) when key in [:way, :size], do: {0, key}
  defp weight({:pods, _value}), do: {1, :pods}
  defp weight({key, _value}), do: {2, key}

  defp words({key, value}) when is_integer(value) and value == 1,
    do: "1 #{key |> to_string() |> String.trim_trailing("s")}"

  defp words({key, value}) when is_integer(value), do: "#{Report.number(value)} #{key}"
  defp words({_key, value}), do: to_string(value)

  defp cell(nothing) when nothing in [nil, []], do: ""
  defp cell(values), do: Report.spread(values)

  defp speed_up(ours, theirs, _better) when ours == nil or theirs == nil, do: ""
  defp speed_up(ours, theirs, better), do: cell(Stats.speed_ups(ours, theirs, better))
end
