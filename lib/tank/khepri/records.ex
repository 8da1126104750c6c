defmodule Tank.Khepri.Records do
  @moduledoc """
  The records of Khepri's API, and the guards of its header.

  They are what `khepri/include/khepri.hrl` defines for Erlang. Applications compile them in, so neither their fields nor
  the order of those may change.
  """

  require Record

  @root ?/
  @this ?.
  @parent ?^
  @specials [@root, @this, @parent]

  Record.defrecord(:if_name_matches, regex: :any, compiled: :undefined)
  Record.defrecord(:if_path_matches, regex: :any, compiled: :undefined)
  Record.defrecord(:if_has_payload, has_payload: true)
  Record.defrecord(:if_has_data, has_data: true)
  Record.defrecord(:if_has_sproc, has_sproc: true)
  Record.defrecord(:if_data_matches, pattern: :_, conditions: [], compiled: :undefined)
  Record.defrecord(:if_node_exists, exists: true)
  Record.defrecord(:if_payload_version, version: 0)
  Record.defrecord(:if_child_list_version, version: 0)
  Record.defrecord(:if_child_list_length, count: 0)
  Record.defrecord(:if_not, condition: :undefined)
  Record.defrecord(:if_all, conditions: [])
  Record.defrecord(:if_any, conditions: [])

  Record.defrecord(:p_data, data: :undefined)
  Record.defrecord(:p_sproc, sproc: :undefined, is_valid_as_tx_fun: false)
  Record.defrecord(:evf_tree, path: :undefined, props: %{})
  Record.defrecord(:khepri_projection, name: :undefined, projection_fun: :undefined, ets_options: :undefined)

  Record.defrecord(:khepri_trigger,
    type: :undefined,
    store_id: :undefined,
    trigger_id: :undefined,
    event: %{},
    action: %{}
  )

  @conditions [
    if_name_matches: 3,
    if_path_matches: 3,
    if_has_payload: 2,
    if_has_data: 2,
    if_has_sproc: 2,
    if_data_matches: 4,
    if_node_exists: 2,
    if_payload_version: 2,
    if_child_list_version: 2,
    if_child_list_length: 2,
    if_not: 2,
    if_all: 2,
    if_any: 2
  ]

  @tags Keyword.keys(@conditions)

  @doc "The component that means the root."
  defmacro root, do: @root
  @doc "The component that means the node itself."
  defmacro this, do: @this
  @doc "The component that means the node above."
  defmacro parent, do: @parent
  @doc "What a node without a payload has as its raw payload."
  defmacro no_payload, do: :"$__NO_PAYLOAD__"

  @doc "Whether it names a node."
  defguard is_node_id(component) when is_atom(component) or is_binary(component)
  @doc "Whether it is the root, the node itself or its parent."
  defguard is_special(component) when component in @specials
  @doc "Whether it is a component of a path."
  defguard is_component(component) when is_atom(component) or is_binary(component) or component in @specials

  @doc "Whether it is one of the conditions."
  defguard is_condition(term)
           when is_tuple(term) and tuple_size(term) >= 2 and tuple_size(term) <= 4 and elem(term, 0) in @tags

  @doc "Whether it is what `Tank.Khepri.Payload` makes."
  defguard is_payload(term)
           when term == :"$__NO_PAYLOAD__" or (is_tuple(term) and tuple_size(term) == 2 and elem(term, 0) == :p_data) or
                  (is_tuple(term) and tuple_size(term) == 3 and elem(term, 0) == :p_sproc)
end
