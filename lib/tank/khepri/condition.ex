defmodule Tank.Khepri.Condition do
  @moduledoc """
  Khepri's conditions: whether a node meets them.

  A node is given by its name, or its path, and its properties, as `Tank.Khepri.Adv` returns them.
  """

  import Tank.Khepri.Records

  alias Tank.Khepri.Path

  @type t :: tuple | Path.component()

  @doc "The conditions by which a node is kept, with their paths as native ones."
  @spec ensure_native_keep_while(map) :: map
  def ensure_native_keep_while(conditions),
    do: Map.new(conditions, fn {path, condition} -> {Path.from_string(path), condition} end)

  @doc "A condition in a form that is quicker to evaluate."
  @spec compile(t) :: t
  def compile(if_name_matches(regex: regex, compiled: :undefined) = condition) when regex != :any,
    do: if_name_matches(condition, compiled: :re.compile(regex))

  def compile(if_path_matches(regex: regex, compiled: :undefined) = condition) when regex != :any,
    do: if_path_matches(condition, compiled: :re.compile(regex))

  def compile(if_data_matches(pattern: pattern, conditions: conditions, compiled: :undefined) = condition),
    do: if_data_matches(condition, compiled: :ets.match_spec_compile([{pattern, conditions, [:match]}]))

  def compile(if_not(condition: inner) = condition), do: if_not(condition, condition: compile(inner))

  def compile(if_all(conditions: inner) = condition) do
    case names_last(Enum.map(inner, &compile/1)) do
      [single] -> single
      several -> if_all(condition, conditions: several)
    end
  end

  def compile(if_any(conditions: [single])), do: compile(single)
  def compile(if_any(conditions: inner) = condition), do: if_any(condition, conditions: Enum.map(inner, &compile/1))
  def compile(condition), do: condition

  # In the order in which they are evaluated: the first one that is not met is what an error reports.
  defp names_last(conditions) do
    conditions
    |> Enum.reduce([], fn one, before -> if is_component(one), do: before ++ [one], else: [one | before] end)
    |> Enum.reverse()
  end

  @doc "Whether it matches nodes below those that it matches, too."
  @spec applies_to_grandchildren(t) :: boolean
  def applies_to_grandchildren(if_path_matches()), do: true
  def applies_to_grandchildren(if_not(condition: inner)), do: applies_to_grandchildren(inner)
  def applies_to_grandchildren(if_all(conditions: inner)), do: Enum.any?(inner, &applies_to_grandchildren/1)
  def applies_to_grandchildren(if_any(conditions: inner)), do: Enum.any?(inner, &applies_to_grandchildren/1)
  def applies_to_grandchildren(_other), do: false

  @doc "What a condition looks at in a node."
  @spec need(t) :: Tank.Khepri.Engine.need()
  def need(if_all(conditions: inner)), do: most(inner)
  def need(if_any(conditions: inner)), do: most(inner)
  def need(if_not(condition: inner)), do: need(inner)
  def need(if_child_list_version()), do: :all
  def need(if_child_list_length()), do: :all
  def need(if_name_matches()), do: :exists
  def need(if_path_matches()), do: :exists
  def need(if_node_exists()), do: :exists
  def need(component) when is_component(component), do: :exists
  def need(_of_the_payload), do: :payload

  defp most(conditions) do
    needs = Enum.map(conditions, &need/1)
    Enum.find([:all, :payload], :exists, &(&1 in needs))
  end

  @doc "Whether a node meets a condition, or `{false, what_it_does_not_meet}`."
  @spec is_met(t, Path.native_path() | Path.component(), map) :: true | {false, term}
  def is_met(condition, [], props), do: met(condition, :"", props)
  def is_met(condition, path, props) when is_list(path), do: met(condition, List.last(path), props)
  def is_met(condition, name, props), do: met(condition, name, props)

  defp met(name, name, _props) when is_component(name), do: true
  defp met(this(), _name, _props), do: true
  defp met(if_node_exists(exists: true), _name, _props), do: true
  defp met(if_name_matches() = condition, name, _props), do: name_met(condition, name)
  defp met(if_path_matches() = condition, name, _props), do: name_met(condition, name)

  defp met(if_has_payload(has_payload: wanted) = condition, _name, props),
    do: equal(condition, is_map_key(props, :data) or is_map_key(props, :sproc), wanted)

  defp met(if_has_data(has_data: wanted) = condition, _name, props),
    do: equal(condition, is_map_key(props, :data), wanted)

  defp met(if_has_sproc(has_sproc: wanted) = condition, _name, props),
    do: equal(condition, is_map_key(props, :sproc), wanted)

  defp met(if_data_matches(compiled: :undefined) = condition, name, props), do: met(compile(condition), name, props)

  defp met(if_data_matches(compiled: compiled) = condition, _name, %{data: data}),
    do: equal(condition, :ets.match_spec_run([data], compiled), [:match])

  defp met(if_payload_version(version: wanted) = condition, _name, %{payload_version: version}),
    do: equal(condition, compare(version, wanted), true)

  defp met(if_child_list_version(version: wanted) = condition, _name, %{child_list_version: version}),
    do: equal(condition, compare(version, wanted), true)

  defp met(if_child_list_length(count: wanted) = condition, _name, %{child_list_length: count}),
    do: equal(condition, compare(count, wanted), true)

  defp met(if_not(condition: inner) = condition, name, props),
    do: equal(condition, met(inner, name, props) == true, false)

  defp met(if_all(conditions: inner), name, props) do
    Enum.find_value(inner, true, fn one ->
      case met(one, name, props) do
        true -> nil
        unmet -> unmet
      end
    end)
  end

  defp met(if_any(conditions: inner) = condition, name, props),
    do: equal(condition, Enum.any?(inner, &(met(&1, name, props) == true)), true)

  defp met(other, _name, _props), do: {false, other}

  defp equal(_condition, value, value), do: true
  defp equal(condition, _value, _other), do: {false, condition}

  @doc false
  @spec compare(non_neg_integer, non_neg_integer | {atom, non_neg_integer}) :: boolean
  def compare(value, value), do: true
  def compare(value, {:eq, operand}), do: value == operand
  def compare(value, {:ne, operand}), do: value != operand
  def compare(value, {:lt, operand}), do: value < operand
  def compare(value, {:le, operand}), do: value <= operand
  def compare(value, {:gt, operand}), do: value > operand
  def compare(value, {:ge, operand}), do: value >= operand
  def compare(_value, _other), do: false

  defp name_met(condition, _name) when elem(condition, 1) == :any, do: true

  defp name_met(condition, name) do
    compiled = with :undefined <- elem(condition, 2), do: :re.compile(elem(condition, 1))
    subject = if is_atom(name), do: Atom.to_charlist(name), else: name

    case compiled do
      {:ok, regex} ->
        case :re.run(subject, regex, capture: :none) do
          :match -> true
          :nomatch -> {false, condition}
          error -> {false, {condition, error}}
        end

      error ->
        {false, {condition, error}}
    end
  end

  @doc "Whether it is a condition, or `{false, what_is_not}`."
  @spec is_valid(term) :: true | {false, term}
  def is_valid(component) when is_component(component), do: true
  def is_valid(if_node_exists(exists: exists)) when is_boolean(exists), do: true
  def is_valid(if_name_matches()), do: true
  def is_valid(if_path_matches()), do: true
  def is_valid(if_has_payload(has_payload: wanted)) when is_boolean(wanted), do: true
  def is_valid(if_has_data(has_data: wanted)) when is_boolean(wanted), do: true
  def is_valid(if_has_sproc(has_sproc: wanted)) when is_boolean(wanted), do: true
  def is_valid(if_data_matches(conditions: conditions)) when is_list(conditions), do: true
  def is_valid(if_payload_version()), do: true
  def is_valid(if_child_list_version()), do: true
  def is_valid(if_child_list_length()), do: true
  def is_valid(if_not(condition: inner)), do: is_valid(inner)
  def is_valid(if_all(conditions: inner)) when is_list(inner), do: Path.is_valid(inner)
  def is_valid(if_any(conditions: inner)) when is_list(inner), do: Path.is_valid(inner)
  def is_valid(other), do: {false, other}
end
