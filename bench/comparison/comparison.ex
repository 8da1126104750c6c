defmodule Tank.Bench.Comparison do
  @moduledoc """
  Takes the arguments of `bench/compare`, runs its cases, prints tables, and writes all values and a plot.

  In each round, each point of a stage is measured on one side after the other, the first one in turns. A ratio is made
  of the values of one round: what slows the machine down then slows both.
  """

  alias Tank.Bench.Comparison.{Cases, Plot, Side, Table}
  alias Tank.Bench.{Machine, Report, Stats, Store}

  @cases [
    put: Cases.Put,
    get: Cases.Get,
    list: Cases.List,
    unchanged: Cases.Unchanged,
    mixed: Cases.Mixed,
    start: Cases.Start,
    swap: Cases.Swap,
    transaction: Cases.Transaction,
    select: Cases.Select,
    watch: Cases.Watch,
    cluster: Cases.Cluster,
    failover: Cases.Failover,
    catch_up: Cases.CatchUp,
    import: Cases.Import,
    growth: Cases.Growth
  ]

  @type settings :: %{
          quick?: boolean,
          million?: boolean,
          dir: Path.t(),
          rounds: pos_integer,
          seconds: float,
          store: module,
          out: Path.t()
        }

  @typedoc "What a side found at a point, for one metric: a value a round."
  @type row :: %{side: atom, params: map, metric: atom, values: [number]}

  @switches [quick: :boolean, million: :boolean, dir: :string, rounds: :integer, seconds: :float, out: :string]

  @doc "Runs the cases that `args` name, or all; see bench/compare."
  @spec main([String.t()]) :: :ok
  def main(args) do
    {options, names} = OptionParser.parse!(args, strict: @switches)
    settings = settings(options)
    cases = selected(names)
    File.mkdir_p!(settings.out)
    for {name, module} <- cases, do: run(name, module, settings)
    :ok
  end

  defp settings(options) do
    quick? = Keyword.get(options, :quick, false)

    %{
      quick?: quick?,
      million?: Keyword.get(options, :million, false),
      dir: Path.expand(Keyword.get(options, :dir, "bench/tmp")),
      rounds: Keyword.get(options, :rounds, if(quick?, do: 1, else: 5)),
      seconds: Keyword.get(options, :seconds, if(quick?, do: 0.1, else: 3.0)),
      store: Store.Tank,
      out: Path.expand(Keyword.get(options, :out, "bench/results"))
    }
  end

  defp selected([]), do: @cases

  defp selected(names) do
    for name <- names do
      Enum.find(@cases, fn {known, _module} -> Atom.to_string(known) == name end) ||
        raise ArgumentError, "no case #{name}: there are #{Enum.map_join(@cases, ", ", &elem(&1, 0))}"
    end
  end

  defp run(name, module, settings) do
    machine = settings |> Machine.describe() |> Map.update!(:store, &"#{&1}, #{Store.Khepri.version()}")
    Machine.print(machine)
    rows = Enum.flat_map(module.stages(settings), &stage(module, &1, settings))

    if rows != [] do
      report = %{tables: [Table.build(module, rows)], series: series(name, module, rows)}
      Report.print(report)
      path = Path.join(settings.out, "compare_#{name}.json")
      Report.write!(report, name, machine, path)
      IO.puts([path | for(plot <- Plot.write(name, rows, settings.out), do: [", ", plot])])
    end

    IO.puts("")
  end

  # The sides of a stage live at the same time, and take turns.
  defp stage(module, stage, settings) do
    IO.puts(:stderr, "... #{module.title()}, #{Table.point(stage.setup)}")
    dir = Path.join(settings.dir, "compare-#{System.os_time()}")
    sides = for {name, _store} = side <- stage.sides, do: Side.start(side, Path.join(dir, Atom.to_string(name)))

    try do
      ready = Enum.filter(sides, &prepared?(module, &1, stage))
      # What filling started, such as flushes, has an end before anything is measured.
      unless settings.quick?, do: Process.sleep(3_000)
      if ready == [], do: [], else: rounds(module, stage, ready, settings)
    after
      Enum.each(sides, &Side.stop/1)
      Machine.remove!(dir)
    end
  end

  defp prepared?(module, side, stage) do
    case Side.call(side, module, :prepare, [side.store, side.dir, stage.setup]) do
      :ok -> true
      {:skip, reason} -> skipped(module, side, stage.setup, reason)
    end
  end

  defp rounds(module, stage, sides, settings) do
    first = if stage.warm_up, do: 0, else: 1

    for(round <- first..settings.rounds, do: {round, round(module, stage.points, sides, stage, round, settings)})
    |> Enum.flat_map(fn {round, found} -> if round == 0, do: [], else: found end)
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map(fn {{side, params, metric}, values} ->
      %{side: side, params: params, metric: metric, values: values}
    end)
  end

  defp round(module, points, sides, stage, round, settings) do
    {later, first} = Enum.split(sides, rem(round, length(sides)))

    for point <- points, side <- first ++ later, reduce: [] do
      found ->
        params = Map.merge(stage.setup, point)
        seconds = if round == 0, do: settings.seconds / 3, else: settings.seconds

        case Side.call(side, module, :measure, [side.store, side.dir, params, seconds]) do
          {:skip, reason} ->
            if round == settings.rounds, do: skipped(module, side, params, reason)
            found

          metrics ->
            found ++ for {metric, value} <- metrics, do: {{side.name, params, metric}, value}
        end
    end
  end

  defp skipped(module, side, params, reason) do
    IO.puts("skipped: #{module.title()}, #{Table.point(params)}, #{side.name}: #{reason}")
    false
  end

  defp series(name, module, rows) do
    units = for {metric, unit, _better} <- module.metrics(), into: %{}, do: {metric, unit}

    values =
      for %{metric: metric} = row <- rows do
        Report.series("#{name}.#{metric}", Map.put(row.params, :store, row.side), units[metric], row.values)
      end

    ratios =
      for {params, metric, better, ours, theirs} <- Table.pairs(module, rows),
          (speed_ups = Stats.speed_ups(ours, theirs, better)) != [] do
        Report.series("#{name}.#{metric}.speed_up", params, "ratio", speed_ups)
      end

    values ++ ratios
  end
end
