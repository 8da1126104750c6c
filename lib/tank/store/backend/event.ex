defmodule Tank.Store.Backend.Event do
  @moduledoc """
  What a watch of `Tank.Store.Backend` tells.

  | `type` | |
  |---|---|
  | `:added` | `new` is there |
  | `:modified` | `new` took the place of `old` |
  | `:deleted` | `old` is gone |
  | `:error` | `error` says what is wrong. After a `Tank.Store.Backend.DatastoreError` with the reason `:unparsed` the watch goes on; any other is the last event |

  `old` has no revision; its value is nil when it could not be parsed. `revision` is that of the change: a watch can
  go on behind it.
  """

  alias Tank.Store.Backend.{DatastoreError, Key}
  alias Tank.Store.KVPair

  defstruct [:type, :new, :old, :revision, :error, :raw]

  @type t :: %__MODULE__{
          type: :added | :modified | :deleted | :error,
          new: KVPair.t() | nil,
          old: KVPair.t() | nil,
          revision: String.t() | nil,
          error: Exception.t() | nil,
          raw: term
        }

  @doc false
  # `new` keeps the key and the revision, and `raw` what could not be parsed.
  @spec unparsed(KVPair.t(), term) :: t
  def unparsed(%KVPair{key: key} = pair, raw) do
    error = %DatastoreError{reason: :unparsed, key: key, message: "the value of #{Key.to_path(key)} does not parse"}
    %__MODULE__{type: :error, new: pair, revision: pair.revision, error: error, raw: raw}
  end
end
