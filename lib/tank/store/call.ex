defmodule Tank.Store.Call do
  @moduledoc false
  # Calls on a running store, by the calling process itself: nothing queues behind a process.
  #
  # A write is handed over to the engine, which answers with a message `{ref, answer}`. A caller that stops waiting
  # takes the call back, so that no message can come later.

  alias Tank.Store.{Counters, Deadline, Error, Native, ReadCache, ReadIndex, Room, Running, Tx}

  # Copying this much into the engine takes 50 microseconds; more is left to a dirty scheduler.
  @large_bytes 256 * 1024

  @type to_key :: (ReadCache.id() -> {:ok, binary} | {:error, Error.reason()})
  @type result(value) :: {:ok, value} | {:error, Error.reason()}

  @doc "Writes `value`; `condition` is the revision that the entry must have, or nil."
  @spec write(atom, :put | :create | :update, binary, term, non_neg_integer | nil, timeout) :: result(non_neg_integer)
  def write(store_id, kind, key, value, condition, timeout) do
    Counters.measure(store_id, :write, kind, fn ->
      with {:ok, store} <- fetch_to_write(store_id), do: submit(store, kind, key, encode(value), condition, timeout)
    end)
  end

  @doc "Hands over a command of `bytes` bytes; see native/tank_nif/src/commands.rs for what there is."
  @spec command(atom, tuple, non_neg_integer, timeout) :: result(non_neg_integer | tuple)
  def command(store_id, command, bytes, timeout) do
    Counters.measure(store_id, :write, elem(command, 0), fn -> hand_over(store_id, command, bytes, timeout) end)
  end

  defp hand_over(store_id, command, bytes, timeout) do
    with {:ok, store} <- fetch_to_write(store_id) do
      large = &Native.command_large(store, &1, command, &2)
      small = &with :dirty <- Native.command(store, &1, command, &2), do: large.(&1, &2)
      request(if(bytes > @large_bytes, do: large, else: small), timeout)
    end
  end

  @doc "A value as it is stored: equal values have equal encodings, in whatever order their maps were made."
  @spec encode(term) :: binary
  def encode(value), do: :erlang.term_to_binary(value, [:deterministic, minor_version: 2])

  @doc "Deletes the entry at `key` and all below it."
  @spec delete(atom, binary, non_neg_integer | nil, timeout) :: result(non_neg_integer)
  def delete(store_id, key, condition, timeout) do
    Counters.measure(store_id, :write, :delete, fn ->
      with {:ok, store} <- fetch_to_write(store_id), do: submit(store, :delete, key, "", condition, timeout)
    end)
  end

  @doc "The store, for a write. Raises `ArgumentError` in a process that runs a transaction on it."
  @spec fetch_to_write(atom) :: {:ok, Native.store()} | {:error, :noproc}
  def fetch_to_write(store_id) do
    :ok = Tx.refuse_write_beside!(store_id)
    Running.fetch_to_write(store_id)
  end

  @doc "The value of the entry that the cache knows as `id`, linearizable; `to_key` makes its key."
  @spec get(atom, ReadCache.id(), to_key, timeout) :: result(term)
  def get(store_id, id, to_key, timeout) do
    with {:ok, store, cache} <- Running.fetch_with_cache(store_id) do
      case ReadCache.fetch(cache, store, id) do
        {:ok, _value} = found -> found
        {:wait, kept} -> get_kept(store_id, store, cache, id, kept, to_key, timeout)
        :error -> with {:ok, key} <- to_key.(id), do: get_with(&Native.get/2, store_id, store, cache, id, key, timeout)
      end
    end
  end

  @doc "As `get/4`, as this member knows it."
  @spec get_local(atom, ReadCache.id(), to_key) :: result(term)
  def get_local(store_id, id, to_key) do
    with {:ok, store, cache} <- Running.fetch_to_read(store_id),
         :error <- ReadCache.fetch_here(cache, store, id),
         {:ok, key} <- to_key.(id),
         do: get_here(&Native.get_local/2, store, cache, id, key)
  end

  @doc "The values of the direct children of `prefix`, as this member knows them."
  @spec values(atom, binary) :: result([term])
  def values(store_id, prefix) do
    with {:ok, store, _cache} <- Running.fetch_to_read(store_id),
         do: list(&Native.values/3, &Native.values_large/3, store, prefix, false)
  end

  @doc "The direct children of `prefix` that hold a value, as this member knows them."
  @spec children(atom, binary) :: result([{:atom | :string, binary, term}])
  def children(store_id, prefix) do
    with {:ok, store, _cache} <- Running.fetch_to_read(store_id),
         do: list(&Native.children/3, &Native.children_large/3, store, prefix, false)
  end

  @doc "As `await_readable/2`, for a read of the store `store_id`, which is counted."
  @spec await_readable(atom, Native.store(), timeout) :: :ok | {:error, Error.reason()}
  def await_readable(store_id, store, timeout),
    do: Counters.measure(store_id, :read, :read, fn -> await_readable(store, timeout) end)

  @doc "Waits until the store answers linearizable reads."
  @spec await_readable(Native.store(), timeout) :: :ok | {:error, Error.reason()}
  def await_readable(store, timeout) do
    deadline = Deadline.in_ms(timeout)

    case ReadIndex.ask(store, timeout) do
      {:ok, index} -> await_applied(store, index, deadline)
      :unknown -> request(&Native.await_readable(store, &1, &2), Deadline.remaining(deadline))
    end
  end

  defp await_applied(store, index, deadline) do
    if Native.has_applied(store, index),
      do: :ok,
      else: request(&Native.await_applied(store, &1, index, &2), Deadline.remaining(deadline))
  end

  @doc "As `await_readable/2`, once a majority has answered after the call: a leader's lease does not count."
  @spec await_quorum(Native.store(), timeout) :: :ok | {:error, Error.reason()}
  def await_quorum(store, timeout) do
    request(&Native.await_quorum(store, &1, &2), timeout)
  end

  @doc "Makes a call that is answered by message: `start` gets the reference, and how long the engine may try."
  @spec request((reference, non_neg_integer -> {:ok, Native.call()} | {:error, Error.reason()}), timeout) :: term
  def request(start, timeout) do
    ref = make_ref()
    timeout = Deadline.bounded(timeout)

    # The engine gives up a moment before the caller: it knows whether something was written or surely not, the caller
    # would only know that the time is over.
    case start.(ref, timeout - Deadline.margin(timeout)) do
      {:ok, call} -> await(ref, call, timeout)
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end

  defp submit(store, kind, key, payload, condition, timeout) when byte_size(payload) > @large_bytes,
    do: request(&Native.write_large(store, &1, kind, key, payload, condition, &2), timeout)

  defp submit(store, kind, key, payload, condition, timeout),
    do: request(&Native.write(store, &1, kind, key, payload, condition, &2), timeout)

  defp await(ref, call, timeout) do
    receive do
      {^ref, answer} -> answered(answer)
    after
      timeout -> give_up(ref, call)
    end
  end

  defp give_up(ref, call) do
    if Native.cancel(call) do
      {:error, :timeout}
    else
      # The answer was quicker: it is in the mailbox, or about to be.
      receive do: ({^ref, answer} -> answered(answer))
    end
  end

  defp answered({:error, reason}), do: {:error, Error.public(reason)}
  defp answered(answer), do: answer

  defp get_with(read, store_id, store, cache, id, key, timeout) do
    case read.(store, key) do
      :wait -> get_later(store_id, store, cache, id, key, timeout)
      :dirty -> get_with(&Native.get_large/2, store_id, store, cache, id, key, timeout)
      answer -> found(answer, cache, id)
    end
  end

  defp get_later(store_id, store, cache, id, key, timeout) do
    with :ok <- await_readable(store_id, store, timeout), do: get_here(&Native.get_local/2, store, cache, id, key)
  end

  # What is at hand already, unless it is another value after the wait.
  defp get_kept(store_id, store, cache, id, {value, _slot, _revision} = kept, to_key, timeout) do
    with :ok <- await_readable(store_id, store, timeout) do
      if ReadCache.still?(store, kept),
        do: {:ok, value},
        else: with({:ok, key} <- to_key.(id), do: get_here(&Native.get_local/2, store, cache, id, key))
    end
  end

  defp get_here(read, store, cache, id, key) do
    case read.(store, key) do
      :dirty -> get_here(&Native.get_local_large/2, store, cache, id, key)
      answer -> found(answer, cache, id)
    end
  end

  defp found({:ok, _value} = found, _cache, _id), do: found

  defp found({:keep, value, slot, revision}, cache, id) do
    :ok = ReadCache.keep(cache, id, value, slot, revision)
    {:ok, value}
  end

  defp found(:not_found, _cache, _id), do: {:error, :not_found}
  defp found({:error, reason}, _cache, _id), do: {:error, Error.public(reason)}

  defp list(read, read_large, store, prefix, roomy?) do
    case read.(store, prefix, roomy?) do
      list when is_list(list) -> {:ok, list}
      :dirty -> list(read_large, read_large, store, prefix, roomy?)
      {:room, heap, binaries} -> Room.with(heap, binaries, fn -> list(read, read_large, store, prefix, true) end)
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end
end
