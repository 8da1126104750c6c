defmodule Tank.Khepri.Machine do
  @moduledoc false
  # Which version of Khepri's state machine a store behaves as.

  @behaviours [
    :dedup_protection,
    :delete_reason_in_node_props,
    :indirect_deletes_in_ret,
    :multi_table_projections,
    :uniform_write_ret
  ]

  @spec version :: pos_integer
  def version, do: 3

  @spec has_behaviour?(atom) :: boolean
  def has_behaviour?(name), do: name in @behaviours

  @doc "The same, of a store."
  @spec does_api_comply_with(atom, atom) :: boolean
  def does_api_comply_with(name, _store), do: has_behaviour?(name)
end
