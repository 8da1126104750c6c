defmodule Tank.Khepri.Event do
  @moduledoc false
  # What became of a node at one revision, made of what a watch with `nodes: true` tells: changes of entries, and what
  # became of nodes without a payload and of child lists. `old` and `new` are Khepri's properties; `%{}` for no node. Those of
  # an entry whose children stayed as they were lack what counts children: `with_children/2` adds that.

  alias Tank.Khepri.Engine
  alias Tank.Store.Change

  @enforce_keys [:path, :old, :new, :payload?]
  defstruct [:path, :old, :new, :payload?]

  @typedoc "`payload?`: whether the payload has changed, or the node came or went."
  @type t :: %__MODULE__{path: list, old: map, new: map, payload?: boolean}
  @type told :: Change.t() | {:node, list, numbers | nil, numbers | nil, {:value, term} | nil}
  @type numbers :: {pos_integer, pos_integer, non_neg_integer}

  @doc "What a revision did to nodes, but for those that this application keeps for itself; as in Khepri, children first."
  @spec of([told]) :: [t]
  def of(told) do
    steps = for {:node, path, _before, _after, _value} = step <- told, into: %{}, do: {path, step}
    # The root is not told of the child that is hidden.
    steps = if is_map_key(steps, [Engine.hidden()]), do: Map.delete(steps, []), else: steps
    changes = for %Change{path: path} = change <- told, shown?(path), do: changed(change, steps[path])

    with_payload = if steps != %{}, do: MapSet.new(changes, & &1.path)
    others = for {path, step} <- steps, shown?(path), not MapSet.member?(with_payload, path), do: stepped(step)
    below_first(changes ++ others)
  end

  defp below_first([_one] = events), do: events
  defp below_first(events), do: Enum.sort_by(events, & &1.path, :desc)

  defp shown?([first | _rest]), do: first != Engine.hidden()
  defp shown?([]), do: true

  @spec action(t) :: :create | :update | :delete
  def action(%{old: old}) when old == %{}, do: :create
  def action(%{new: new}) when new == %{}, do: :delete
  def action(_event), do: :update

  @doc "The properties of a node that an event tells, with those of its children."
  @spec with_children(map, list, (() -> Engine.source() | nil)) :: map
  def with_children(props, _path, _read) when props == %{} or is_map_key(props, :child_list_version), do: props

  def with_children(props, path, read) do
    case read.() do
      nil -> props
      view -> Engine.with_children(props, view, path)
    end
  end

  # A new leaf has no children yet.
  defp changed(%{type: :created} = change, nil), do: event(change.path, %{}, Map.merge(leaf(), value(change)))
  defp changed(change, nil), do: event(change.path, previous(change), value(change))

  defp changed(change, {:node, path, before, later, _value}) do
    old = if before, do: Map.merge(previous(change), numbers(before)), else: previous(change)
    event(path, old, if(later, do: Map.merge(value(change), numbers(later)), else: %{}))
  end

  defp event(path, old, new), do: %__MODULE__{path: path, old: old, new: new, payload?: true}

  defp stepped({:node, path, before, later, value}) do
    payload = payload(value)
    [old, new] = for numbers <- [before, later], do: if(numbers, do: Map.merge(payload, numbers(numbers)), else: %{})
    %__MODULE__{path: path, old: old, new: new, payload?: before == nil or later == nil}
  end

  defp payload({:value, value}), do: Engine.props_of_value(value, 1)
  defp payload(nil), do: %{}

  defp leaf, do: %{child_list_version: 1, child_list_length: 0}

  defp numbers({payload_version, child_list_version, children}),
    do: %{payload_version: payload_version, child_list_version: child_list_version, child_list_length: children}

  defp previous(%{type: :created}), do: %{}
  defp previous(change), do: Engine.props_of_value(change.previous, max(change.version - 1, 1))

  defp value(%{type: type} = change) when type in [:created, :updated],
    do: Engine.props_of_value(change.value, change.version)

  defp value(_gone), do: %{}
end
