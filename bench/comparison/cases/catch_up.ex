defmodule Tank.Bench.Comparison.Cases.CatchUp do
  @moduledoc """
  A new member joins one that holds a gigabyte: from the call until it holds the pod that was written last, and finds
  it in what it has itself.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Members, Pods, Store}

  @impl true
  def title, do: "A new member"

  @impl true
  def metrics, do: [{:joined, "s until it has all", :less}]

  @impl true
  def stages(settings) do
    pods = if settings.quick?, do: 50, else: 16_000

    [
      %{
        sides: [tank: Store.Tank, khepri: Store.Khepri],
        setup: %{pods: pods, size: :large},
        points: [%{}],
        warm_up: false
      }
    ]
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = Members.start(store, dir, 1)
    [first] = Members.members()
    :ok = Members.call(first, __MODULE__, :fill, [store, pods])
  end

  @impl true
  def measure(store, dir, %{pods: pods}, _seconds) do
    [first] = Members.members()
    joiner = Members.spare(store, dir, System.unique_integer([:positive]))
    seconds = Members.call(joiner, __MODULE__, :join, [store, first.node, Pods.name(pods)])
    :ok = Members.call(joiner, store, :leave, [])
    :ok = Members.discard(joiner)
    %{joined: seconds}
  end

  @doc "Runs on the first member."
  @spec fill(module, pos_integer) :: :ok
  def fill(store, pods) do
    :ok = Store.fill(store, pods - 1, &Pods.sized(:large, &1))
    :ok = store.put(Pods.sized(:large, Pods.name(pods)))
  end

  @doc "Runs on the new member: the seconds that it took."
  @spec join(module, node, String.t()) :: float
  def join(store, node, last) do
    begin = System.monotonic_time(:microsecond)
    :ok = store.join(node)
    await(store, last)
    (System.monotonic_time(:microsecond) - begin) / 1.0e6
  end

  defp await(store, last) do
    unless store.holds?(last) do
      Process.sleep(5)
      await(store, last)
    end
  end
end
