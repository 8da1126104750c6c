defmodule Tank.Store.Entry do
  @moduledoc """
  An entry of a store: a path with its value, and how it came about.

  | field | |
  |---|---|
  | `path`, `value` | where it is, and what was written |
  | `revision` | the store's revision at its last write |
  | `create_revision` | the store's revision at its creation |
  | `version` | writes since its creation; 1 when it was created |
  | `child_count` | direct children of the path, with a value or without |
  | `lease` | the epoch of the lease that it goes with; 0 for none |
  """

  defstruct [:path, :value, :revision, :create_revision, :version, :child_count, :lease]

  @type t :: %__MODULE__{
          path: Tank.Store.Path.t(),
          value: term,
          revision: pos_integer,
          create_revision: pos_integer,
          version: pos_integer,
          child_count: non_neg_integer | nil,
          lease: non_neg_integer
        }

  @doc false
  @spec new(Tank.Store.Native.entry()) :: t
  def new({path, value, revision, create_revision, version, child_count, lease}) do
    %__MODULE__{
      path: path,
      value: value,
      revision: revision,
      create_revision: create_revision,
      version: version,
      child_count: child_count,
      lease: lease
    }
  end

  @doc false
  # Of an answer to a write, where values are still encoded.
  @spec decode(Tank.Store.Native.entry()) :: t
  def decode(entry), do: entry |> put_elem(1, :erlang.binary_to_term(elem(entry, 1))) |> new()
end
