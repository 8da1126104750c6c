defmodule Tank.Bench.Workload.Mixed do
  @moduledoc "Reads while others write: 2 readers and 16 writers of 10,000 pods, alone and together."

  alias Tank.Bench.{Load, Pods, Report, Store, Workload}

  @readers 2
  @writers 16

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(%{store: store} = settings) do
    pods = if settings.quick?, do: 100, else: 10_000
    names = Pods.names(pods)
    :ok = store.start(Path.join(settings.dir, "mixed"))
    Store.fill(store, pods)
    Workload.Get.warm(store, names)
    reads = {:reads, @readers, reader(store, names)}
    writes = {:writes, @writers, Workload.Put.writer(store, names)}

    rounds =
      for _round <- 1..settings.rounds do
        %{
          {"alone", :reads} => Load.run_all([reads], settings.seconds).reads,
          {"alone", :writes} => Load.run_all([writes], settings.seconds).writes
        }
        |> Map.merge(together(reads, writes, settings.seconds))
      end

    :ok = store.stop()
    report(rounds)
  end

  defp together(reads, writes, seconds) do
    results = Load.run_all([reads, writes], seconds)
    %{{"together", :reads} => results.reads, {"together", :writes} => results.writes}
  end

  defp reader(store, names) do
    [{_label, read} | _others] = store.reads()

    fn client ->
      Process.put(:seed, client * 104_729)

      fn _count ->
        read.(Workload.Put.pick(names))
        :ok
      end
    end
  end

  defp report(rounds) do
    keys = [{"alone", :reads}, {"together", :reads}, {"alone", :writes}, {"together", :writes}]
    of = fn key, field -> Enum.map(rounds, & &1[key][field]) end

    rows =
      for {when_, what} = key <- keys do
        label = "#{if what == :reads, do: "#{@readers} readers", else: "#{@writers} writers"}, #{when_}"
        [label, Report.spread(of.(key, :rate)), Report.median(of.(key, :p50)), Report.median(of.(key, :p99))]
      end

    series =
      for {when_, what} = key <- keys, {field, unit} <- [rate: "1/s", p50: "us", p99: "us"] do
        Report.series("mixed.#{what}.#{field}", %{when: when_}, unit, of.(key, field))
      end

    head = ["reads and writes", "per second", "p50 us", "p99 us"]
    %{tables: [%{title: "Reads while others write", head: head, rows: rows}], series: series}
  end
end
