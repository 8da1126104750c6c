defmodule Tank.Bench.Workload.Put do
  @moduledoc """
  Durable puts: 10,000 pods of 1.4 KB, overwritten in no order by 1, 16, 64 and 256 processes, next to what the disk
  does alone. Each round measures the disk and then each number of writers; a ratio is of one round.
  """

  alias Tank.Bench.{Disk, Load, Machine, Pods, Report, Stats, Store}

  @writers [1, 16, 64, 256]

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

  @doc "What a writer calls in a loop: puts a pod under one of `names`."
  @spec writer(module, tuple) :: (pos_integer -> (non_neg_integer -> :ok))
  def writer(store, names) do
    pod = Pods.pod("any")

    fn client ->
      Process.put(:seed, client * 7919)
      fn _count -> store.put(Pods.named(pod, pick(names))) end
    end
  end

  @doc "One of `names`, by the calling process's own numbers."
  @spec pick(tuple) :: String.t()
  def pick(names) do
    {index, seed} = Load.next(Process.get(:seed, 1), tuple_size(names))
    Process.put(:seed, seed)
    elem(names, index)
  end

  defp round(%{store: store} = settings, names) do
    raw = Disk.appends(settings.dir, settings.seconds)
    %{raw: raw, puts: for(writers <- @writers, do: {writers, puts(store, names, writers, settings.seconds)})}
  end

  defp puts(store, names, writers, seconds) do
    {syncs, written, cpu} = {store.syncs(), Machine.written(), Machine.cpu_seconds()}
    result = Load.run(writers, seconds, writer(store, names))

    Map.merge(result, %{
      syncs: syncs && (store.syncs() - syncs) / result.count,
      bytes: (Machine.written() - written) / result.count,
      cpu_us: (Machine.cpu_seconds() - cpu) * 1.0e6 / result.count
    })
  end

  defp report(rounds) do
    raw = fn field -> Enum.map(rounds, & &1.raw[field]) end

    puts = fn writers, field ->
      for %{puts: puts} <- rounds, do: Map.fetch!(:proplists.get_value(writers, puts), field)
    end

    syncs? = puts.(1, :syncs) |> hd() != nil

    disk = ["disk alone: 4 KiB and fdatasync", Report.spread(raw.(:rate)), "1", micros(raw), "1", "4,096", ""]

    rows =
      for writers <- @writers do
        of = &puts.(writers, &1)
        ratio = Report.median(Stats.ratios(of.(:rate), raw.(:rate)))
        syncs = if syncs?, do: Report.median(of.(:syncs)), else: "?"
        label = if writers == 1, do: "1 writer", else: "#{writers} writers"

        [
          label,
          Report.spread(of.(:rate)),
          ratio,
          micros(of),
          syncs,
          Report.median(of.(:bytes)),
          Report.median(of.(:cpu_us))
        ]
      end

    head = [
      "durable puts",
      "per second",
      "of the disk's",
      "p50 / p99 us",
      "syncs a put",
      "bytes written",
      "CPU us a put"
    ]

    %{
      tables: [%{title: "Durable puts, pods of 1.4 KB", head: head, rows: [disk | rows]}],
      series: series(raw, puts, syncs?)
    }
  end

  defp micros(of), do: "#{Report.median(of.(:p50))} / #{Report.median(of.(:p99))}"

  defp series(raw, puts, syncs?) do
    disk =
      for {field, unit} <- [rate: "1/s", p50: "us", p99: "us"],
          do: Report.series("disk.#{field}", %{}, unit, raw.(field))

    fields = [rate: "1/s", p50: "us", p99: "us", bytes: "B/put", cpu_us: "us/put"]
    fields = if syncs?, do: [{:syncs, "1/put"} | fields], else: fields

    disk ++
      for(
        writers <- @writers,
        {field, unit} <- fields,
        do: Report.series("put.#{field}", %{writers: writers}, unit, puts.(writers, field))
      ) ++
      for writers <- @writers do
        ratios = Stats.ratios(puts.(writers, :rate), raw.(:rate))
        Report.series("put.of_disk", %{writers: writers}, "ratio", ratios)
      end
  end
end
