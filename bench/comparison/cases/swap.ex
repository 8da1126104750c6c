defmodule Tank.Bench.Comparison.Cases.Swap do
  @moduledoc """
  Compare-and-swap: each process replaces a value of its own, if it is what it was.

  We are told the whole value that must be there. Khepri matches a number in it, which is its cheapest way.
  """

  @behaviour Tank.Bench.Comparison.Case

  @compile {:no_warn_undefined, [:khepri]}

  alias Tank.Bench.{Load, Pods, Store}

  @sides [tank: Store.Tank, khepri: Store.Khepri, api: Store.KhepriApi]

  @impl true
  def title, do: "Compare-and-swap"

  @impl true
  def metrics, do: [{:rate, "1/s", :more}, {:p50, "us", :less}, {:p99, "us", :less}]

  @impl true
  def stages(settings) do
    {pods, writers} = if settings.quick?, do: {100, [2]}, else: {10_000, [1, 16, 64]}
    [%{sides: @sides, setup: %{pods: pods}, points: for(n <- writers, do: %{writers: n}), warm_up: true}]
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = store.start(dir)
    Store.fill(store, pods)
  end

  @impl true
  def measure(store, _dir, %{writers: writers}, seconds) do
    Load.run(writers, seconds, fn client ->
      path = path(client)
      pod = Pods.pod("any")
      put(store, path, {0, pod})
      fn count -> swap(store, path, count, pod) end
    end)
    |> Map.take([:rate, :p50, :p99])
  end

  @doc "The path of a client's own value."
  @spec path(pos_integer) :: [atom | String.t()]
  def path(client), do: [:bench, "client-#{client}"]

  @doc "Puts a value outside of the pods."
  @spec put(module, [atom | String.t()], term) :: :ok
  def put(store, path, value) when store in [Store.Khepri, Store.KhepriApi], do: :ok = store.put_at(path, value)

  def put(Store.Tank, path, value) do
    {:ok, _revision} = Tank.Store.Tree.put(:tank, path, value)
    :ok
  end

  defp swap(Store.KhepriApi, path, count, pod), do: Store.KhepriApi.swap(path, count, pod)

  defp swap(Store.Khepri, path, count, pod), do: :khepri.compare_and_swap(:khepri, path, {count, :_}, {count + 1, pod})

  defp swap(Store.Tank, path, count, pod) do
    {:ok, _revision} = Tank.Store.Tree.compare_and_swap(:tank, path, {count, pod}, {count + 1, pod})
    :ok
  end
end
