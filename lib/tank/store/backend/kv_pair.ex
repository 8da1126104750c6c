defmodule Tank.Store.KVPair do
  @moduledoc """
  A key with its value, as `Tank.Store.Backend` reads and writes it.

    * `:key` - the components of a path below the client's prefix: `["endpoints", "host-1", "eth0"]`. A string,
      `"/endpoints/host-1/eth0"`, is taken too.
    * `:value` - any term but nil.
    * `:revision` - when the value was written: an opaque string, nil before it was. Written back it is a condition:
      only if it is still the current one.
    * `:ttl` - for a write, the seconds after which the key goes by itself; nil keeps it. A read gives nil.
  """

  defstruct [:key, :value, :revision, :ttl]

  @type t :: %__MODULE__{
          key: Tank.Store.Backend.Key.t() | String.t(),
          value: term,
          revision: String.t() | nil,
          ttl: pos_integer | nil
        }
end
