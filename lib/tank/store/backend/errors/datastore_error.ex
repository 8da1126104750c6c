defmodule Tank.Store.Backend.DatastoreError do
  @moduledoc """
  The store could not do what it was asked for, by a `reason` that says what to do.

  | reason | means | do |
  |---|---|---|
  | `:unavailable` | the store does not run, or has no quorum; nothing was written | retry |
  | `:overloaded` | too many writes in flight; nothing was written | slow down, retry |
  | `:timeout` | **unknown**: a write may or may not have been applied | read |
  | `:compacted` | the revision is so old that its history was dropped | read the present |
  | `:future` | this member has not come to the revision yet | retry |
  | `:unparsed` | of a watch: the value of `key` cannot be read; the watch goes on | |
  | `:failed` | the store met a fault, which `message` tells | its supervisor restarts it |
  """

  defexception [:reason, :key, :message]

  @type reason :: :unavailable | :overloaded | :timeout | :compacted | :future | :unparsed | :failed
  @type t :: %__MODULE__{reason: reason, key: [String.t()] | nil, message: String.t()}
end
