defmodule Tank.Khepri.Projection do
  @moduledoc """
  Projections: ETS tables that every member of a cluster keeps of a part of the tree.

  A projection's function runs on every member, in the process that owns the tables. It is stored as a term: every member
  needs the module that it is of.
  """

  import Tank.Khepri.Records

  alias Tank.Khepri.Error

  @type name :: atom
  @type t :: {:khepri_projection, name, :copy | fun, list | map}
  @type options :: map

  @doc "As `new/3`, without options."
  @spec new(name, :copy | fun) :: t
  def new(name, fun), do: new(name, fun, %{})

  @doc """
  A projection: `copy`, of which a node's data is the row; a function of path and data, which returns the row; or one of
  table, path, old and new properties, which changes the table itself.

  Options: `type`, `keypos`, `read_concurrency`, `write_concurrency`, `compressed`, `protection`, and `tables`, a map of table names and
  such options, of which a function of four arguments gets a map of tables.
  """
  @spec new(name, :copy | fun, options) :: t
  def new(name, :copy, options) when is_map(options) do
    refuse_tables(:multi_table_projection_incompatible_with_copy_func, name, :copy, options)
    khepri_projection(name: name, projection_fun: :copy, ets_options: ets_options(options))
  end

  def new(name, fun, options) when is_map(options) and (is_function(fun, 2) or is_function(fun, 4)) do
    options = Map.delete(options, :standalone_fun_options)
    if is_function(fun, 2), do: check_simple(name, fun, options)
    khepri_projection(name: name, projection_fun: fun, ets_options: ets_options(options))
  end

  defp check_simple(name, fun, options) do
    refuse_tables(:multi_table_projection_incompatible_with_simple_func, name, fun, options)
    type = Map.get(options, :type, :set)
    if type not in [:set, :ordered_set], do: unexpected(:type, type)
  end

  defp refuse_tables(error, name, fun, %{tables: _} = options),
    do: Error.misuse(error, %{name: name, projection_fun: fun, options: options})

  defp refuse_tables(_error, _name, _fun, _options), do: :ok

  @doc "The name of a projection."
  @spec name(t) :: name
  def name(khepri_projection(name: name)), do: name

  defp ets_options(%{tables: tables} = options) do
    common = Map.delete(options, :tables)
    Map.new(tables, fn {table, own} -> {table, ets_options(Map.merge(common, own))} end)
  end

  defp ets_options(options) do
    {protection, options} = Map.pop(options, :protection, :protected)
    if protection not in [:public, :protected, :private], do: unexpected(:protection, protection)
    Enum.flat_map(options, &ets_option/1) ++ [protection, :named_table]
  end

  defp ets_option({:type, type}) when type in [:set, :ordered_set, :bag, :duplicate_bag], do: [type]
  defp ets_option({:keypos, position}) when is_integer(position) and position >= 1, do: [keypos: position]
  defp ets_option({:read_concurrency, on?}) when is_boolean(on?), do: [read_concurrency: on?]
  defp ets_option({:write_concurrency, on}) when is_boolean(on) or on == :auto, do: [write_concurrency: on]
  defp ets_option({:compressed, true}), do: [:compressed]
  defp ets_option({:compressed, false}), do: []
  defp ets_option({name, value}), do: unexpected(name, value)

  @spec unexpected(atom, term) :: no_return
  defp unexpected(name, value), do: Error.misuse(:unexpected_projection_option, %{name: name, value: value})
end
