defmodule Tank.Store.Backup.Import do
  @moduledoc false
  # Puts the entries that a reader finds in a file into a store: reads it once to know that all of it can be read, and
  # once more to write.

  alias Tank.Store.{Call, Error, Native, Tree, View}
  alias Tank.Store.Tree.Writes

  # Entries written at one revision. More would be no quicker, and hold up other writes.
  @entries_max 256
  @bytes_max 1024 * 1024

  @retry_ms 50

  @spec run(atom, module, String.t(), replace? :: boolean, keyword) :: {:ok, map} | {:error, Error.reason()}
  def run(store, reader, path, replace?, opts) do
    with {:ok, native} <- Call.fetch_to_write(store),
         {:ok, total, _found} <- reader.fold(path, 0, &check(native, &1, &2, &3)),
         :ok <- if(replace?, do: empty(store, opts[:timeout]), else: :ok) do
      write = fn
        [{key, other, 0}] when not is_binary(other) -> put_node(store, key, other, opts[:timeout])
        batch -> put_all(native, Enum.reverse(batch), opts[:timeout])
      end

      write_all(reader, path, write, total, opts[:progress])
    end
  end

  # In this order: nobody who knew the store takes what follows for changes of that.
  defp empty(store, timeout) do
    with {:ok, _revision} <- Writes.command(store, {:new_history}, 0, timeout),
         {:ok, _revision} <- Tree.delete(store, [], timeout: timeout),
         do: :ok
  end

  # The store would refuse a batch in the middle of the file.
  defp check(native, key, payload, count) do
    case Native.check_put(native, key, size(payload)) do
      :ok -> {:cont, if(is_binary(payload), do: count + 1, else: count)}
      {:error, reason} -> {:halt, {:error, Error.public(reason)}}
    end
  end

  defp size(payload) when is_binary(payload), do: byte_size(payload)
  defp size({:keep_while, source}), do: byte_size(source)
  defp size(_node_or_kind), do: 0

  defp write_all(reader, path, write, total, progress) do
    flush = &flush(&1, write, total, progress)

    with {:ok, left, found} <- reader.fold(path, {[], 0, 0, 0}, &add(&1, &2, &3, flush)),
         {:cont, {_batch, _count, _bytes, done}} <- flush.(left) do
      progress.(done, total)
      {:ok, Map.put(found, :entries, done)}
    else
      {:halt, error} -> error
      {:error, _reason} = error -> error
    end
  end

  # What nodes have besides: by itself, behind all that is before it.
  defp add(key, other, {[], 0, _bytes, _done} = none, flush) when not is_binary(other),
    do: flush.({[{key, other, 0}], 0, 0, elem(none, 3)})

  defp add(key, other, batch, flush) when not is_binary(other),
    do: with({:cont, flushed} <- flush.(batch), do: add(key, other, flushed, flush))

  defp add(key, payload, {batch, count, bytes, done}, flush) do
    size = byte_size(key) + byte_size(payload)

    cond do
      # A large value goes by itself: with others it might be too much for one command.
      count > 0 and bytes + size > @bytes_max ->
        with {:cont, flushed} <- flush.({batch, count, bytes, done}), do: add(key, payload, flushed, flush)

      count + 1 < @entries_max ->
        {:cont, {[{key, payload, 0} | batch], count + 1, bytes + size, done}}

      true ->
        flush.({[{key, payload, 0} | batch], count + 1, bytes + size, done})
    end
  end

  defp flush({[], 0, _bytes, done}, _write, _total, _progress), do: {:cont, {[], 0, 0, done}}

  defp flush({batch, count, _bytes, done}, write, total, progress) do
    with :ok <- write.(batch) do
      progress.(done + count, total)
      {:cont, {[], 0, 0, done + count}}
    else
      error -> {:halt, error}
    end
  end

  defp put_node(store, key, :node, timeout), do: put_node(store, key, "", {0, false, nil, false}, timeout)

  # The value has been written before.
  defp put_node(store, key, {:kind, kind}, timeout) do
    with {:ok, view} <- View.take(store, :consistency, timeout),
         {:ok, entry} <- View.entry(view, key) do
      put_node(store, key, Call.encode(entry.value), {kind, false, nil, false}, timeout)
    else
      {:error, :not_found} -> :ok
      {:error, _reason} = error -> error
    end
  end

  # Of kind 255: the value stays what it is.
  defp put_node(store, key, {:keep_while, source}, timeout) do
    conditions = source |> :erlang.binary_to_term() |> elem(1)
    put_node(store, key, "", {255, false, {conditions, source}, false}, timeout)
  end

  defp put_node(store, key, payload, how, timeout) do
    case Writes.write(store, :put, key, payload, nil, 0, how, timeout) do
      {:ok, _revision} ->
        :ok

      {:error, :overloaded} ->
        Process.sleep(@retry_ms)
        put_node(store, key, payload, how, timeout)

      {:error, _reason} = error ->
        error
    end
  end

  defp put_all(native, puts, timeout) do
    case Call.request(&Native.put_all(native, &1, puts, nil, &2), timeout) do
      {:ok, {:txn, true, _revision, _responses}} ->
        :ok

      {:error, :overloaded} ->
        Process.sleep(@retry_ms)
        put_all(native, puts, timeout)

      {:error, _reason} = error ->
        error
    end
  end
end
