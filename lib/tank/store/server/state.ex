defmodule Tank.Store.Server.State do
  @moduledoc false
  # What the server of a store keeps.
  #
  # `store`: the open engine, or nil between two tries to open one. `shown`: an engine that failed at its disk and whose last
  # view callers read, until `store` has caught up with it. `catching_up`: what `store` was asked then. `failure`: why there
  # is no open engine. `joining`: the new member and what it asked for, while it is not known whether it was taken in.
  # `swept`: the revision at the last sweep of the cache. `forming`: the search for a cluster (Tank.Store.Formation.Forming).
  # `owner_crashed?`: the process that the store belongs to ended, and was not stopped.

  alias Tank.Store.{Error, Native, Server}
  alias Tank.Store.Formation.Forming

  @enforce_keys [:config, :link]
  defstruct [:config, :link, :store, :shown, :catching_up, :failure, :joining, :swept, :forming, owner_crashed?: false]

  @type t :: %__MODULE__{
          config: Server.config(),
          link: Native.link(),
          store: Native.store() | nil,
          shown: Native.store() | nil,
          catching_up: reference | nil,
          failure: Error.reason() | nil,
          joining: {non_neg_integer, map} | nil,
          swept: non_neg_integer | nil,
          forming: Forming.t() | nil,
          owner_crashed?: boolean
        }
end
