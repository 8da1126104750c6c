defmodule Tank.Store.Entry do
  @moduledoc """
  An entry of a store: a path with its value, and how it came about.

  With `nodes: :all`, functions of `Tank.Store.Tree` also give nodes without a value as entries: their value is nil, and
  their `version`, `revision` and `create_revision` are 0.

  | field | |
  |---|---|
  | `path`, `value` | where it is, and what was written |
  | `revision` | the store's revision at its last write |
  | `create_revision` | the store's revision at its creation |
  | `version` | writes since its creation; 1 when it was created |
  | `child_count` | direct children of the path, with a value or without |
  | `lease` | the epoch of the lease that it goes with; 0 for none |
  | `payload_version` | changes of the value since the node was created, with that, also while it had none |
  | `child_list_version` | how often children came or went, with the node's creation |

  The last two are nil where only the entry is known: in changes, in errors, and in reads of the past.
  """

  defstruct [
    :path,
    :value,
    :revision,
    :create_revision,
    :version,
    :child_count,
    :lease,
    :payload_version,
    :child_list_version
  ]

  @type t :: %__MODULE__{
          path: Tank.Store.Path.t(),
          value: term,
          revision: non_neg_integer,
          create_revision: non_neg_integer,
          version: non_neg_integer,
          child_count: non_neg_integer | nil,
          lease: non_neg_integer,
          payload_version: pos_integer | nil,
          child_list_version: pos_integer | nil
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

  def new({path, value, revision, create_revision, version, child_count, lease, payload_version, child_list_version}) do
    entry = new({path, value, revision, create_revision, version, child_count, lease})
    %{entry | payload_version: payload_version, child_list_version: child_list_version}
  end

  @doc false
  # Of a node, with a value or without.
  @spec of_node(Tank.Store.Native.tree_node()) :: t
  def of_node({path, kind, value, payload_version, child_list_version, child_count, nil}),
    do: of_node({path, kind, value, payload_version, child_list_version, child_count, {0, 0, 0, 0}})

  def of_node({path, _kind, value, payload_version, child_list_version, child_count, numbers}) do
    {revision, create_revision, version, lease} = numbers
    new({path, value, revision, create_revision, version, child_count, lease, payload_version, child_list_version})
  end

  @doc false
  # The same of an answer to a write.
  @spec decode_node(Tank.Store.Native.tree_node()) :: t
  def decode_node(node) when elem(node, 2) == nil, do: of_node(node)
  def decode_node(node), do: node |> put_elem(2, :erlang.binary_to_term(elem(node, 2))) |> of_node()

  @doc false
  # Of an answer to a write, where values are still encoded.
  @spec decode(Tank.Store.Native.entry()) :: t
  def decode(entry), do: entry |> put_elem(1, :erlang.binary_to_term(elem(entry, 1))) |> new()
end
