defmodule Tank.Store.Status do
  @moduledoc """
  What `Tank.Store.Cluster.status/1` says about a store, where the fields are explained.
  """

  alias Tank.Store.Error

  defstruct store_id: nil,
            member_id: nil,
            cluster_id: nil,
            data_dir: nil,
            revision: 0,
            history: nil,
            entries: 0,
            value_bytes: 0,
            memory_bytes: 0,
            disk_bytes: 0,
            in_flight: 0,
            fsyncs: 0,
            log_entries: 0,
            log_bytes: 0,
            applied_index: 0,
            digest: 0,
            readable: false,
            failure: nil,
            alarms: [],
            role: :forming,
            term: 0,
            leader: nil,
            last_log_index: nil,
            purged_index: nil,
            quorum: false,
            members: [],
            malformed_frames: 0,
            foreign_frames: 0

  @typedoc "A member; `lag` and `reachable` are nil unless this member leads."
  @type member :: %{
          required(:node) => node,
          required(:role) => :leader | :voter | :learner | :witness,
          required(:member_id) => non_neg_integer,
          required(:lag) => non_neg_integer | nil,
          required(:reachable) => boolean | nil,
          optional(atom) => term
        }
  @typedoc "`details` has a `:message` that says what happened and what to do."
  @type alarm :: {name :: atom, details :: %{required(:message) => String.t(), optional(atom) => term}}
  @type t :: %__MODULE__{
          store_id: atom,
          member_id: non_neg_integer | nil,
          cluster_id: non_neg_integer | nil,
          data_dir: String.t(),
          revision: non_neg_integer,
          history: String.t() | nil,
          entries: non_neg_integer,
          value_bytes: non_neg_integer,
          memory_bytes: non_neg_integer,
          disk_bytes: non_neg_integer,
          in_flight: non_neg_integer,
          fsyncs: non_neg_integer,
          log_entries: non_neg_integer,
          log_bytes: non_neg_integer,
          applied_index: non_neg_integer,
          digest: non_neg_integer,
          readable: boolean,
          failure: Error.reason() | nil,
          alarms: [alarm],
          role: :leader | :follower | :candidate | :learner | :forming,
          term: non_neg_integer,
          leader: node | nil,
          last_log_index: non_neg_integer | nil,
          purged_index: non_neg_integer | nil,
          quorum: boolean,
          members: [member],
          malformed_frames: non_neg_integer,
          foreign_frames: non_neg_integer
        }

  @doc false
  # The fields that it knows, of maps of figures.
  @spec new(map) :: t
  def new(figures), do: struct(__MODULE__, figures)
end
