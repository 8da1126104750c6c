defmodule Tank.Bench.Comparison.Cases.Unchanged do
  @moduledoc """
  Asking for all pods when nothing has changed since the last time, as a reconciler does.

  Khepri and ETS have no such question: they list.
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
  defdelegate prepare(store, dir, params), to: Cases.List

  @impl true
  def measure(Store.Tank, _dir, _params, seconds) do
    revision = Store.Tank.revision()
    %{time: Workload.List.mean(fn -> thousand(revision, 1_000) end, seconds)}
  end

  def measure(store, _dir, _params, seconds) do
    [{_label, list} | _others] = store.lists()
    %{time: Workload.List.mean(list, seconds) * 1_000}
  end

  # Milliseconds for a thousand are microseconds for one.
  defp thousand(_revision, 0), do: :ok

  defp thousand(revision, count) do
    :unchanged = Store.Tank.changed(revision)
    thousand(revision, count - 1)
  end
end
