defmodule Tank.Khepri.Match do
  @moduledoc false
  # Whether the path of a node that changed matches a pattern: the whole path, and every level on the way.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Condition, Path}

  @doc "Whether names alone decide, and not what nodes hold."
  @spec by_name?(list) :: boolean
  def by_name?(pattern), do: Enum.all?(pattern, &name_only?/1)

  defp name_only?(name) when is_component(name), do: true
  defp name_only?(if_name_matches()), do: true
  defp name_only?(if_path_matches()), do: true
  defp name_only?(if_node_exists(exists: true)), do: true
  defp name_only?(if_not(condition: inner)), do: name_only?(inner)
  defp name_only?(if_all(conditions: inner)), do: Enum.all?(inner, &name_only?/1)
  defp name_only?(if_any(conditions: inner)), do: Enum.all?(inner, &name_only?/1)
  defp name_only?(_condition), do: false

  @doc "What of a compiled pattern names decide: it matches all that the pattern matches."
  @spec shape(list) :: list
  def shape(pattern), do: Enum.map(pattern, &names/1)

  defp names(if_all(conditions: inner)), do: if_all(conditions: Enum.map(inner, &names/1))
  defp names(condition), do: if(name_only?(condition), do: condition, else: if_node_exists(exists: true))

  @doc "`lookup` gives the properties of a node by its path, or nil."
  @spec matches?(list, Path.native_path(), (Path.native_path() -> map | nil)) :: boolean
  def matches?(pattern, path, lookup), do: matches?(pattern, path, [], lookup)

  defp matches?([], [], _above, _lookup), do: true
  defp matches?([], _path, _above, _lookup), do: false
  defp matches?(_pattern, [], _above, _lookup), do: false

  defp matches?([name | pattern], [name | path], above, lookup) when is_component(name),
    do: matches?(pattern, path, [name | above], lookup)

  defp matches?([name | _pattern], _path, _above, _lookup) when is_component(name), do: false

  defp matches?([condition | rest] = pattern, [name | path], above, lookup) do
    above = [name | above]

    met?(condition, name, above, lookup) and
      ((Condition.applies_to_grandchildren(condition) and matches?(pattern, path, above, lookup)) or
         matches?(rest, path, above, lookup))
  end

  defp met?(condition, name, above, lookup) do
    props = if name_only?(condition), do: %{}, else: lookup.(Enum.reverse(above))
    props != nil and Condition.is_met(condition, name, props) == true
  end
end
