defmodule Tank.Khepri.Core do
  @moduledoc false
  # What Khepri's reading and writing commands do, on a view or within a transaction of the engine.
  #
  # A write is planned: which operations there are to do, by path. What they answer makes the command's answer.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Condition, Engine, Error, KeepWhile, Path, Props, Walk}

  @type op :: {list, tuple}

  # -- Reading

  @doc "Calls `fun.(path, node, acc)` for each node that a pattern matches."
  @spec fold(Engine.source(), list, map, acc, (list, Engine.t(), acc -> acc)) :: {:ok, acc} | {:error, Error.t()}
        when acc: term
  def fold(source, pattern, opts, acc, fun) do
    need = Props.need(Map.get(opts, :props_to_return, Props.default()))

    case named(source, pattern, opts, need) || selected(source, pattern, opts, need) do
      {:error, _missing} = error -> error
      nil -> walk(source, pattern, opts, need, acc, fun)
      nodes -> {:ok, Enum.reduce(nodes, acc, fn {path, node}, acc -> fun.(path, node, acc) end)}
    end
  end

  # The node at a path of names.
  defp named(source, [_ | _] = path, opts, need) do
    if Enum.all?(path, &is_node_id/1) and hd(path) != Engine.hidden() do
      case Engine.node(source, Engine.key(path), need) do
        {_key, _props} = node -> [{path, node}]
        nil -> if opts[:expect_specific_node], do: missing(source, path), else: []
      end
    end
  end

  defp named(_source, _pattern, _opts, _need), do: nil

  defp missing(source, path) do
    first = Engine.first_missing(source, path)
    info = %{node_name: List.last(first), node_path: first, node_is_target: first == path}
    {:error, Error.new(:node_not_found, info)}
  end

  defp walk(source, pattern, opts, need, acc, fun) do
    specific? = opts[:expect_specific_node] == true

    found = fn
      path, {:node, node}, acc -> {:ok, fun.(path, node, acc)}
      _path, {:missing, info}, _acc when specific? -> throw({__MODULE__, Error.new(:node_not_found, info)})
      _path, _not_matched, acc -> {:ok, acc}
    end

    options = [specific?: specific?, root?: opts[:include_root_props], need: need]
    {:ok, Walk.fold(source, pattern, acc, found, options)}
  catch
    :throw, {__MODULE__, error} -> {:error, error}
  end

  # A pattern that the engine has words for is looked up at once, in the order in which a walk would come to the nodes. For
  # the last condition it need not have any: that is evaluated here.
  defp selected(_source, _pattern, %{expect_specific_node: true}, _need), do: nil

  defp selected(source, pattern, opts, need) do
    with {[_ | _] = parts, rest} <- engine_pattern(pattern) do
      at_root(source, pattern, opts) ++
        meeting(rest, Engine.select(source, parts, if(rest, do: Walk.more(Condition.need(rest), need), else: need)))
    end
  end

  defp at_root(source, pattern, opts) do
    if opts[:include_root_props] && not is_component(hd(pattern)), do: [{[], Engine.root(source)}], else: []
  end

  defp meeting(nil, nodes), do: nodes

  defp meeting(condition, nodes) do
    condition = Condition.compile(condition)
    Enum.filter(nodes, fn {path, {_key, props}} -> Condition.is_met(condition, path, props) == true end)
  end

  # Nodes are matched in several ways where two parts match at any depth: a walk counts them so often.
  defp engine_pattern(pattern) do
    names? = Enum.all?(pattern, &(is_node_id(&1) or is_condition(&1)))

    with true <- names? and Enum.any?(pattern, &is_condition/1),
         {above, [last]} = Enum.split(pattern, -1),
         {last, rest} when last != :unknown <- last_part(last),
         parts = Enum.map(above, &engine_part/1) ++ [last],
         true <- :unknown not in parts and Enum.count(parts, &match?({:many, _}, &1)) < 2 do
      {parts, rest}
    else
      _walk -> nil
    end
  end

  defp last_part(condition) do
    case engine_part(condition) do
      :unknown -> if looks_at_children?(condition), do: {{:one, :any}, condition}, else: {:unknown, nil}
      part -> {part, nil}
    end
  end

  # All of them, and them only.
  defp looks_at_children?(condition),
    do: not Condition.applies_to_grandchildren(condition) and not names_nodes?(condition)

  defp engine_part(if_name_matches(regex: :any)), do: {:one, :any}
  defp engine_part(if_path_matches(regex: :any)), do: {:many, :any}
  defp engine_part(name) when is_node_id(name), do: KeepWhile.part_or_unknown(name)
  defp engine_part(if_has_data(has_data: true) = condition), do: KeepWhile.part_or_unknown(condition)
  defp engine_part(_condition), do: :unknown

  @doc "The properties of all nodes that a pattern matches."
  @spec get(Engine.source(), list, map) :: {:ok, map} | {:error, Error.t()}
  def get(source, pattern, opts) do
    collect(source, pattern, opts, &Props.gather(source, &1, opts.props_to_return))
  end

  @doc "What a function gives of each node that a pattern matches."
  @spec collect(Engine.source(), list, map, (Engine.t() -> term)) :: {:ok, map} | {:error, Error.t()}
  def collect(source, pattern, opts, fun) do
    with {:ok, found} <- fold(source, pattern, opts, [], fn path, node, found -> [{path, fun.(node)} | found] end),
         do: {:ok, :maps.from_list(found)}
  end

  @doc "The payloads of all nodes that a pattern matches; `default` for those that have none."
  @spec payloads(Engine.source(), list, map, term) :: {:ok, map} | {:error, Error.t()}
  def payloads(source, pattern, opts, default) do
    case opts[:expect_specific_node] != true && engine_pattern(pattern) do
      {[_ | _] = parts, nil} ->
        root = for {path, {_key, props}} <- at_root(source, pattern, opts), do: {path, payload(props, default)}
        {:ok, source |> Engine.payloads(parts, default) |> Map.merge(Map.new(root))}

      _needs_a_walk ->
        collect(source, pattern, opts, fn {_key, props} -> payload(props, default) end)
    end
  end

  @doc "The payload in a node's properties."
  @spec payload(map, term) :: term
  def payload(%{data: data}, _default), do: data
  def payload(%{sproc: fun}, _default), do: fun
  def payload(_props, default), do: default

  # -- Putting

  @doc "Plans to put a payload on every node that a pattern matches, and on those that it names."
  @spec put(Engine.source() | nil, list, term, map) :: {:ok, [op]} | {:error, Error.t()} | :needs_source
  def put(source, pattern, payload, opts) do
    case source == nil && on_one_condition(pattern, opts) do
      {path, condition} ->
        {:ok, [{path, put_op(path, payload, condition, opts)}]}

      _needs_to_be_looked_for ->
        with {:ok, paths} <- paths_to_put(source, pattern, opts),
             do: {:ok, for(path <- paths, do: {path, put_op(path, payload, nil, opts)})}
    end
  end

  # One node by its name, on a condition that the engine has words for: it can judge by itself.
  defp on_one_condition(pattern, %{expect_specific_node: true}) do
    with {[if_all(conditions: [name | [_ | _] = conditions])], above} when is_node_id(name) <-
           pattern |> Enum.reverse() |> Enum.split(1),
         true <- Enum.all?(above, &is_node_id/1) and Enum.all?(conditions, &(not names_nodes?(&1))),
         {:one, condition} <- KeepWhile.part_or_unknown(if_all(conditions: conditions)) do
      {Enum.reverse(above, [name]), {:node, condition, Enum.all?(conditions, &may_create?/1)}}
    else
      _a_pattern_or_names_only -> nil
    end
  end

  defp on_one_condition(_pattern, _opts), do: nil

  defp names_nodes?(condition), do: Path.component_targets_specific_siblings(condition) != false

  defp put_op(path, payload, condition, opts) do
    keep_while = if conditions = keep_while(path, opts), do: KeepWhile.encode!(conditions)
    Engine.put_op(Engine.key(path), payload, condition, keep_while, answers?(opts))
  end

  defp answers?(opts), do: opts.props_to_return != []

  defp paths_to_put(source, pattern, opts) do
    cond do
      names?(pattern) -> {:ok, [Path.realpath(pattern)]}
      source == nil -> :needs_source
      true -> walk_to_put(source, pattern, opts)
    end
  end

  # Which node it is does not depend on what there is.
  defp names?([first | rest]) when first in [root(), this()], do: Enum.all?(rest, &is_node_id/1)
  defp names?(pattern), do: Enum.all?(pattern, &is_node_id/1)

  defp walk_to_put(source, pattern, opts) do
    options = [
      specific?: opts[:expect_specific_node] == true,
      root?: opts[:include_root_props],
      need: :nothing,
      need_above: :nothing
    ]

    {:ok, source |> Walk.fold(pattern, [], &to_put/3, options) |> Enum.reverse() |> Enum.uniq()}
  catch
    :throw, {__MODULE__, error} -> {:error, error}
  end

  defp to_put(path, {:node, _node}, acc), do: {:ok, [path | acc]}

  defp to_put(path, {:missing, info}, acc) do
    if may_create?(Map.get(info, :condition, info.node_name)),
      do: {:create, if(info.node_is_target, do: [path | acc], else: acc)},
      else: throw({__MODULE__, Error.new(:node_not_found, info)})
  end

  defp to_put(_path, {:mismatch, info}, _acc), do: throw({__MODULE__, Error.new(:mismatching_node, info)})

  defp may_create?(name) when is_component(name), do: true
  defp may_create?(if_node_exists(exists: false)), do: true
  defp may_create?(if_all(conditions: inner)), do: Enum.all?(inner, &may_create?/1)
  defp may_create?(if_any(conditions: inner)), do: Enum.any?(inner, &may_create?/1)
  defp may_create?(_condition), do: false

  defp keep_while(path, opts) do
    if conditions = opts[:keep_while],
      do: Map.new(conditions, fn {relative, condition} -> {Path.abspath(relative, path), condition} end)
  end

  @doc "The answer of a put, of what its operations answered. `read` gives a source, for what they do not tell."
  @spec put_answer([op], [tuple], term, map, (() -> Engine.source())) :: {:ok, map}
  def put_answer(ops, _responses, _payload, %{props_to_return: []}, _read),
    do: {:ok, Map.new(ops, fn {path, _op} -> {path, %{}} end)}

  def put_answer(ops, responses, payload, opts, read) do
    wanted = opts.props_to_return

    {:ok,
     for {{path, _op}, response} <- Enum.zip(ops, responses), reduce: %{} do
       answer ->
         changes = Engine.changes(response)
         props = written(List.keyfind(changes, path, 0), path, payload, wanted, read)
         answer |> add_deleted(changes, opts) |> Map.put_new(path, props)
     end}
  end

  # An equal payload: nothing has changed.
  defp written(nil, path, _payload, wanted, read) do
    source = read.()

    case Engine.node(source, Engine.key(path), Props.need(wanted)) do
      nil -> %{}
      node -> Props.gather(source, node, wanted)
    end
  end

  defp written({_path, old, new}, path, payload, wanted, read) when is_map(new),
    do: Props.of_written(old, {Engine.key(path), Props.with_payload(new, payload)}, wanted, read)

  # It went at once, which is in the answer if that tells what keep_while deletes.
  defp written({_path, _last, _reason}, _path_again, _payload, _wanted, _read), do: %{}

  @doc "Why a put was refused: by conditions that are to keep a node."
  @spec refused({:keep_while, list, non_neg_integer, atom}, map) :: Error.t()
  def refused({:keep_while, path, index, why}, opts) do
    info = %{node_name: List.last(path, root()), node_path: path}
    reason = path |> keep_while(opts) |> KeepWhile.reason(index, why)
    Error.new(:keep_while_conditions_not_met, Map.put(info, :keep_while_reason, reason))
  end

  # -- Deleting

  @doc "Plans to delete every node that a pattern matches, with all below."
  @spec delete(Engine.source() | nil, list, map) :: {:ok, [op]} | {:error, Error.t()} | :needs_source
  def delete(source, pattern, opts) do
    cond do
      names?(pattern) and Path.realpath(pattern) != [] ->
        {:ok, [delete_op(Path.realpath(pattern), opts)]}

      source == nil ->
        :needs_source

      true ->
        {:ok, source |> walk_to_delete(pattern, opts) |> topmost() |> Enum.flat_map(&delete_ops(source, &1, opts))}
    end
  end

  defp walk_to_delete(source, pattern, opts) do
    found = fn
      path, {:node, _node}, paths -> {:ok, [path | paths]}
      _path, _not_matched, paths -> {:ok, paths}
    end

    options = [specific?: opts[:expect_specific_node] == true, root?: opts[:include_root_props], need: :exists]
    Walk.fold(source, pattern, [], found, options)
  end

  # What is below another one goes with that.
  defp topmost(paths) do
    paths
    |> Enum.uniq()
    |> Enum.sort_by(&length/1)
    |> Enum.reduce(MapSet.new(), fn path, kept ->
      if Enum.any?(prefixes(path), &MapSet.member?(kept, &1)), do: kept, else: MapSet.put(kept, path)
    end)
    |> Enum.to_list()
  end

  defp prefixes(path), do: for(n <- 0..(length(path) - 1)//1, do: Enum.take(path, n))

  # The root stays, and so does what this application keeps below it.
  defp delete_ops(source, [], opts) do
    clear = {{:root, Engine.node(source, "", :all)}, Engine.put_op("", no_payload(), nil, nil, false)}
    [clear | for({name, _child} <- Engine.children(source, Engine.root(source), :exists), do: delete_op([name], opts))]
  end

  defp delete_ops(_source, path, opts), do: [delete_op(path, opts)]

  defp delete_op(path, opts), do: {path, Engine.delete_op(Engine.key(path), opts[:silent] != true)}

  @doc "The answer of a deletion."
  @spec delete_answer([op], [tuple], map) :: {:ok, map}
  def delete_answer(ops, responses, opts) do
    answer = Enum.reduce(responses, %{}, fn response, answer -> add_deleted(answer, Engine.changes(response), opts) end)

    case ops do
      [{{:root, root}, _op} | _] -> {:ok, Map.put(answer, [], of_root(root, answer, opts))}
      _below_the_root -> {:ok, answer}
    end
  end

  defp of_root(root, answer, opts) do
    names = for [name] <- Map.keys(answer), do: name
    Props.of_deleted(root, :explicit, names, opts.props_to_return)
  end

  defp add_deleted(answer, changes, opts) do
    indirect? = Map.get(opts, :return_indirect_deletes, true)

    gone =
      for {path, node, reason} when is_atom(reason) <- changes,
          indirect? or reason == :explicit,
          do: {path, node, reason}

    names = if :child_names in opts.props_to_return, do: Enum.group_by(gone, &parent_of/1, &name_of/1), else: %{}

    for {path, node, reason} <- gone, not is_map_key(answer, path), into: answer do
      {path, Props.of_deleted(node, reason, Map.get(names, path, []), opts.props_to_return)}
    end
  end

  defp parent_of({path, _node, _reason}), do: Enum.drop(path, -1)
  defp name_of({path, _node, _reason}), do: List.last(path)
end
