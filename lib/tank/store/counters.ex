defmodule Tank.Store.Counters do
  @moduledoc false
  # What a store counts on this side of the library: calls, how long they took, how they ended. Atomics, of which a call
  # touches three; from the store's first opening to its stop, also through failures.

  alias Tank.Store.{Log, Native, Telemetry}

  @kinds [:write, :read]
  @results [:ok, :timeout, :overloaded, :no_quorum, :noproc, :disk, :refused]
  @bucket_count 17
  @single [:leader_changes, :quorum_losses, :watches_lagged, :overload_logged]

  # Slots: of each kind its buckets, the sum of its durations in native units, and its results; then the single ones.
  @per_kind @bucket_count + 1 + length(@results)
  @size @per_kind * length(@kinds) + length(@single)

  @type kind :: :write | :read
  @type single :: :leader_changes | :quorum_losses | :watches_lagged

  @doc "Begins to count for a store, unless it does so already."
  @spec open(atom) :: :ok
  def open(store_id) do
    if counters(store_id) == nil,
      do: :persistent_term.put(key(store_id), {:counters.new(@size, [:write_concurrency]), bounds()})

    :ok
  end

  @doc "Forgets what was counted for a store."
  @spec forget(atom) :: :ok
  def forget(store_id) do
    _existed? = :persistent_term.erase(key(store_id))
    :ok
  end

  @doc "Runs a call, and counts it."
  @spec measure(atom, kind, atom, (() -> result)) :: result when result: term
  def measure(store_id, kind, call, fun) do
    began = System.monotonic_time()
    result = fun.()
    took = System.monotonic_time() - began
    why = why(result)
    with {ref, bounds} <- counters(store_id), do: count(store_id, ref, bounds, kind, class(why), took)

    if Telemetry.on?(),
      do: Telemetry.execute([:call, :stop], %{duration: took}, %{store_id: store_id, call: call, result: why})

    result
  end

  @doc "Counts one more."
  @spec add(atom, single) :: :ok
  def add(store_id, name) do
    with {ref, _bounds} <- counters(store_id), do: :counters.add(ref, single(name), 1)
    :ok
  end

  @doc "All that was counted for a store; nil if it was never open."
  @spec read(atom) :: map | nil
  def read(store_id) do
    with {ref, _bounds} <- counters(store_id) do
      kinds = for kind <- @kinds, into: %{}, do: {kind, read_kind(ref, offset(kind))}
      for name <- @single, into: kinds, do: {name, :counters.get(ref, single(name))}
    end
  end

  defp read_kind(ref, offset) do
    results =
      for {result, i} <- Enum.with_index(@results), do: {result, :counters.get(ref, offset + @bucket_count + 2 + i)}

    %{
      buckets: for(i <- 1..@bucket_count, do: :counters.get(ref, offset + i)),
      sum_us: System.convert_time_unit(:counters.get(ref, offset + @bucket_count + 1), :native, :microsecond),
      results: results
    }
  end

  defp count(store_id, ref, bounds, kind, class, took) do
    offset = offset(kind)
    :counters.add(ref, offset + bucket(bounds, took, 1), 1)
    :counters.add(ref, offset + @bucket_count + 1, took)
    :counters.add(ref, offset + @bucket_count + 2 + result(class), 1)
    if class == :overloaded, do: log_overload(store_id, ref)
  end

  defp log_overload(store_id, ref) do
    now = System.monotonic_time(:millisecond)

    if Log.due?(:counters.get(ref, single(:overload_logged)), now) do
      :counters.put(ref, single(:overload_logged), now)

      Log.log(store_id, :warning, :overload, fn ->
        "store #{inspect(store_id)}: overloaded: more writes are in flight than in_flight_max or in_flight_bytes_max " <>
          "allow, and some are refused"
      end)
    end
  end

  defp bucket([bound | _larger], took, i) when took <= bound, do: i
  defp bucket([_bound | larger], took, i), do: bucket(larger, took, i + 1)
  defp bucket([], _took, i), do: i

  defp why({:error, reason}), do: reason
  defp why(_ok), do: :ok

  defp class(:ok), do: :ok
  defp class(reason) when reason in [:timeout, :overloaded, :no_quorum, :noproc], do: reason
  defp class(:disk_full), do: :disk
  defp class({kind, _why}) when kind in [:storage, :lost], do: :disk
  defp class(_reason), do: :refused

  for {result, i} <- Enum.with_index(@results), do: defp(result(unquote(result)), do: unquote(i))
  for {kind, i} <- Enum.with_index(@kinds), do: defp(offset(unquote(kind)), do: unquote(i * @per_kind))

  for {name, i} <- Enum.with_index(@single, @per_kind * length(@kinds) + 1),
      do: defp(single(unquote(name)), do: unquote(i))

  defp counters(store_id), do: :persistent_term.get(key(store_id), nil)

  # Those of the engine's histograms, in native units: a call converts nothing.
  defp bounds, do: Enum.map(Native.histogram_bounds(), &System.convert_time_unit(&1, :microsecond, :native))

  defp key(store_id), do: {__MODULE__, store_id}
end
