defmodule Tank.Khepri.Tables do
  @moduledoc false
  # The tables of one projection, and what a change of a node does to them. What a projection's function raises is
  # logged, and costs that one row.

  import Tank.Khepri.Records

  require Logger

  @doc "Makes the tables that are not there."
  @spec create(tuple) :: :ok
  def create(khepri_projection(name: name, ets_options: options)) do
    for {table, options} <- tables(name, options), :ets.whereis(table) == :undefined, do: :ets.new(table, options)
    :ok
  end

  @spec delete(tuple) :: :ok
  def delete(khepri_projection(name: name, ets_options: options) = projection) do
    for {table, _options} <- tables(name, options),
        :ets.info(table) != :undefined,
        do: guarded(projection, [], fn -> :ets.delete(table) end)

    :ok
  end

  defp tables(name, options) when is_list(options), do: [{name, options}]
  defp tables(_name, options), do: Enum.to_list(options)

  @doc "Fills the tables with nodes, as `{path, props}`; of what they held before, only what differs is changed."
  @spec fill(tuple, [{list, map}]) :: :ok
  def fill(khepri_projection(name: name, projection_fun: fun, ets_options: options) = projection, nodes) do
    if is_function(fun, 4) do
      for {table, _options} <- tables(name, options),
          do: guarded(projection, [], fn -> :ets.delete_all_objects(table) end)

      for {path, props} <- nodes, do: update(projection, path, %{}, props)
    else
      rows = for {path, props} <- nodes, row <- row(projection, path, props), do: row
      for row <- rows, do: insert(projection, row)
      kept = MapSet.new(rows)
      for row <- rows_of(projection), not MapSet.member?(kept, row), do: delete_object(projection, row)
    end

    :ok
  end

  defp rows_of(khepri_projection(name: name) = projection) do
    case guarded(projection, [], fn -> :ets.tab2list(name) end) do
      {:ok, rows} -> rows
      :failed -> []
    end
  end

  @doc "What a change of a node from `old` to `new` does; `%{}` for no node."
  @spec update(tuple, list, map, map) :: :ok
  def update(khepri_projection(projection_fun: fun) = projection, path, old, new) when is_function(fun, 4) do
    with tables when tables != nil <- references(projection) do
      guarded(projection, path, fn -> fun.(tables, path, old, new) end)
    end

    :ok
  end

  def update(projection, path, old, new) do
    {gone, come} = {row(projection, path, old), row(projection, path, new)}
    Enum.each(come, &insert(projection, &1))
    for row <- gone, not replaced?(projection, row, come), do: delete_object(projection, row)
    :ok
  end

  defp row(khepri_projection(projection_fun: :copy), _path, %{data: data}), do: [data]

  defp row(khepri_projection(projection_fun: fun) = projection, path, %{data: data}) do
    case guarded(projection, path, fn -> fun.(path, data) end) do
      {:ok, row} -> [row]
      :failed -> []
    end
  end

  defp row(_projection, _path, _props), do: []

  # A row with the same key was overwritten; in a bag it was not.
  defp replaced?(_projection, row, [row]), do: true

  defp replaced?(khepri_projection(ets_options: options), row, [other]) when is_tuple(row) and is_tuple(other) do
    position = Keyword.get(Enum.filter(options, &is_tuple/1), :keypos, 1)
    bag? = :bag in options or :duplicate_bag in options

    not bag? and tuple_size(row) >= position and tuple_size(other) >= position and
      elem(row, position - 1) == elem(other, position - 1)
  end

  defp replaced?(_projection, _row, _come), do: false

  defp insert(khepri_projection(name: name) = projection, row),
    do: guarded(projection, row, fn -> :ets.insert(name, row) end)

  defp delete_object(khepri_projection(name: name) = projection, row),
    do: guarded(projection, row, fn -> :ets.delete_object(name, row) end)

  defp references(khepri_projection(name: name, ets_options: options)) when is_list(options) do
    with :undefined <- :ets.whereis(name), do: nil
  end

  defp references(khepri_projection(ets_options: options)) do
    found = Map.new(options, fn {table, _options} -> {table, :ets.whereis(table)} end)
    if Enum.all?(found, fn {_table, reference} -> reference != :undefined end), do: found
  end

  defp guarded(khepri_projection(name: name), what, fun) do
    {:ok, fun.()}
  catch
    class, reason ->
      Logger.error(fn ->
        "projection #{inspect(name)} failed for #{inspect(what)}, which has no row now: " <>
          Exception.format(class, reason, __STACKTRACE__)
      end)

      :failed
  end
end
