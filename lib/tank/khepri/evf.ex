defmodule Tank.Khepri.Evf do
  @moduledoc "Event filters: which changes a trigger is about."

  import Tank.Khepri.Records

  alias Tank.Khepri.Path

  @type t :: {:evf_tree, Path.native_pattern(), map}

  @doc "Changes of the nodes that a pattern matches; see `tree/2`."
  @spec tree(Path.pattern()) :: t
  def tree(pattern), do: tree(pattern, %{})

  @doc "The same, with `on_actions`, of `create`, `update` and `delete`, and a `priority`, 0 by default."
  @spec tree(Path.pattern(), map) :: t
  def tree(pattern, props), do: evf_tree(path: Path.from_string(pattern), props: props)

  @doc "A pattern as an event filter; an event filter as it is."
  @spec wrap(t | Path.pattern()) :: t
  def wrap(evf_tree() = filter), do: filter
  def wrap(pattern), do: tree(pattern)

  @doc "The priority of a filter."
  @spec get_priority(t) :: integer
  def get_priority(evf_tree(props: props)), do: Map.get(props, :priority, 0)

  @doc "The filter with another priority."
  @spec set_priority(t, integer) :: t
  def set_priority(evf_tree(props: props) = filter, priority) when is_integer(priority),
    do: evf_tree(filter, props: Map.put(props, :priority, priority))
end
