defmodule Tank.Store.Change do
  @moduledoc """
  What became of one entry.

  | field | |
  |---|---|
  | `type` | `:created`, `:updated`, `:deleted`, or `:expired`: its lease ended |
  | `path` | where |
  | `value` | the value after; nil when the entry is gone |
  | `previous` | the value before; nil when there was no entry |
  | `revision` | the store's revision at the change |
  | `version` | writes to the entry since its creation; 0 when it is gone |
  """

  alias Tank.Store.{Entry, Native, Path}

  defstruct [:type, :path, :value, :previous, :revision, :version]

  @type type :: :created | :updated | :deleted | :expired
  @type t :: %__MODULE__{
          type: type,
          path: Path.t(),
          value: term,
          previous: term,
          revision: pos_integer,
          version: non_neg_integer
        }

  @doc false
  @spec new(Native.change()) :: t
  def new({type, path, value, previous, revision, version, _rest}) do
    %__MODULE__{type: type, path: path, value: value, previous: previous, revision: revision, version: version}
  end

  @doc false
  # The changes of a revision; with `entries?` each with its entry. What became of nodes stays as it came.
  @spec all([Native.change() | Native.node_step()], boolean) :: [t | {t, Entry.t() | nil} | Native.node_step()]
  def all(changes, true), do: Enum.map(changes, &{new(&1), entry(&1)})
  def all(changes, false), do: Enum.map(changes, &if(elem(&1, 0) == :node, do: &1, else: new(&1)))

  @doc false
  # The entry after a change, if there is one that is of what is watched; how many children it had then is not known.
  @spec entry(Native.change()) :: Entry.t() | nil
  def entry({type, path, value, _previous, revision, version, {create_revision, lease, true}})
      when type in [:created, :updated],
      do: Entry.new({path, value, revision, create_revision, version, nil, lease})

  def entry(_gone), do: nil
end
