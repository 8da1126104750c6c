defmodule Khepri.KeepWhileModel do
  @moduledoc """
  Khepri's tree with conditions that keep nodes, as the specification tells it: a map of paths, and nothing that is fast.

  A node is `%{data: value | nil, keep: conditions, version: payload_version}`. Conditions are of absolute paths, whose
  components may be `:*`. `nil` is no data.
  """

  @auto :auto

  @doc "An empty tree."
  def new, do: %{[] => %{data: nil, keep: %{}, version: 1}}

  @doc "Puts data; `keep` is a map of conditions, or nil. Gives the tree and what was deleted, by path."
  def put(tree, path, data, keep) do
    new? = not is_map_key(tree, path)

    case keep && Enum.find(keep, fn entry -> not allowed?(tree, path, new?, entry) end) do
      nil ->
        {tree, created} = make_parents(tree, path)
        former = Map.get(tree, path, %{data: :none, keep: %{}, version: 0})
        version = if former.data == data, do: former.version, else: former.version + 1
        tree = Map.put(tree, path, %{data: data, keep: keep || former.keep, version: version})
        created = if new?, do: [path | created], else: created
        changed = if former.data == data, do: [], else: [path]
        settle(tree, changed ++ created ++ Enum.map(created, &parent/1), [], %{})

      {pattern, condition} ->
        why = if matches(tree, pattern) == [], do: {:pattern_matches_no_nodes, pattern}, else: condition
        {:error, why}
    end
  end

  @doc "Deletes a node and all below it."
  def delete(tree, path) do
    if is_map_key(tree, path),
      do:
        tree
        |> remove([path], :explicit, %{})
        |> then(fn {tree, gone, changed} -> settle(tree, changed, Map.keys(gone), gone) end),
      else: {tree, %{}}
  end

  defp allowed?(tree, path, new?, {pattern, _condition} = entry),
    do: (new? and List.starts_with?(pattern, path)) or holds?(tree, entry)

  defp make_parents(tree, path) do
    path
    |> prefixes()
    |> Enum.reject(&(&1 == path))
    |> Enum.reduce({tree, []}, fn parent, {tree, created} ->
      if is_map_key(tree, parent),
        do: {tree, created},
        else: {Map.put(tree, parent, %{data: nil, keep: @auto, version: 1}), [parent | created]}
    end)
  end

  # -- What goes after a command

  defp settle(tree, [], [], gone), do: {tree, gone}

  defp settle(tree, changed, deleted, gone) do
    changed = changed |> Enum.uniq() |> Enum.reject(&(&1 == []))
    unkept = for {path, node} <- tree, not kept?(tree, path, node, changed, deleted), do: path
    {tree, gone, changed_now} = remove(tree, unkept, :keep_while, gone)
    settle(tree, changed_now, below(unkept, gone), gone)
  end

  defp below(paths, gone), do: for(path <- Map.keys(gone), Enum.any?(paths, &List.starts_with?(path, &1)), do: path)

  defp kept?(tree, path, %{keep: @auto, data: data}, changed, _deleted),
    do: path not in changed or data != nil or children(tree, path) != []

  defp kept?(tree, _path, %{keep: keep}, changed, deleted) do
    after_deletion? = Enum.any?(keep, fn {pattern, _} -> Enum.any?(deleted, &List.starts_with?(pattern, &1)) end)
    looked_at = if after_deletion?, do: keep, else: Enum.filter(keep, fn {pattern, _} -> pattern in changed end)
    Enum.all?(looked_at, &holds?(tree, &1))
  end

  defp remove(tree, paths, reason, gone) do
    Enum.reduce(paths, {tree, gone, []}, fn path, {tree, gone, changed} ->
      {out, kept} = Enum.split_with(tree, fn {other, _node} -> List.starts_with?(other, path) end)
      gone = Enum.reduce(out, gone, fn {other, node}, gone -> Map.put_new(gone, other, {reason, node.data}) end)
      changed = if out == [], do: changed, else: [parent(path) | changed]
      {Map.new(kept), gone, changed}
    end)
    |> then(fn {tree, gone, changed} -> {tree, gone, Enum.filter(changed, &is_map_key(tree, &1))} end)
  end

  # -- Conditions

  defp holds?(tree, {pattern, condition}) do
    case matches(tree, pattern) do
      [] -> condition == {:exists, false}
      matched -> Enum.all?(matched, &met?(tree, &1, condition))
    end
  end

  defp matches(tree, pattern), do: for({path, _node} <- tree, matches?(path, pattern), do: path)

  defp matches?([], []), do: true
  defp matches?([_name | path], [:* | pattern]), do: matches?(path, pattern)
  defp matches?([name | path], [name | pattern]), do: matches?(path, pattern)
  defp matches?(_path, _pattern), do: false

  defp met?(_tree, _path, {:exists, exists?}), do: exists?
  defp met?(tree, path, {:has_data, wanted}), do: tree[path].data != nil == wanted
  defp met?(tree, path, {:children, operator, n}), do: apply(Kernel, operator, [length(children(tree, path)), n])
  defp met?(tree, path, {:version, operator, n}), do: apply(Kernel, operator, [tree[path].version, n])
  defp met?(tree, path, {:not, condition}), do: not met?(tree, path, condition)
  defp met?(tree, path, {:any, conditions}), do: Enum.any?(conditions, &met?(tree, path, &1))

  defp children(tree, path), do: for({[_ | _] = child, _node} <- tree, parent(child) == path, do: child)
  defp parent(path), do: Enum.drop(path, -1)
  defp prefixes(path), do: for(n <- 1..length(path)//1, do: Enum.take(path, n))
end
