defmodule Tank.Khepri.Walk do
  @moduledoc false
  # Walks down the tree along a pattern, and calls a function for what it comes to:
  #
  #     fun.(path, {:node, node}, acc)             -> {:ok, acc}
  #     fun.(path, {:missing | :mismatch, info}, acc) -> {:ok, acc} | {:create, acc}
  #
  # `:create` goes on below a node that is not there. What the function throws ends the walk. With `specific?`, each
  # component has to name one node, and whether it is missing or does not match is told; without, what does not match is
  # passed over.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Condition, Engine, Error, Path, Props}

  @type info :: %{node_name: Path.component(), node_path: list, node_is_target: boolean}
  @type found :: {:node, Engine.t()} | {:missing | :mismatch, info}

  @doc """
  Options: `specific?`; `root?`, whether a wildcard at the root matches the root too; `need` and `need_above`, what of the
  nodes that are matched, and of those above, a transaction relies on.
  """
  @spec fold(Engine.source(), list, acc, (list, found, acc -> {:ok | :create, acc}), keyword) :: acc when acc: term
  def fold(source, pattern, acc, fun, opts) do
    walk = %{
      source: source,
      fun: fun,
      specific?: opts[:specific?],
      root?: opts[:root?],
      need: opts[:need],
      need_above: Keyword.get(opts, :need_above, :exists)
    }

    step(walk, Path.compile(pattern), {[], Engine.root(source), []}, acc)
  end

  # A place is the reversed path, the node, and the nodes above it.
  defp step(walk, [], {path, node, _above}, acc) do
    {:ok, acc} = walk.fun.(Enum.reverse(path), {:node, node}, acc)
    acc
  end

  defp step(walk, [root() | rest], {[], _node, _above} = place, acc), do: step(walk, rest, place, acc)
  defp step(walk, [this() | rest], place, acc), do: step(walk, rest, place, acc)

  defp step(walk, [parent() | rest], {[], _node, []} = place, acc), do: step(walk, rest, place, acc)

  defp step(walk, [parent() | rest], {[_ | path], _node, [node | above]}, acc),
    do: step(walk, rest, {path, node, above}, acc)

  defp step(walk, [name | rest], {path, node, above}, acc) when is_node_id(name) do
    place =
      {[name | path], child(walk, node, name, if(rest == [], do: walk.need, else: walk.need_above)), [node | above]}

    if elem(place, 1), do: step(walk, rest, place, acc), else: missing(walk, rest, place, %{}, acc)
  end

  defp step(%{specific?: true} = walk, [condition | rest], {path, node, above} = place, acc) do
    case Path.component_targets_specific_node(condition) do
      {true, special} when special in [root(), this()] ->
        here(walk, condition, rest, place, acc)

      {true, parent()} ->
        targets_parent(condition, rest, path)

      {true, name} ->
        place = {[name | path], child(walk, node, name, needed(walk, condition, rest)), [node | above]}

        case place do
          {_path, nil, _above} -> missing(walk, rest, place, %{condition: condition}, acc)
          {_path, node, _above} -> met(walk, Condition.is_met(condition, name, elem(node, 1)), rest, place, acc)
        end

      false ->
        Error.misuse(:possibly_matching_many_nodes_denied, %{path: Enum.reverse(path, [condition | rest])})
    end
  end

  defp step(walk, [condition | rest] = pattern, {path, _node, _above} = place, acc) do
    case Path.component_targets_specific_siblings(condition) do
      {true, [special]} when special in [root(), this()] -> here(walk, condition, rest, place, acc)
      {true, [parent()]} -> targets_parent(condition, rest, path)
      {true, names} -> branches(walk, pattern, place, named(walk, place, names, pattern), at_root(walk, place, acc))
      false -> branches(walk, pattern, place, children(walk, place, pattern), at_root(walk, place, acc))
    end
  end

  defp children(_walk, {_path, :created, _above}, _pattern), do: []

  defp children(walk, {_path, node, _above}, [condition | rest]),
    do: Engine.children(walk.source, node, needed(walk, condition, rest))

  # Below a node that is not there is nothing.
  defp child(_walk, :created, _name, _need), do: nil
  defp child(walk, node, name, need), do: Engine.child(walk.source, node, name, need)

  defp named(walk, {_path, node, _above}, names, [condition | rest]) do
    for name <- names, child = child(walk, node, name, needed(walk, condition, rest)), do: {name, child}
  end

  # What is looked at in a node that a condition is about: what the condition needs, and what is wanted of a match.
  defp needed(walk, condition, []), do: more(Condition.need(condition), walk.need)
  defp needed(_walk, condition, _rest), do: Condition.need(condition)

  @doc "What both need."
  @spec more(Engine.need(), Engine.need()) :: Engine.need()
  def more(one, other), do: Enum.find([:all, :payload, :exists], :nothing, &(&1 in [one, other]))

  defp at_root(%{root?: true} = walk, {[], node, _above}, acc), do: step(walk, [], {[], node, []}, acc)
  defp at_root(_walk, _place, acc), do: acc

  defp branches(walk, pattern, {path, node, above}, children, acc) do
    Enum.reduce(children, acc, fn {name, child}, acc ->
      branch(walk, pattern, {[name | path], child, [node | above]}, acc)
    end)
  end

  # A condition that applies to grandchildren goes on below each child, whether that meets it or not.
  defp branch(walk, [condition | rest] = pattern, {[name | _], {_key, props}, _above} = place, acc) do
    acc = if Condition.is_met(condition, name, props) == true, do: step(walk, rest, place, acc), else: acc
    if Condition.applies_to_grandchildren(condition), do: step(%{walk | root?: false}, pattern, place, acc), else: acc
  end

  # A condition on the node that was come to. One that is not there yet has nothing to meet.
  defp here(_walk, _condition, _rest, {_path, :created, _above}, acc), do: acc

  defp here(walk, condition, rest, {path, node, _above} = place, acc) do
    name = List.first(path, root())
    met(walk, Condition.is_met(condition, name, elem(node, 1)), rest, place, acc)
  end

  defp met(walk, true, rest, place, acc), do: step(walk, rest, place, acc)

  defp met(%{specific?: true} = walk, {false, condition}, rest, {path, node, _above} = place, acc) do
    info = %{node_props: Props.for_error(node), condition: condition}
    {:ok, acc} = walk.fun.(Enum.reverse(path), {:mismatch, Map.merge(info, info(place, rest))}, acc)
    acc
  end

  defp met(_walk, {false, _condition}, _rest, _place, acc), do: acc

  defp missing(walk, rest, {path, nil, above} = place, more, acc) do
    case walk.fun.(Enum.reverse(path), {:missing, Map.merge(info(place, rest), more)}, acc) do
      {:create, acc} when rest != [] -> step(walk, rest, {path, :created, above}, acc)
      {_ok_or_create, acc} -> acc
    end
  end

  defp info({path, _node, _above}, rest) do
    %{node_name: List.first(path, root()), node_path: Enum.reverse(path), node_is_target: Path.realpath(rest) == []}
  end

  @spec targets_parent(tuple, list, list) :: no_return
  defp targets_parent(condition, rest, path) do
    Error.misuse(:condition_targets_parent_node, %{
      path: Enum.reverse(path, [condition | rest]),
      condition: condition
    })
  end
end
