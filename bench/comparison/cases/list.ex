defmodule Tank.Bench.Comparison.Cases.List do
  @moduledoc """
  Listing all pods, from a fresh process with its start and end, and from one that lives on with its garbage.

  Ours against a `tab2list` of Khepri's projection, which gives rows and not pods, and against its `get_many`.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Pods, Stats, Store, Workload}

  @sides [tank: Store.Tank, khepri: Store.KhepriProjected, api: Store.KhepriApi, ets: Store.Ets]

  @ways %{
    "list, tab2list" => %{
      Store.Tank => "list_pods",
      Store.KhepriProjected => "tab2list of a projection",
      Store.Ets => ":ets.tab2list"
    },
    "list, get_many" => %{
      Store.Tank => "list_pods",
      Store.KhepriProjected => "get_many",
      Store.KhepriApi => "get_many"
    }
  }

  @impl true
  def title, do: "Listing all pods"

  @impl true
  def metrics, do: [{:fresh, "ms in a fresh process", :less}, {:living, "ms in a living process", :less}]

  @impl true
  def stages(settings) do
    sizes = if settings.quick?, do: [50], else: [100, 1_000, 10_000, 100_000]
    points = for way <- Map.keys(@ways), do: %{way: way}
    for size <- sizes, do: %{sides: @sides, setup: %{pods: size}, points: points, warm_up: true}
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = store.start(dir)
    Store.fill(store, pods)
    Workload.Get.warm(store, Pods.names(pods))
  end

  @impl true
  def measure(store, _dir, %{way: way}, seconds) do
    case @ways[way][store] do
      nil -> %{}
      label -> times(:proplists.get_value(label, store.lists()), seconds)
    end
  end

  defp times(list, seconds) do
    %{fresh: Workload.List.fresh(list, seconds / 2) |> Stats.median(), living: living(list, seconds / 2)}
  end

  # One process for all of it, which keeps no list.
  defp living(list, seconds) do
    task =
      Task.async(fn ->
        list.()
        Workload.List.mean(list, seconds)
      end)

    Task.await(task, :infinity)
  end
end
