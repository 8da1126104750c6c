defmodule Tank.Store.Backend.ValidationError do
  @moduledoc """
  A field of a key-value pair, or an option, cannot have such a value. Nothing was written; only another value helps.
  """

  defexception [:field, :value, :why]

  @type t :: %__MODULE__{field: atom, value: term, why: String.t()}

  @impl true
  def message(%{field: field, value: value, why: why}), do: "#{field} #{inspect(value, limit: 10)} #{why}"
end
