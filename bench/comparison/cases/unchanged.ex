defmodule Tank.Bench.Comparison.Cases.Unchanged do
  @moduledoc """
  Asking for all pods when nothing has changed since the last time, as a reconciler does.

  Khepri and ETS have no such question: they list. A store that can answer it exports `unchanged/0` here, which gives a
  function that asks, or why there is none.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Store, Workload}
  alias Tank.Bench.Comparison.Cases

  @impl true
  def title, do: "Listing when nothing has changed"

  @impl true
  def metrics, do: [{:time, "us", :less}]

  @impl true
  def stages(settings) do
    sizes = if settings.quick?, do: [50], else: [1_000, 10_000]

    for size <- sizes do
      sides = [tank: Store.Tank, khepri: Store.KhepriProjected, ets: Store.Ets]
      %{sides: sides, setup: %{pods: size}, points: [%{}], warm_up: true}
    end
  end

  @impl true
  def prepare(Store.Tank, dir, params) do
    with {:ok, _ask} <- Store.Tank.unchanged(), do: Cases.List.prepare(Store.Tank, dir, params)
  end

  def prepare(store, dir, params), do: Cases.List.prepare(store, dir, params)

  @impl true
  def measure(Store.Tank, _dir, _params, seconds) do
    {:ok, ask} = Store.Tank.unchanged()
    state = ask.(nil)
    %{time: Workload.List.mean(fn -> thousand(ask, state, 1_000) end, seconds)}
  end

  def measure(store, _dir, _params, seconds) do
    [{_label, list} | _others] = store.lists()
    %{time: Workload.List.mean(list, seconds) * 1_000}
  end

  # Milliseconds for a thousand are microseconds for one.
  defp thousand(_ask, _state, 0), do: :ok

  defp thousand(ask, state, count) do
    ask.(state)
    thousand(ask, state, count - 1)
  end
end
