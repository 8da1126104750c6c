defmodule Tank.Store.Identity do
  @moduledoc false
  # What the stores of this VM were when they were last open, and so what their directories must hold when they are
  # opened again.
  #
  #     unknown --opened--> known --stopped by its user, or closed in order--> unknown
  #                          |  ^
  #                     lost |  | opened
  #                          v  |
  #                         lost --stopped by its user, or restored--> unknown
  #
  # A store that is known makes no directory, and takes no other one (native/tank_engine/src/storage/place.rs). It is
  # forgotten when its user says so: by stopping it (`Tank.Store.Cluster.stop/1`), by erasing it, or by restoring a backup
  # in its place. The end of `Tank.Store` counts as such when it is in order and the directory was in its place when it was
  # closed: what happens to the directory afterwards is its user's doing. After any other end the store is opened *again*,
  # whoever starts it.
  #
  # The table outlives servers, instances and their supervisors: it is the application's.

  alias Tank.Store.{LongCall, Native}

  @doc "Makes the table; it belongs to the calling process."
  @spec make :: :ok
  def make do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public])
    :ok
  end

  @doc "What the directory of a store must hold; nil when nothing is known of it."
  @spec expected(Tank.Store.Server.config()) :: [Native.expected()] | nil
  def expected(config) do
    case :ets.lookup(__MODULE__, key(config)) do
      [{_key, expected, _lost?}] -> expected
      [] -> nil
    end
  end

  @doc "Notes that a store is open, and what it is."
  @spec opened(Tank.Store.Server.config(), Native.store()) :: :ok
  def opened(config, store), do: put(config, [Native.expected(store)])

  @doc "Notes that the directory holds another member from now on, unless that is given up again: it joins a cluster."
  @spec joining(Tank.Store.Server.config(), Native.store()) :: :ok
  def joining(config, store) do
    case expected(config) do
      # What comes back then is a blank directory.
      nil -> :ok
      expected -> put(config, [Native.expected(store) | expected])
    end
  end

  @doc "Notes that the member is about to be one of another cluster."
  @spec leaving_cluster(Tank.Store.Server.config()) :: :ok
  def leaving_cluster(config),
    do: put(config, for({_cluster, member, file_system} <- expected(config) || [], do: {nil, member, file_system}))

  @doc "Notes that the directory was lost while the store was open: the end of the store does not change that."
  @spec lost(Tank.Store.Server.config()) :: :ok
  def lost(config) do
    _known? = :ets.update_element(__MODULE__, key(config), {3, true})
    :ok
  end

  @doc "Forgets a store that was closed in order, unless its directory was lost."
  @spec closed(atom) :: :ok
  def closed(store_id) do
    delete({{store_id, :_}, :_, false})
  end

  @doc "Forgets a store."
  @spec forget(atom) :: :ok
  def forget(store_id) do
    delete({{store_id, :_}, :_, :_})
  end

  @doc "Forgets what was in a directory."
  @spec forget_dir(String.t()) :: :ok
  def forget_dir(dir) do
    delete({{:_, dir}, :_, :_})
  end

  @doc "Closes a store by `close`. What it returns is of the last sync, or says that the directory is lost."
  @spec close(Tank.Store.Server.config(), Native.store(), (Native.store() -> result)) :: result
        when result: :ok | {:error, Native.reason()}
  def close(config, store, close \\ &LongCall.close/1) do
    with {:error, {:lost, _what, _path}} = error <- close.(store) do
      lost(config)
      error
    end
  end

  # A task may restore a backup where the application does not run: then there is nothing to forget.
  defp delete(pattern) do
    _deleted? = :ets.whereis(__MODULE__) != :undefined and :ets.match_delete(__MODULE__, pattern)
    :ok
  end

  defp put(config, expected) do
    true = :ets.insert(__MODULE__, {key(config), expected, false})
    :ok
  end

  defp key(%{store_id: store_id, data_dir: dir}), do: {store_id, dir}
end
