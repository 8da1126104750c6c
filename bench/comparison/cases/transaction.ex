defmodule Tank.Bench.Comparison.Cases.Transaction do
  @moduledoc "Transactions that read a value of the process's own and write what follows it."

  @behaviour Tank.Bench.Comparison.Case

  @compile {:no_warn_undefined, [:khepri, :khepri_tx]}

  alias Tank.Bench.Comparison.Cases.Swap
  alias Tank.Bench.{Load, Pods, Store}

  @impl true
  def title, do: "Transactions, read and write"

  @impl true
  defdelegate metrics, to: Swap

  @impl true
  defdelegate stages(settings), to: Swap

  @impl true
  defdelegate prepare(store, dir, params), to: Swap

  @impl true
  def measure(store, _dir, %{writers: writers}, seconds) do
    Load.run(writers, seconds, fn client ->
      path = Swap.path(client)
      Swap.put(store, path, {0, Pods.pod("any")})
      fn count -> transaction(store, path, count) end
    end)
    |> Map.take([:rate, :p50, :p99])
  end

  defp transaction(Store.Tank, path, count) do
    {:ok, :ok} =
      Tank.Store.Tree.transaction(:tank, fn tx ->
        {:ok, {^count, pod}} = Tank.Store.Tree.get(tx, path)
        Tank.Store.Tree.put(tx, path, {count + 1, pod})
        :ok
      end)

    :ok
  end

  defp transaction(Store.KhepriApi, path, count) do
    {:ok, :ok} =
      Store.KhepriApi.transaction(fn ->
        {:ok, {^count, pod}} = Tank.Khepri.Tx.get(path)
        Tank.Khepri.Tx.put(path, {count + 1, pod})
      end)

    :ok
  end

  # Khepri takes the function's code out of this module's file, and knows only what it is allowed to call.
  defp transaction(Store.Khepri, path, count) do
    change = fn ->
      {:ok, {^count, pod}} = :khepri_tx.get(path)
      :khepri_tx.put(path, {count + 1, pod})
    end

    {:ok, :ok} = :khepri.transaction(:khepri, change, :rw)
    :ok
  end
end
