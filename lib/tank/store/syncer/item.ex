defmodule Tank.Store.Syncer.Item do
  @moduledoc false
  # A key-value pair as it was read for a syncer: `unparsed` holds `{:value, raw}` when its value did not parse, and the
  # pair's value is nil then.

  @enforce_keys [:kv]
  defstruct [:kv, unparsed: nil]

  @type t :: %__MODULE__{kv: Tank.Store.KVPair.t(), unparsed: {:value, term} | nil}
end
