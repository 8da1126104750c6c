defmodule Tank.Store.Backend.UpdateConflict do
  @moduledoc """
  The revision that came with a write is not the key's any more: `current` is what it holds now, nil when it holds
  nothing. Nothing was written; read, decide anew, write again.
  """

  defexception [:key, :current]

  @type t :: %__MODULE__{key: Tank.Store.Backend.Key.t(), current: Tank.Store.KVPair.t() | nil}

  @impl true
  def message(%{key: key, current: nil}), do: "key #{inspect(key)} was deleted meanwhile"
  def message(%{key: key, current: current}), do: "key #{inspect(key)} was changed, at revision #{current.revision}"
end
