defmodule Tank.Khepri.Verbs do
  @moduledoc false
  # The commands, with all their arguments. `where` is a store's id or the running transaction. Those in the second half
  # give what `Tank.Khepri.Adv` gives.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Access, Core, Options, Path, Payload, Props}

  @type where :: Access.where()
  @type error :: {:error, term}

  # -- What `Tank.Khepri` gives

  @spec get(where, Path.pattern(), map) :: {:ok, term} | error
  def get(where, path, opts), do: value(where, path, opts, :undefined)

  @spec get_or(where, Path.pattern(), term, map) :: {:ok, term} | error
  def get_or(where, path, default, opts) do
    with {:error, {:khepri, :node_not_found, _info}} <- value(where, path, opts, default), do: {:ok, default}
  end

  defp value(where, path, opts, default) do
    with {:ok, found} <- adv_get(where, path, Map.put(opts, :props_to_return, [:payload])) do
      [props] = Map.values(found)
      {:ok, Core.payload(props, default)}
    end
  end

  @spec get_many_or(where, Path.pattern(), term, map) :: {:ok, map} | error
  def get_many_or(where, path, default, opts) do
    pattern = Access.pattern(path)

    Access.read(where, Map.put(opts, :props_to_return, [:payload]), fn source, opts ->
      Core.payloads(source, pattern, opts, default)
    end)
  end

  @spec exists(where, Path.pattern(), map) :: boolean | error
  def exists(where, path, opts), do: whether(where, path, [], opts, fn _found -> true end)

  @spec has_data(where, Path.pattern(), map) :: boolean | error
  def has_data(where, path, opts), do: whether(where, path, [:has_payload], opts, &is_map_key(single(&1), :has_data))

  @spec is_sproc(where, Path.pattern(), map) :: boolean | error
  def is_sproc(where, path, opts), do: whether(where, path, [:has_payload], opts, &is_map_key(single(&1), :is_sproc))

  defp whether(where, path, props, opts, fun) do
    case adv_get(where, path, Map.put(opts, :props_to_return, props)) do
      {:ok, found} -> fun.(found)
      {:error, {:khepri, :node_not_found, _info}} -> false
      {:error, _reason} = error -> error
    end
  end

  defp single(found) do
    [props] = Map.values(found)
    props
  end

  @spec count(where, Path.pattern(), map) :: {:ok, non_neg_integer} | error
  def count(where, path, opts), do: folded(where, path, Map.put(opts, :props_to_return, []), 0, fn _, _, n -> n + 1 end)

  @spec fold(where, Path.pattern(), (list, map, acc -> acc), acc, map) :: {:ok, acc} | error when acc: term
  def fold(where, path, fun, acc, opts) when is_function(fun, 3), do: folded(where, path, opts, acc, fun)

  @spec foreach(where, Path.pattern(), (list, map -> term), map) :: :ok | error
  def foreach(where, path, fun, opts) when is_function(fun, 2) do
    result =
      folded(where, path, opts, :ok, fn path, props, :ok ->
        fun.(path, props)
        :ok
      end)

    with {:ok, :ok} <- result, do: :ok
  end

  @spec map(where, Path.pattern(), (list, map -> term), map) :: {:ok, map} | error
  def map(where, path, fun, opts) when is_function(fun, 2),
    do: folded(where, path, opts, %{}, fn path, props, acc -> Map.put(acc, path, fun.(path, props)) end)

  @spec filter(where, Path.pattern(), (list, map -> boolean), map) :: {:ok, map} | error
  def filter(where, path, fun, opts) when is_function(fun, 2) do
    folded(where, path, opts, %{}, fn path, props, acc ->
      case fun.(path, props) do
        true -> Map.put(acc, path, Core.payload(props, :undefined))
        false -> acc
      end
    end)
  end

  defp folded(where, path, opts, acc, fun) do
    pattern = Access.pattern(path)

    Access.read(where, Map.put(opts, :expect_specific_node, false), fn source, opts ->
      Core.fold(source, pattern, opts, acc, fn path, node, acc ->
        fun.(path, Props.gather(source, node, opts.props_to_return), acc)
      end)
    end)
  end

  @spec is_empty(where, map) :: boolean | error
  def is_empty(where, opts) do
    with {:ok, found} <- adv_get(where, [], Map.put(opts, :props_to_return, [:child_list_length])),
         do: single(found).child_list_length == 0
  end

  @doc "A command of `Tank.Khepri.Adv` as one of `Tank.Khepri`: nothing but whether it was done."
  @spec simple((map -> :ok | {:ok, map} | error), map) :: :ok | error
  def simple(command, opts) do
    silent? = opts[:async] in [nil, false]
    with {:ok, _map} <- command.(Map.merge(opts, %{props_to_return: [], silent: silent?})), do: :ok
  end

  @spec run_sproc(where, Path.pattern(), list, map) :: term
  def run_sproc(where, path, args, opts) do
    case adv_get(where, path, opts) do
      {:ok, found} -> run_found(single(found), path, args)
      {:error, reason} -> throw({:khepri, :failed_to_get_sproc, %{path: path, args: args, error: reason}})
    end
  end

  defp run_found(%{sproc: fun}, _path, args), do: apply(fun, args)

  defp run_found(props, path, args),
    do: throw({:khepri_ex, :denied_execution_of_non_sproc_node, %{path: path, args: args, node_props: props}})

  # -- What `Tank.Khepri.Adv` gives

  @spec adv_get(where, Path.pattern(), map) :: {:ok, map} | error
  def adv_get(where, path, opts), do: adv_get_many(where, path, Map.put(opts, :expect_specific_node, true))

  @spec adv_get_many(where, Path.pattern(), map) :: {:ok, map} | error
  def adv_get_many(where, path, opts) do
    pattern = Access.pattern(path)
    Access.read(where, opts, fn source, opts -> Core.get(source, pattern, opts) end)
  end

  @spec adv_put(where, Path.pattern(), term, map) :: {:ok, map} | :ok | error
  def adv_put(where, path, data, opts), do: adv_put_many(where, path, data, specific(opts))

  @spec adv_put_many(where, Path.pattern(), term, map) :: {:ok, map} | :ok | error
  def adv_put_many(where, path, data, opts) do
    {pattern, payload} = {Access.pattern(path), Payload.wrap(data)}
    plan = fn source, opts -> Core.put(source, pattern, payload, opts) end
    answer = fn ops, responses, opts, read -> Core.put_answer(ops, responses, payload, opts, read) end
    Access.command(where, opts, &Options.put/1, plan, answer)
  end

  @spec adv_create(where, Path.pattern(), term, map) :: {:ok, map} | :ok | error
  def adv_create(where, path, data, opts),
    do: adv_put(where, with_condition(path, if_node_exists(exists: false)), data, opts)

  @spec adv_update(where, Path.pattern(), term, map) :: {:ok, map} | :ok | error
  def adv_update(where, path, data, opts),
    do: adv_put(where, with_condition(path, if_node_exists(exists: true)), data, opts)

  @spec adv_compare_and_swap(where, Path.pattern(), term, term, map) :: {:ok, map} | :ok | error
  def adv_compare_and_swap(where, path, pattern, data, opts),
    do: adv_put(where, with_condition(path, if_data_matches(pattern: pattern)), data, opts)

  @spec adv_clear_payload(where, Path.pattern(), map) :: {:ok, map} | :ok | error
  def adv_clear_payload(where, path, opts) do
    with {:error, {:khepri, :node_not_found, _info}} <- adv_update(where, path, Payload.none(), opts), do: {:ok, %{}}
  end

  @spec adv_clear_many_payloads(where, Path.pattern(), map) :: {:ok, map} | :ok | error
  def adv_clear_many_payloads({:tx} = where, path, opts), do: adv_put_many(where, path, Payload.none(), opts)

  def adv_clear_many_payloads(where, path, opts),
    do: adv_put_many(where, with_condition(path, if_node_exists(exists: true)), Payload.none(), opts)

  @spec adv_delete(where, Path.pattern(), map) :: {:ok, map} | :ok | error
  def adv_delete(where, path, opts), do: adv_delete_many(where, path, specific(opts))

  @spec adv_delete_many(where, Path.pattern(), map) :: {:ok, map} | :ok | error
  def adv_delete_many(where, path, opts) do
    pattern = Access.pattern(path)
    plan = fn source, opts -> Core.delete(source, pattern, opts) end
    answer = fn ops, responses, opts, _read -> Core.delete_answer(ops, responses, opts) end
    Access.command(where, opts, &Options.command/1, plan, answer)
  end

  defp specific(opts), do: Map.put(opts, :expect_specific_node, true)
  defp with_condition(path, condition), do: path |> Path.from_string() |> Path.combine_with_conditions([condition])
end
