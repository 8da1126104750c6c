defmodule Tank.Store.NodeChange do
  @moduledoc """
  What a write did to one node: what `return_previous: true` adds to the answers of `Tank.Store.Tree`.

  | field | |
  |---|---|
  | `path` | which node |
  | `type` | `:created`, `:updated`, `:deleted`, or `:not_kept`: it went because a condition in `keep_while:` does not hold any more, or as a node on the way to what was deleted |
  | `previous` | the node before, or as it last was, as a `Tank.Store.Entry`; nil for one that was created |
  | `payload_version`, `child_list_version`, `child_count` | what it is now; nil for one that is gone |
  """

  alias Tank.Store.Entry

  defstruct [:path, :type, :previous, :payload_version, :child_list_version, :child_count]

  @type t :: %__MODULE__{
          path: Tank.Store.Path.t(),
          type: :created | :updated | :deleted | :not_kept,
          previous: Entry.t() | nil,
          payload_version: pos_integer | nil,
          child_list_version: pos_integer | nil,
          child_count: non_neg_integer | nil
        }

  @doc false
  @spec decode(tuple) :: t
  def decode({path, before, after_it}) do
    previous = before && Entry.decode_node(before)
    change(after_it, %__MODULE__{path: path, previous: previous})
  end

  defp change({:there, payload_version, child_list_version, child_count}, change) do
    type = if change.previous, do: :updated, else: :created
    versions = %{payload_version: payload_version, child_list_version: child_list_version, child_count: child_count}
    struct!(change, Map.put(versions, :type, type))
  end

  defp change(gone, change), do: %{change | type: gone}
end
