defmodule Tank.Store.Running do
  @moduledoc false
  # The running stores, by id: where every call finds its store, in a dozen nanoseconds.
  #
  # Only `Tank.Store.Server` writes here, when a store opens and when it closes. Removing one makes the BEAM look
  # through all processes for the old value, which is why nothing that changes often is kept like this.

  alias Tank.Store.Native

  @spec fetch(atom) :: {:ok, Native.store()} | {:error, :noproc}
  def fetch(store_id) do
    case :persistent_term.get({__MODULE__, store_id}, nil) do
      nil -> {:error, :noproc}
      store -> {:ok, store}
    end
  end

  @spec put(atom, Native.store()) :: :ok
  def put(store_id, store), do: :persistent_term.put({__MODULE__, store_id}, store)

  @spec delete(atom) :: :ok
  def delete(store_id) do
    _existed? = :persistent_term.erase({__MODULE__, store_id})
    :ok
  end
end
