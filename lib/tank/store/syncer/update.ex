defmodule Tank.Store.Syncer.Update do
  @moduledoc """
  What a syncer's consumer has to change: `:new` for a key that it does not have, `:updated` and `:deleted` for one that
  it has.

  The `kv` of a `:deleted` update holds the key alone. A value that could not be parsed is nil.
  """

  @enforce_keys [:kv, :type]
  defstruct [:kv, :type]

  @type type :: :new | :updated | :deleted
  @type t :: %__MODULE__{kv: Tank.Store.KVPair.t(), type: type}
end
