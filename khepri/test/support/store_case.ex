defmodule Khepri.StoreCase do
  @moduledoc "Tests with a store of their own: `store` in the context."

  use ExUnit.CaseTemplate

  using do
    quote do
      import Tank.Khepri.Records
      import Khepri.StoreCase
    end
  end

  setup context do
    store = :"store_#{System.unique_integer([:positive])}"
    dir = Path.join(System.tmp_dir!(), "khepri_test_#{store}_#{System.pid()}")

    unless context[:without_store] do
      {:ok, ^store} = :khepri.start(String.to_charlist(dir), store)
    end

    on_exit(fn ->
      :ok = :khepri.stop(store)
      File.rm_rf!(dir)
    end)

    %{store: store, dir: dir}
  end

  @doc "A transaction that counts."
  def count do
    {:ok, n} = :khepri_tx.get([:counter])
    :khepri_tx.put([:counter], n + 1)
  end

  @doc "One that reads only."
  def read, do: :khepri_tx.get([:after])

  @doc "Waits until `fun` gives something else than nil or false; fails with what it last gave."
  def eventually(fun, left \\ 500) do
    case fun.() do
      nothing when nothing in [nil, false] and left > 0 ->
        receive after: (10 -> :ok)
        eventually(fun, left - 1)

      nothing when nothing in [nil, false] ->
        ExUnit.Assertions.flunk("it did not come to be within five seconds, last: #{inspect(nothing)}")

      value ->
        value
    end
  end
end
