defmodule Tank.Bench.Workload.List do
  @moduledoc """
  Listing all pods, next to `:ets.tab2list` of the same pods (and with the step that callers add, taking the pod out of
  each row). From a process that lives on, where old lists are garbage, and from a fresh one, with its end. The first
  list after a restart, when nothing is decoded yet, stands alone.
  """

  alias Tank.Bench.{Load, Pods, Report, Stats, Store, Workload}

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(settings) do
    sizes = if settings.quick?, do: [50], else: [100, 1_000, 10_000, 100_000]
    found = for size <- sizes, do: {size, measure(settings, size)}

    series =
      for {size, rows} <- found, {{kind, label}, values} <- rows do
        Report.series("list", %{process: kind, way: label, pods: size}, "ms", values)
      end

    %{tables: [table(found)], series: series}
  end

  defp measure(%{store: store} = settings, size) do
    dir = Path.join(settings.dir, "list-#{size}")
    :ok = store.start(dir)
    Store.fill(store, size)
    Store.Ets.start(dir)
    Store.fill(Store.Ets, size)
    firsts = for _round <- 1..settings.rounds, do: first(store, dir)
    Workload.Get.warm(store, Pods.names(size))
    ways = store.lists() ++ Store.Ets.lists()
    living = for {label, list} <- ways, do: {label, spawn_link(fn -> serve(list) end)}
    # So many that a round takes a moment, and a pause of the machine does not decide.
    count = max(div(if(settings.quick?, do: 100, else: 30_000), size), 2)

    rounds =
      for _round <- 0..settings.rounds, {label, list} <- ways do
        pid = :proplists.get_value(label, living)
        [{{"living", label}, in_living(pid, count)}, {{"fresh", label}, in_fresh(list, count)}]
      end

    for {_label, pid} <- living, do: send(pid, :stop)
    store.stop()
    Store.Ets.stop()

    # The first round warms up.
    grouped = Enum.group_by(List.flatten(rounds), &elem(&1, 0), &elem(&1, 1))
    kept = for {key, [_warming | values]} <- grouped, into: %{}, do: {key, values}
    Map.put(kept, {"first", elem(hd(store.lists()), 0)}, firsts)
  end

  @doc "The milliseconds of each list in a process of its own, again and again for `seconds`."
  @spec fresh((() -> [term]), number) :: [float]
  def fresh(list, seconds) do
    Load.settle()
    repeat(fn -> one_fresh(list) end, now_ms() + seconds * 1000)
  end

  @doc "The milliseconds of a list in the calling process, on average, again and again for `seconds`."
  @spec mean((() -> [term]), number) :: float
  def mean(list, seconds) do
    begin = now_ms()
    count = length(repeat(fn -> forget(list.()) end, begin + seconds * 1000))
    (now_ms() - begin) / count
  end

  # At least once.
  defp repeat(run, deadline) do
    result = run.()
    if now_ms() < deadline, do: [result | repeat(run, deadline)], else: [result]
  end

  defp forget(_list), do: :ok

  defp first(store, dir) do
    :ok = store.stop()
    :ok = store.start(dir)
    [{_label, list} | _others] = store.lists()
    in_fresh(list, 1)
  end

  defp serve(list) do
    receive do
      {:run, from, count} ->
        begin = now_ms()
        for _ <- 1..count, do: list.()
        send(from, {self(), (now_ms() - begin) / count})
        serve(list)

      :stop ->
        :ok
    end
  end

  defp in_living(pid, count) do
    send(pid, {:run, self(), count})
    receive do: ({^pid, ms} -> ms)
  end

  defp in_fresh(list, count) do
    Load.settle()
    times = for _ <- 1..count, do: one_fresh(list)
    Stats.median(times)
  end

  # From its start to its end: giving the memory back is part of what a list costs.
  defp one_fresh(list) do
    begin = now_ms()
    {pid, monitor} = spawn_monitor(fn -> [_one | _others] = list.() end)
    receive do: ({:DOWN, ^monitor, :process, ^pid, :normal} -> now_ms() - begin)
  end

  defp now_ms, do: System.monotonic_time(:nanosecond) / 1.0e6

  defp table(found) do
    [{_size, rows} | _others] = found
    keys = rows |> Map.keys() |> Enum.sort()

    times =
      for {kind, label} = key <- keys do
        ["#{label}, #{process(kind)}" | for({_size, rows} <- found, do: Report.spread(rows[key]))]
      end

    ratios =
      for {kind, label} <- keys, kind != "first", label not in Enum.map(Store.Ets.lists(), &elem(&1, 0)) do
        ["tab2list : #{label}, #{process(kind)}" | for({_size, rows} <- found, do: ratio(rows, kind, label))]
      end

    head = ["ms a list"] ++ for({size, _rows} <- found, do: "#{Report.number(size)} pods")
    %{title: "Listing all pods", head: head, rows: times ++ ratios}
  end

  defp ratio(rows, kind, label),
    do: Report.median(Stats.ratios(rows[{kind, ":ets.tab2list"}], rows[{kind, label}]))

  defp process("living"), do: "living process"
  defp process("fresh"), do: "fresh process"
  defp process("first"), do: "first after a restart"
end
