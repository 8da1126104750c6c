defmodule Tank.Bench.Workload.Start do
  @moduledoc """
  From the call that starts the store to the first answer, after a clean stop and after a `kill -9` under load, and the
  memory a pod takes. Each start is in a VM of its own; booting that VM is not in the time. The files are in the page
  cache.
  """

  alias Tank.Bench.{FreshVm, Machine, Pods, Report, Store, Workload}

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(settings) do
    sizes = if settings.quick?, do: [100], else: [100_000, 1_000_000]
    found = for size <- sizes, do: {size, measure(settings, size)}

    rows =
      for {metric, label, unit} <- metrics() do
        ["#{label}, #{unit}" | for({_size, values} <- found, do: Report.spread(values[metric]))]
      end

    series =
      for {size, values} <- found, {metric, _label, unit} <- metrics() do
        Report.series("start.#{metric}", %{pods: size}, unit, values[metric])
      end

    head = ["start"] ++ for({size, _values} <- found, do: "#{Report.number(size)} pods")
    %{tables: [%{title: "Starting, and memory", head: head, rows: rows}], series: series}
  end

  defp metrics do
    [
      {:clean, "first answer after a clean stop", "s"},
      {:killed, "first answer after a kill -9", "s"},
      {:closing, "clean stop", "s"},
      {:memory, "memory a pod", "B"},
      {:decoded, "memory a pod, all decoded", "B"},
      {:disk, "files a pod", "B"}
    ]
  end

  defp measure(%{store: store} = settings, size) do
    dir = Path.join(settings.dir, "start-#{size}")
    {:ok, :ok} = FreshVm.call(__MODULE__, :fill, [store, dir, size])
    # A million take a while, and their figures vary less.
    rounds = if size > 100_000, do: 3, else: settings.rounds

    values =
      for _round <- 1..rounds do
        {:ok, clean} = FreshVm.call(__MODULE__, :open, [store, dir, size, true])
        :killed = FreshVm.call(__MODULE__, :die, [store, dir, size, settings.seconds])
        {:ok, killed} = FreshVm.call(__MODULE__, :open, [store, dir, size, false])
        Map.merge(clean, %{killed: killed.clean})
      end

    File.rm_rf!(dir)
    for {metric, _label, _unit} <- metrics(), into: %{}, do: {metric, Enum.map(values, & &1[metric])}
  end

  @doc false
  def fill(store, dir, size) do
    :ok = store.start(dir)
    Store.fill(store, size)
    store.stop()
  end

  @doc false
  def open(store, dir, size, whole?) do
    load_code(store, dir)
    :erlang.garbage_collect()
    before = Machine.rss()
    {seconds, :ok} = time(fn -> start_and_read(store, dir) end)
    memory = (Machine.rss() - before) / size
    decoded = if whole?, do: decoded(store, size, before), else: 0
    disk = disk_bytes(dir) / size
    {closing, :ok} = time(fn -> store.stop() end)
    %{clean: seconds, memory: memory, decoded: decoded, disk: disk, closing: closing}
  end

  @doc false
  def die(store, dir, size, seconds) do
    :ok = store.start(dir)
    names = Pods.names(size)
    Task.async(fn -> Workload.Put.writer(store, names) |> Tank.Bench.Load.run_forever(16) end)
    Process.sleep(trunc(seconds * 1000))
    FreshVm.kill_self()
  end

  defp start_and_read(store, dir) do
    :ok = store.start(dir)
    [{_label, read} | _others] = store.reads()
    {:ok, _pod} = read.(Pods.name(1))
    :ok
  end

  # Loading the library is not starting the store: a store beside it does that.
  defp load_code(store, dir) do
    :ok = store.start(dir <> "-empty")
    store.put(Pods.pod("one"))
    :ok = store.stop()
  end

  # In a process that ends, so that what it read is not counted.
  defp decoded(store, size, before) do
    Task.await(Task.async(fn -> Workload.Get.warm(store, Pods.names(size)) end), :infinity)
    :erlang.garbage_collect()
    (Machine.rss() - before) / size
  end

  defp disk_bytes(dir) do
    for path <- Path.wildcard(Path.join(dir, "**"), match_dot: true), File.regular?(path), reduce: 0 do
      bytes -> bytes + File.stat!(path).size
    end
  end

  defp time(run) do
    {micros, result} = :timer.tc(run)
    {micros / 1.0e6, result}
  end
end
