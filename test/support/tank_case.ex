defmodule Tank.Store.TankCase do
  @moduledoc """
  For tests that need a store: a directory of its own for each test, and waiting for things.

  `@tag :tmp_dir` gives the directory as `tmp_dir`. `start_store/2` starts a store that ends with the test.
  """

  use ExUnit.CaseTemplate

  using do
    quote do
      import Tank.Store.TankCase
    end
  end

  @doc "Starts a store in `dir` that is stopped when the test ends; returns its id, which is unique unless given."
  def start_store(dir, opts \\ []) do
    {store_id, options} = Keyword.pop_lazy(opts, :store_id, &unique_id/0)
    {:ok, ^store_id} = Tank.Store.Cluster.start(dir, Map.new([{:cluster_name, store_id} | options]), 60_000)
    ExUnit.Callbacks.on_exit(fn -> Tank.Store.Cluster.stop(store_id) end)
    store_id
  end

  @doc "Starts `Tank.Store` on `dir` under the test's supervisor."
  def start_tank(dir, opts \\ []) do
    ExUnit.Callbacks.start_supervised!({Tank.Store, [data_dir: dir] ++ opts})
  end

  @doc "One of a few store ids, so that tests make no atoms without end."
  def unique_id, do: :"store_#{rem(System.unique_integer([:positive]), 1000)}"

  @doc """
  Calls `fun` until it returns a truthy value, and returns that. Fails after `timeout` milliseconds, with `what` it
  waited for and what it last saw.
  """
  def eventually(what, fun, timeout \\ 10_000) do
    wait_until(what, fun, System.monotonic_time(:millisecond) + timeout)
  end

  defp wait_until(what, fun, deadline) do
    case fun.() do
      seen when seen in [nil, false] ->
        if System.monotonic_time(:millisecond) > deadline,
          do: ExUnit.Assertions.flunk("waited for #{what}; last saw #{inspect(seen)}")

        Process.sleep(5)
        wait_until(what, fun, deadline)

      seen ->
        seen
    end
  end
end
