defmodule Tank.Store.GroveCounter do
  @moduledoc "A grow-only counter, for tests of `Tank.Store.Grove`: a count for each replica."

  alias Tank.Store.Grove

  defstruct counts: %{}

  @doc "Counts once for a replica."
  def increment(%__MODULE__{counts: counts}, replica),
    do: %__MODULE__{counts: Map.update(counts, replica, 1, &(&1 + 1))}

  @doc "What both have counted."
  def merge(%__MODULE__{} = one, %__MODULE__{} = other),
    do: %__MODULE__{counts: Map.merge(one.counts, other.counts, fn _replica, a, b -> max(a, b) end)}

  @doc "The sum over all replicas."
  def value(%__MODULE__{counts: counts}), do: counts |> Map.values() |> Enum.sum()

  @doc "On a node of a test: a replica that knows only its own counts, and saves after each."
  def local_replica(store, group, name, times) do
    {:ok, ref} = Grove.init(store: store, merge: &__MODULE__.merge/2, timeout: 60_000)

    Enum.reduce(1..times, %__MODULE__{}, fn _time, state ->
      state = increment(state, name)
      :ok = Grove.save(ref, group, state)
      state
    end)

    Grove.close(ref)
  end

  @doc "On a node of a test: one call with a backend of its own."
  def local_call(store, function, arguments, timeout \\ 60_000) do
    {:ok, ref} = Grove.init(store: store, timeout: timeout)
    apply(Grove, function, [ref | arguments])
  end
end
