defmodule Tank.Bench.Comparison.Cases.Select do
  @moduledoc "The 1 pod in 33 whose name matches a pattern; ETS looks through all names with a match specification."

  @behaviour Tank.Bench.Comparison.Case

  @compile {:no_warn_undefined, [:khepri]}

  alias Tank.Bench.Comparison.Cases
  alias Tank.Bench.{Load, Store, Workload}

  # Names end in seven digits; 3 of 100 match.
  @pattern "(07|41|75)$"
  @endings ~w(07 41 75)

  @impl true
  def title, do: "Selecting 3 of 100 pods by their names"

  @impl true
  def metrics, do: [{:time, "ms", :less}]

  @impl true
  def stages(settings) do
    sizes = if settings.quick?, do: [100], else: [1_000, 10_000, 100_000]
    sides = [tank: Store.Tank, khepri: Store.Khepri, ets: Store.Ets]
    for size <- sizes, do: %{sides: sides, setup: %{pods: size}, points: [%{}], warm_up: true}
  end

  @impl true
  defdelegate prepare(store, dir, params), to: Cases.List

  @impl true
  def measure(store, _dir, %{pods: pods}, seconds) do
    Load.settle()
    expected = div(pods, 100) * 3
    %{time: Workload.List.mean(fn -> ^expected = select(store) end, seconds)}
  end

  defp select(Store.Tank) do
    {:ok, pods, _revision} = Tank.Store.Tree.get_many(:tank, [:tank, :pods, {:name_matches, @pattern}])
    map_size(pods)
  end

  defp select(Store.Khepri) do
    {:ok, pods} =
      :khepri.get_many(:khepri, [:tank, :pods, {:if_name_matches, @pattern, :undefined}], %{favor: :low_latency})

    map_size(pods)
  end

  defp select(Store.Ets), do: length(Store.Ets.select_by_name(@endings))
end
