defmodule Tank.Bench.Workload.Get do
  @moduledoc """
  Reading one pod, of names in no order: `get_pod`, which is linearizable, a local read, and `:ets.lookup` of the same
  pods. Each way has a process that lives through all rounds and keeps nothing, so its garbage collections are in the
  time. A round runs all ways one after the other.
  """

  alias Tank.Bench.{Load, Pods, Report, Stats, Store}

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(settings) do
    sizes = if settings.quick?, do: [100], else: [1_000, 10_000, 100_000]
    found = for size <- sizes, do: {size, measure(settings, size)}

    head = ["ns a read"] ++ for({size, _ways} <- found, do: "#{Report.number(size)} pods")
    [{_size, ways} | _rest] = found
    labels = Enum.map(ways, &elem(&1, 0))

    times = for label <- labels, do: [label | for({_size, ways} <- found, do: Report.spread(of(ways, label)))]

    ratios =
      for label <- labels -- [":ets.lookup"] do
        ["#{label} : ets" | for({_size, ways} <- found, do: Report.median(ratio(ways, label)))]
      end

    series =
      for {size, ways} <- found, {label, values} <- ways do
        Report.series("get", %{way: label, pods: size}, "ns", values)
      end

    %{tables: [%{title: "Reading one pod", head: head, rows: times ++ ratios}], series: series}
  end

  @doc "Reads every pod and waits a moment, twice: what is made at a first read is there then."
  @spec warm(module, tuple) :: :ok
  def warm(store, names) do
    [{_label, read} | _others] = store.reads()

    for _pass <- 1..2, chunk <- Enum.chunk_every(Tuple.to_list(names), 20_000) do
      Enum.each(chunk, read)
      Process.sleep(150)
    end

    :ok
  end

  defp measure(%{store: store} = settings, size) do
    stores = [store, Store.Ets]
    names = Pods.names(size)

    for one <- stores do
      :ok = one.start(Path.join(settings.dir, "get-#{size}"))
      Store.fill(one, size)
      warm(one, names)
    end

    readers = for one <- stores, {label, read} <- one.reads(), do: {label, reader(read, names)}
    count = if settings.quick?, do: 1_000, else: 300_000
    rounds = for _round <- 0..settings.rounds, do: for({label, pid} <- readers, do: {label, time(pid, count)})
    for {_label, pid} <- readers, do: send(pid, :stop)
    for one <- stores, do: one.stop()

    # The first round warms up.
    for {label, _pid} <- readers, do: {label, for(round <- tl(rounds), do: of(round, label))}
  end

  defp ratio(ways, label), do: Stats.ratios(of(ways, label), of(ways, ":ets.lookup"))

  defp of(ways, label), do: :proplists.get_value(label, ways)

  defp reader(read, names), do: spawn_link(fn -> serve(read, names) end)

  defp serve(read, names) do
    receive do
      {:run, from, count} ->
        begin = System.monotonic_time(:nanosecond)
        repeat(read, names, tuple_size(names), count, 1)
        send(from, {self(), (System.monotonic_time(:nanosecond) - begin) / count})
        serve(read, names)

      :stop ->
        :ok
    end
  end

  defp repeat(_read, _names, _size, 0, _seed), do: :ok

  defp repeat(read, names, size, count, seed) do
    {index, seed} = Load.next(seed, size)
    read.(elem(names, index))
    repeat(read, names, size, count - 1, seed)
  end

  defp time(pid, count) do
    send(pid, {:run, self(), count})
    receive do: ({^pid, ns} -> ns)
  end
end
