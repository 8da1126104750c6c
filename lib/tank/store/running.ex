defmodule Tank.Store.Running do
  @moduledoc false
  # The running stores, by id, each with its cache: where every call finds its store, in a dozen nanoseconds.
  #
  # Only `Tank.Store.Server` writes here, when a store opens and when it closes, and `Tank.Store.LastView`. Removing one makes
  # the BEAM look through all processes for the old value, which is why nothing that changes often is kept like this.
  #
  # A store whose owner crashed is found by reads of what this node knows, until it is open again.
  #
  # In tests (`Tank.Store.Testing`) an id may stand for another store in each process: then `{:resolve, module, found}` is
  # noted here, and the module is asked first.

  alias Tank.Store.{Error, Native, ReadCache}

  @type missing :: {:error, :noproc | Error.reason()}

  @spec fetch(atom) :: {:ok, Native.store()} | missing
  def fetch(store_id) do
    with {:ok, store, _cache} <- fetch_with_cache(store_id), do: {:ok, store}
  end

  @spec fetch_with_cache(atom) :: {:ok, Native.store(), ReadCache.table()} | missing
  def fetch_with_cache(store_id), do: find(store_id, :read, {:error, :noproc})

  @doc "The store, for a write."
  @spec fetch_to_write(atom) :: {:ok, Native.store()} | missing
  def fetch_to_write(store_id) do
    with {:ok, store, _cache} <- find(store_id, :write, {:error, :noproc}), do: {:ok, store}
  end

  @doc "As `fetch_with_cache/1`, for reads of what this node knows: also a store that is being restarted after a crash."
  @spec fetch_to_read(atom) :: {:ok, Native.store(), ReadCache.table()} | missing
  def fetch_to_read(store_id) do
    with {:error, :noproc} = missing <- find(store_id, :local, {:error, :noproc}),
         do: :persistent_term.get(last(store_id), missing)
  end

  @doc "Makes a store known. What was cached of its former life, which may have been another store's, goes."
  @spec put(atom, Native.store()) :: :ok
  def put(store_id, store) do
    before = found(store_id)
    note(store_id, {:ok, store, ReadCache.new()})
    _existed? = :persistent_term.erase(last(store_id))
    drop_cache(before)
  end

  @doc "Has calls on a store answered with an error that says why there is none."
  @spec refuse(atom, Error.reason()) :: :ok
  def refuse(store_id, reason) do
    before = found(store_id)
    note(store_id, {:error, reason})
    drop_cache(before)
  end

  @doc "Forgets a store."
  @spec delete(atom) :: :ok
  def delete(store_id) do
    before = found(store_id)
    erase(store_id)
    _existed? = :persistent_term.erase(last(store_id))
    drop_cache(before)
  end

  @doc "Leaves a store to reads of what this node knows."
  @spec leave_to_readers(atom) :: :ok
  def leave_to_readers(store_id) do
    with {:ok, _store, cache} = found <- found(store_id) do
      # In this order: readers always find it.
      :persistent_term.put(last(store_id), found)
      erase(store_id)
      ReadCache.delete(cache)
    end

    :ok
  end

  @doc "Has `module` asked which store an id stands for: by `resolve/2`, in the process that calls."
  @spec resolve_by(atom, module) :: :ok
  def resolve_by(store_id, module) do
    with found when not is_tuple(found) or elem(found, 0) != :resolve <- get(store_id),
         do: :persistent_term.put({__MODULE__, store_id}, {:resolve, module, found})

    :ok
  end

  defp find(store_id, kind, none) do
    case :persistent_term.get({__MODULE__, store_id}, none) do
      {:resolve, module, found} -> resolved(module.resolve(store_id, kind), kind, found)
      found -> found
    end
  end

  defp resolved(:itself, _kind, found), do: found
  defp resolved({:ok, store_id}, kind, _found), do: find(store_id, kind, {:error, :noproc})
  defp resolved({:error, _reason} = error, _kind, _found), do: error

  defp get(store_id), do: :persistent_term.get({__MODULE__, store_id}, {:error, :noproc})

  # What is noted under the id itself.
  defp found(store_id), do: with({:resolve, _module, found} <- get(store_id), do: found)

  defp note(store_id, found) do
    case get(store_id) do
      {:resolve, module, _found} -> :persistent_term.put({__MODULE__, store_id}, {:resolve, module, found})
      _itself -> :persistent_term.put({__MODULE__, store_id}, found)
    end
  end

  defp erase(store_id) do
    case get(store_id) do
      {:resolve, _module, _found} -> note(store_id, {:error, :noproc})
      _itself -> :persistent_term.erase({__MODULE__, store_id})
    end
  end

  defp last(store_id), do: {__MODULE__, :last, store_id}

  defp drop_cache({:ok, _store, cache}), do: ReadCache.delete(cache)
  defp drop_cache({:error, _reason}), do: :ok
end
