defmodule Tank.Bench.Comparison.Cases.Mixed do
  @moduledoc "Processes that each read nine times, so that it cannot be stale, and then write once; 10,000 pods."

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Histogram, Load, Pods, Store, Workload}

  @sides [tank: Store.Tank, khepri: Store.Khepri]

  @impl true
  def title, do: "90 % reads, 10 % puts"

  @impl true
  def metrics do
    [
      {:rate, "1/s", :more},
      {:read_p50, "us", :less},
      {:read_p99, "us", :less},
      {:put_p50, "us", :less},
      {:put_p99, "us", :less}
    ]
  end

  @impl true
  def stages(settings) do
    {pods, clients} = if settings.quick?, do: {100, [2]}, else: {10_000, [1, 16, 64]}
    [%{sides: @sides, setup: %{pods: pods}, points: for(n <- clients, do: %{clients: n}), warm_up: true}]
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = store.start(dir)
    Store.fill(store, pods)
    Workload.Get.warm(store, Pods.names(pods))
  end

  @impl true
  def measure(store, _dir, %{pods: pods, clients: clients}, seconds) do
    {reads, puts} = {Histogram.new(), Histogram.new()}
    names = Pods.names(pods)
    load = Load.run(clients, seconds, fn client -> call(client, store, names, reads, puts) end)
    [read_p50, read_p99] = Histogram.percentiles(reads, [0.5, 0.99])
    [put_p50, put_p99] = Histogram.percentiles(puts, [0.5, 0.99])
    %{rate: load.rate, read_p50: read_p50, read_p99: read_p99, put_p50: put_p50, put_p99: put_p99}
  end

  defp call(client, store, names, reads, puts) do
    Process.put(:seed, client * 7919)
    pod = Pods.pod("any")
    [{_label, read} | _others] = store.reads()

    fn
      count when rem(count, 10) == 9 ->
        timed(puts, fn -> store.put(Pods.named(pod, Workload.Put.pick(names), count)) end)

      _count ->
        timed(reads, fn -> elem(read.(Workload.Put.pick(names)), 0) end)
    end
  end

  defp timed(histogram, call) do
    begin = System.monotonic_time(:nanosecond)
    :ok = call.()
    Histogram.add(histogram, System.monotonic_time(:nanosecond) - begin)
  end
end
