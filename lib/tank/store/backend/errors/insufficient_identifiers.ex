defmodule Tank.Store.Backend.InsufficientIdentifiers do
  @moduledoc """
  A key lacks a part that it needs: `part` counts from 1. Nothing was written.
  """

  defexception [:key, :part]

  @type t :: %__MODULE__{key: [String.t() | nil], part: pos_integer}

  @impl true
  def message(%{key: key, part: part}), do: "insufficient identifiers in key #{inspect(key)}: part #{part} is missing"
end
