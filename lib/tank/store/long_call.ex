defmodule Tank.Store.LongCall do
  @moduledoc false
  # Calls that take as long as the disk does. A thread of the library works, and answers by message; the calling process
  # waits for that, and no scheduler does.

  alias Tank.Store.Native

  @doc "Opens a store for the calling process: it is closed when that ends."
  @spec open(map, Native.link()) :: {:ok, Native.store()} | {:error, Native.reason()}
  def open(options, link) do
    with {:ok, store} <- await(&Native.open(&1, options, link)) do
      :ok = Native.own(store)
      {:ok, store}
    end
  end

  @doc "Closes a store, also when it returns an error: the last sync failed then."
  @spec close(Native.store()) :: :ok | {:error, Native.reason()}
  def close(store), do: await(&Native.close(&1, store))

  @doc "Closes a store; reads go on from its last view until `close/1`."
  @spec retire(Native.store()) :: :ok | {:error, Native.reason()}
  def retire(store), do: await(&Native.retire(&1, store))

  @doc "Discards the member that was set aside when this one joined, which is to vote or to stay a learner."
  @spec discard_aside(Native.store(), boolean) :: :ok | {:error, Native.reason()}
  def discard_aside(store, is_to_vote), do: await(&Native.discard_aside(&1, store, is_to_vote))

  @doc "Removes all that a store keeps in a directory, which must not be open."
  @spec erase(String.t(), String.t()) :: :ok | {:error, Native.reason()}
  def erase(dir, store_id), do: await(&Native.erase(&1, dir, store_id))

  @doc "What a directory holds of a store, without opening it."
  @spec peek(String.t(), String.t()) ::
          {:ok, :blank | {:holds, cluster_id :: pos_integer, member_id :: pos_integer, formed? :: boolean}}
          | {:error, Native.reason()}
  def peek(dir, store_id), do: await(&Native.peek(&1, dir, store_id))

  @doc "Notes that the member in a directory has its place in a cluster."
  @spec mark_formed(String.t()) :: :ok | {:error, Native.reason()}
  def mark_formed(dir), do: await(&Native.mark_formed(&1, dir))

  @doc "The entry at a key as it was at a revision."
  @spec entry_at(Native.store(), binary, Tank.Store.Position.t()) ::
          {:ok, Native.entry()} | :not_found | {:error, Native.reason()}
  def entry_at(store, key, position), do: await(&Native.entry_at(&1, store, key, position))

  @doc "Writes a backup to a file."
  @spec backup(Native.store(), String.t(), Native.work()) :: {:ok, map} | {:error, Native.reason()}
  def backup(store, path, work), do: await(&Native.backup(&1, store, path, work))

  @doc "Makes a directory a store of the backup in a file, with the id of the backup's unless given."
  @spec restore(String.t(), String.t(), String.t() | nil, Native.work()) :: {:ok, map} | {:error, Native.reason()}
  def restore(path, dir, store_id, work),
    do: await(&Native.restore(&1, path, dir, store_id, Atom.to_string(node()), work))

  # The answer always comes, also when the thread panics.
  defp await(start) do
    ref = make_ref()

    with {:ok, _call} <- start.(ref) do
      receive do
        {^ref, answer} -> answer
      end
    end
  end
end
