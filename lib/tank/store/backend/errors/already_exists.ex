defmodule Tank.Store.Backend.AlreadyExists do
  @moduledoc """
  A key was to be created, and there is one: `existing` is it, as it is stored. Nothing was written.
  """

  defexception [:key, :existing]

  @type t :: %__MODULE__{key: Tank.Store.Backend.Key.t(), existing: Tank.Store.KVPair.t()}

  @impl true
  def message(%{key: key}), do: "key #{inspect(key)} exists already"
end
