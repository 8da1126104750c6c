defmodule Tank.Store.Backend.DoesNotExist do
  @moduledoc """
  There is no such key; it is certain. Nothing was written.
  """

  defexception [:key]

  @type t :: %__MODULE__{key: Tank.Store.Backend.Key.t()}

  @impl true
  def message(%{key: key}), do: "key #{inspect(key)} does not exist"
end
