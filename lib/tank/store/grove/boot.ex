defmodule Tank.Store.Grove.Boot do
  @moduledoc false
  # Stores that a backend starts for itself. Several backends may share one: it stops when the last of them is closed.

  alias Tank.Store.Cluster

  @doc "Starts a store, or uses the one that runs in that directory. Gives whether `stop/1` is to be called for it."
  @spec start(String.t(), atom, timeout) :: {:ok, boolean} | {:error, term}
  def start(data_dir, store_id, timeout) do
    alone(store_id, fn ->
      users = users(store_id)
      # Somebody else's is left running.
      ours? = users > 0 or not Cluster.is_store_running(store_id)

      with {:ok, ^store_id} <- Cluster.start(data_dir, store_id, timeout) do
        if ours?, do: put_users(store_id, users + 1)
        {:ok, ours?}
      end
    end)
  end

  @doc "One that was told `true` needs the store no more."
  @spec stop(atom) :: :ok
  def stop(store_id) do
    alone(store_id, fn ->
      left = users(store_id) - 1
      put_users(store_id, left)
      if left == 0, do: Cluster.stop(store_id), else: :ok
    end)
  end

  # One that was stopped by hand has no users, whatever they think.
  defp users(store_id),
    do: if(Cluster.is_store_running(store_id), do: :persistent_term.get({__MODULE__, store_id}, 0), else: 0)

  defp put_users(store_id, users) when users > 0, do: :persistent_term.put({__MODULE__, store_id}, users)

  defp put_users(store_id, _none) do
    :persistent_term.erase({__MODULE__, store_id})
    :ok
  end

  # On this node only.
  defp alone(store_id, fun), do: :global.trans({{__MODULE__, store_id}, self()}, fun, [node()])
end
