defmodule Tank.Bench.Comparison.Cases.Get do
  @moduledoc """
  Reading one pod of names in no order, by 1 and by 4 processes: so that it cannot be stale, and from this node's memory.

  The rate is of 64 reads at a time, the percentiles of single ones; the garbage of all of them is in the time.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Load, Pods, Store, Workload}

  @sides [tank: Store.Tank, khepri: Store.KhepriProjected, api: Store.KhepriApi, ets: Store.Ets]

  # The way of each store that does what the row says. Khepri's `get` alone leaves it to Khepri how current it is.
  @ways %{
    "authoritative get" => %{
      Store.Tank => "get_pod",
      Store.KhepriProjected => "get, favor: consistency",
      Store.KhepriApi => "get, favor: consistency"
    },
    "get by default" => %{Store.Tank => "get_pod", Store.KhepriProjected => "get", Store.KhepriApi => "get"},
    "local get" => %{
      Store.Tank => "local read",
      Store.KhepriProjected => "lookup in a projection",
      Store.Ets => ":ets.lookup"
    }
  }

  @impl true
  def title, do: "Reading one pod"

  @impl true
  def metrics, do: [{:rate, "1/s", :more}, {:p50, "us", :less}, {:p99, "us", :less}]

  @impl true
  def stages(settings) do
    sizes = if settings.quick?, do: [100], else: [1_000, 10_000, 100_000]
    points = for way <- Map.keys(@ways), readers <- [1, 4], do: %{way: way, readers: readers}
    for size <- sizes, do: %{sides: @sides, setup: %{pods: size}, points: points, warm_up: true}
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = store.start(dir)
    Store.fill(store, pods)
    Workload.Get.warm(store, Pods.names(pods))
  end

  @impl true
  def measure(store, _dir, %{pods: pods, way: way, readers: readers}, seconds) do
    case @ways[way][store] do
      nil -> %{}
      label -> load(:proplists.get_value(label, store.reads()), Pods.names(pods), readers, seconds)
    end
  end

  defp load(read, names, readers, seconds) do
    result =
      Load.run(readers, seconds, fn client ->
        Process.put(:seed, client * 104_729)
        fn _count -> many(read, names, 64) end
      end)

    singles = Load.run(readers, seconds / 4, fn client -> single(read, names, client) end)
    %{rate: result.rate * 64, p50: singles.p50, p99: singles.p99}
  end

  defp many(_read, _names, 0), do: :ok

  defp many(read, names, count) do
    read.(Workload.Put.pick(names))
    many(read, names, count - 1)
  end

  defp single(read, names, client) do
    Process.put(:seed, client * 104_729)

    fn _count ->
      read.(Workload.Put.pick(names))
      :ok
    end
  end
end
