defmodule Tank.Khepri.KeepWhile do
  @moduledoc false
  # The conditions by which nodes are kept, in the engine's words. The engine evaluates them on every member, so what it
  # has no words for is refused: match specifications that are not plain data, and names by another regular expression than
  # `any`, of which each language has its own.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Error, Path}
  alias Tank.Store.{Call, Pattern}

  @relations [eq: :==, ne: :!=, lt: :<, le: :<=, gt: :>, ge: :>=]
  # The engine's mark of a stored procedure.
  @sproc 2

  @doc "As an operation takes them: the conditions, and what gives them back."
  @spec encode(map) :: {[{[tuple], term}], binary}
  def encode(conditions) do
    encoded = for {path, condition} <- conditions, do: {pattern(path), condition(condition)}
    {encoded, :erlang.term_to_binary({:khepri, encoded, conditions}, [:deterministic, minor_version: 2])}
  end

  @doc "The conditions as they were given, of what the engine kept next to them."
  @spec given(binary | nil) :: map | nil
  def given(nil), do: nil

  def given(source) do
    case :erlang.binary_to_term(source) do
      {:khepri, _encoded, conditions} -> conditions
      {:tank, encoded} -> Map.new(encoded, fn {pattern, _condition} -> {Pattern.decode(pattern), if_node_exists()} end)
    end
  end

  @doc "Why a condition was refused, as Khepri says it."
  @spec reason(map, non_neg_integer, :unmet | :no_match) :: term
  def reason(conditions, index, why) do
    {path, condition} = Enum.at(conditions, index)
    if why == :no_match, do: {:pattern_matches_no_nodes, path}, else: condition
  end

  defp pattern(path), do: path |> Path.realpath() |> Enum.map(&part/1)

  @doc "A part of a pattern in the engine's words; `:unknown` if it has none."
  @spec part_or_unknown(term) :: {:one | :many, term} | :unknown
  def part_or_unknown(component) do
    part(component)
  catch
    {__MODULE__, _component} -> :unknown
  end

  defp part(if_path_matches(regex: :any)), do: {:many, :any}

  defp part(if_all(conditions: inner) = all) do
    if Enum.any?(inner, &match?(if_path_matches(), &1)),
      do: {:many, {:all, for(one <- inner, not match?(if_path_matches(regex: :any), one), do: condition(one))}},
      else: {:one, condition(all)}
  end

  defp part(component), do: {:one, condition(component)}

  defp condition(name) when is_node_id(name), do: {:is, Tank.Store.Path.child_key("", name)}
  defp condition(this()), do: :any
  defp condition(if_name_matches(regex: :any)), do: :any
  defp condition(if_node_exists(exists: true)), do: :any
  defp condition(if_node_exists(exists: false)), do: {:not, :any}
  defp condition(if_has_payload(has_payload: wanted)), do: wanted(:has_data, wanted)
  defp condition(if_has_data(has_data: wanted)), do: wanted({:all, [:has_data, {:not, {:kind, @sproc}}]}, wanted)
  defp condition(if_has_sproc(has_sproc: wanted)), do: wanted({:kind, @sproc}, wanted)
  defp condition(if_payload_version(version: n)), do: number(:payload_version, n)
  defp condition(if_child_list_version(version: n)), do: number(:child_list_version, n)
  defp condition(if_child_list_length(count: n)), do: number(:child_count, n)
  defp condition(if_not(condition: inner)), do: {:not, condition(inner)}
  defp condition(if_all(conditions: inner)), do: {:all, Enum.map(inner, &condition/1)}
  defp condition(if_any(conditions: inner)), do: {:any_of, Enum.map(inner, &condition/1)}
  defp condition(if_data_matches(pattern: :_, conditions: [])), do: condition(if_has_data(has_data: true))

  defp condition(if_data_matches(pattern: pattern, conditions: []) = condition) do
    if plain?(pattern), do: {:payload, Call.encode(pattern)}, else: unknown(condition)
  end

  defp condition(other), do: unknown(other)

  defp wanted(condition, true), do: condition
  defp wanted(condition, false), do: {:not, condition}

  defp number(what, n) when is_integer(n), do: {what, :==, n}
  defp number(what, {op, n}) when is_integer(n) and n >= 0, do: {what, Keyword.fetch!(@relations, op), n}

  # Whether a pattern of ETS matches equal data only.
  defp plain?(:_), do: false
  defp plain?(atom) when is_atom(atom), do: not (atom |> Atom.to_string() |> String.match?(~r/\A\$[0-9]+\z/))
  defp plain?([head | tail]), do: plain?(head) and plain?(tail)
  defp plain?(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> plain?()
  defp plain?(map) when is_map(map), do: map |> Map.to_list() |> Enum.flat_map(&Tuple.to_list/1) |> plain?()
  # Numbers of two kinds are equal to ETS, too, but not those that match.
  defp plain?(_other), do: true

  @spec unknown(term) :: no_return
  defp unknown(condition), do: throw({__MODULE__, condition})

  @doc "The same as `encode/1`; raises the misuse for what the engine has no words for."
  @spec encode!(map) :: {[{[tuple], term}], binary}
  def encode!(conditions) do
    encode(conditions)
  catch
    {__MODULE__, condition} -> Error.misuse(:unsupported_keep_while_condition, %{condition: condition})
  end
end
