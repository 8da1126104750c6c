# What runs on the nodes of examples/grove.exs: a replica of a grow-only counter.

defmodule GroveCounter do
  alias Tank.Store.Grove

  @group {:counter, "visits"}

  @doc "Counts visits of this replica, on top of what it had counted before, and saves after each."
  def visits(replica, times) do
    {:ok, ref} = open()
    {:ok, stored} = Grove.load(ref, @group)

    Enum.reduce(1..times, Map.take(stored || %{}, [replica]), fn _time, counts ->
      counts = Map.update(counts, replica, 1, &(&1 + 1))
      # This replica knows nothing of the other: without `merge` it would overwrite what that one saved.
      :ok = Grove.save(ref, @group, counts)
      counts
    end)

    Grove.close(ref)
  end

  @doc "The visits of all replicas."
  def total do
    {:ok, ref} = open()
    {:ok, counts} = Grove.load(ref, @group)
    Grove.close(ref)
    counts |> Map.values() |> Enum.sum()
  end

  @doc "What two replicas know together: the larger count of each."
  def merge(one, other), do: Map.merge(one, other, fn _replica, a, b -> max(a, b) end)

  defp open, do: Grove.init(store: :grove, merge: &__MODULE__.merge/2, timeout: 30_000)
end
