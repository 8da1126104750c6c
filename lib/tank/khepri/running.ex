defmodule Tank.Khepri.Running do
  @moduledoc false
  # The transaction that this process runs, in its dictionary.

  alias Tank.Khepri.Error
  alias Tank.Store.Tx

  @key __MODULE__

  @typedoc "`assumes?`: what is written, and answers nothing, is taken as done until something reads."
  @type t :: %{tx: Tx.t(), store: atom, ref: reference, write?: boolean, assumes?: boolean}

  @spec put(t) :: term
  def put(running), do: Process.put(@key, running)

  @spec erase :: t | nil
  def erase, do: Process.delete(@key)

  @spec get :: t | nil
  def get, do: Process.get(@key)

  @spec fetch! :: t
  def fetch!, do: get() || Error.misuse(:invalid_use_of_khepri_tx_outside_transaction, %{})

  @spec fetch_to_write! :: t
  def fetch_to_write! do
    case fetch!() do
      %{write?: true} = running -> running
      _read_only -> Error.misuse(:denied_update_in_readonly_tx, %{})
    end
  end

  @doc "A call by the store's id within a transaction would not be a part of it."
  @spec refuse_nested!(atom) :: :ok
  def refuse_nested!(store) do
    case get() do
      %{store: ^store} -> Error.misuse(:denied_nested_call_in_tx, %{store_id: store})
      _none_or_of_another_store -> :ok
    end
  end
end
