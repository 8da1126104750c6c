defmodule Tank.Store.Running do
  @moduledoc false
  # The running stores, by id, each with its cache: where every call finds its store, in a dozen nanoseconds.
  #
  # Only `Tank.Store.Server` writes here, when a store opens and when it closes, and `Tank.Store.LastView`. Removing one makes
  # the BEAM look through all processes for the old value, which is why nothing that changes often is kept like this.
  #
  # A store whose owner crashed is found by reads of what this node knows, until it is open again.

  alias Tank.Store.{Error, Native, ReadCache}

  @type missing :: {:error, :noproc | Error.reason()}

  @spec fetch(atom) :: {:ok, Native.store()} | missing
  def fetch(store_id) do
    with {:ok, store, _cache} <- fetch_with_cache(store_id), do: {:ok, store}
  end

  @spec fetch_with_cache(atom) :: {:ok, Native.store(), ReadCache.table()} | missing
  def fetch_with_cache(store_id), do: :persistent_term.get({__MODULE__, store_id}, {:error, :noproc})

  @doc "As `fetch_with_cache/1`, for reads of what this node knows: also a store that is being restarted after a crash."
  @spec fetch_to_read(atom) :: {:ok, Native.store(), ReadCache.table()} | missing
  def fetch_to_read(store_id) do
    with {:error, :noproc} = missing <- fetch_with_cache(store_id), do: :persistent_term.get(last(store_id), missing)
  end

  @doc "Makes a store known. What was cached of its former life, which may have been another store's, goes."
  @spec put(atom, Native.store()) :: :ok
  def put(store_id, store) do
    before = fetch_with_cache(store_id)
    :persistent_term.put({__MODULE__, store_id}, {:ok, store, ReadCache.new()})
    _existed? = :persistent_term.erase(last(store_id))
    drop_cache(before)
  end

  @doc "Has calls on a store answered with an error that says why there is none."
  @spec refuse(atom, Error.reason()) :: :ok
  def refuse(store_id, reason) do
    before = fetch_with_cache(store_id)
    :persistent_term.put({__MODULE__, store_id}, {:error, reason})
    drop_cache(before)
  end

  @doc "Forgets a store."
  @spec delete(atom) :: :ok
  def delete(store_id) do
    before = fetch_with_cache(store_id)
    for key <- [{__MODULE__, store_id}, last(store_id)], do: :persistent_term.erase(key)
    drop_cache(before)
  end

  @doc "Leaves a store to reads of what this node knows."
  @spec leave_to_readers(atom) :: :ok
  def leave_to_readers(store_id) do
    with {:ok, _store, cache} = found <- fetch_with_cache(store_id) do
      # In this order: readers always find it.
      :persistent_term.put(last(store_id), found)
      _existed? = :persistent_term.erase({__MODULE__, store_id})
      ReadCache.delete(cache)
    end

    :ok
  end

  defp last(store_id), do: {__MODULE__, :last, store_id}

  defp drop_cache({:ok, _store, cache}), do: ReadCache.delete(cache)
  defp drop_cache({:error, _reason}), do: :ok
end
