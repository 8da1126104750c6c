defmodule Tank.Bench.Workload.Put do
  @moduledoc """
  Durable puts: 10,000 pods of 1.6 KB, overwritten in no order by 1, 16, 64 and 256 processes, and by 256 with pods of
  0.3 KB, next to what the disk does alone. Each round measures the disk and then a number of writers, for each number; a ratio is of such a pair.
  """

  alias Tank.Bench.{Disk, Load, Machine, Pods, Report, Stats, Store}

  @loads [{1, :usual}, {16, :usual}, {64, :usual}, {256, :usual}, {256, :short}]

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(%{store: store} = settings) do
    pods = if settings.quick?, do: 200, else: 10_000
    :ok = store.start(Path.join(settings.dir, "put"))
    Store.fill(store, pods)
    rounds = for _round <- 1..settings.rounds, do: round(settings, Pods.names(pods))
    :ok = store.stop()
    report(rounds)
  end

  @doc "What a writer calls in a loop: puts a pod of that size under one of `names`."
  @spec writer(module, tuple, :short | :usual) :: (pos_integer -> (non_neg_integer -> :ok))
  def writer(store, names, size \\ :usual) do
    pod = Pods.sized(size, "any")

    fn client ->
      Process.put(:seed, client * 7919)
      fn count -> store.put(Pods.named(pod, pick(names), count)) end
    end
  end

  @doc "One of `names`, by the calling process's own numbers."
  @spec pick(tuple) :: String.t()
  def pick(names) do
    {index, seed} = Load.next(Process.get(:seed, 1), tuple_size(names))
    Process.put(:seed, seed)
    elem(names, index)
  end

  # The disk right before each load: how fast it is may change from one second to the next.
  defp round(settings, names) do
    for load <- @loads, into: %{} do
      disk = Disk.appends(settings.dir, settings.seconds / 3)
      {load, %{disk: disk, puts: puts(settings, names, load)}}
    end
  end

  defp puts(%{store: store, dir: dir, seconds: seconds}, names, {writers, size}) do
    {syncs, written, cpu} = {store.syncs(), Machine.written(dir), Machine.cpu_seconds()}
    result = Load.run(writers, seconds, writer(store, names, size))

    Map.merge(result, %{
      syncs: syncs && (store.syncs() - syncs) / result.count,
      bytes: (Machine.written(dir) - written) / result.count,
      cpu_us: (Machine.cpu_seconds() - cpu) * 1.0e6 / result.count
    })
  end

  defp report(rounds) do
    of = fn what, load, field -> for round <- rounds, do: round[load][what][field] end
    told? = hd(of.(:puts, hd(@loads), :syncs)) != nil
    disk = fn field -> Enum.flat_map(@loads, &of.(:disk, &1, field)) end

    first = ["disk alone: 4 KiB and fdatasync", Report.spread(disk.(:rate)), "1", micros(disk), "1", "4,096", ""]

    head = [
      "durable puts",
      "per second",
      "of the disk's",
      "p50 / p99 us",
      "syncs a put",
      "bytes written",
      "CPU us a put"
    ]

    rows = [first | Enum.map(@loads, &row(&1, of, told?))]
    %{tables: [%{title: "Durable puts, pods of 1.6 KB", head: head, rows: rows}], series: series(of, disk, told?)}
  end

  defp row(load, of, told?) do
    puts = &of.(:puts, load, &1)
    syncs = if told?, do: Report.median(puts.(:syncs)), else: "?"
    rest = [micros(puts), syncs, Report.median(puts.(:bytes)), Report.median(puts.(:cpu_us))]
    [label(load), Report.spread(puts.(:rate)), Report.spread(ratios(of, load)) | rest]
  end

  defp label({1, :usual}), do: "1 writer"
  defp label({writers, :usual}), do: "#{writers} writers"
  defp label({writers, :short}), do: "#{writers} writers, 0.3 KB"

  defp ratios(of, load), do: Stats.ratios(of.(:puts, load, :rate), of.(:disk, load, :rate))

  defp micros(of), do: "#{Report.median(of.(:p50))} / #{Report.median(of.(:p99))}"

  defp series(of, disk, told?) do
    fields = [rate: "1/s", p50: "us", p99: "us", bytes: "B/put", cpu_us: "us/put"]
    fields = if told?, do: [{:syncs, "1/put"} | fields], else: fields

    alone =
      for {field, unit} <- Enum.take(fields -- [syncs: "1/put"], 3), do: {"disk.#{field}", %{}, unit, disk.(field)}

    puts =
      for {writers, size} = load <- @loads, {field, unit} <- fields do
        {"put.#{field}", %{writers: writers, size: size}, unit, of.(:puts, load, field)}
      end

    parts = for {n, size} = load <- @loads, do: {"put.of_disk", %{writers: n, size: size}, "ratio", ratios(of, load)}
    for {metric, params, unit, values} <- alone ++ puts ++ parts, do: Report.series(metric, params, unit, values)
  end
end
