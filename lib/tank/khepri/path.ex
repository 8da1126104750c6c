defmodule Tank.Khepri.Path do
  @moduledoc """
  Khepri's paths: lists of atoms, binaries and special components, with conditions in patterns; and their string forms.

      iex> Tank.Khepri.Path.from_string("/:stock/wood/**")
      [:stock, "wood", {:if_path_matches, :any, :undefined}]
      iex> Tank.Khepri.Path.to_string([:stock, "wood"])
      ~c"/:stock/wood"

  Components that begin with a colon become atoms, and atoms are never freed: do not parse strings of strangers.
  """

  import Tank.Khepri.Records

  alias Tank.Khepri.{Condition, Error}

  @type component :: atom | binary | ?/ | ?. | ?^
  @type native_path :: [component]
  @type native_pattern :: [component | tuple]
  @type pattern :: native_pattern | charlist | binary

  # -- From strings

  @doc "The native path of a string. A native path stays what it is, less a leading root."
  @spec from_string(pattern) :: native_pattern
  def from_string(binary) when is_binary(binary), do: binary |> :binary.bin_to_list() |> from_string()
  def from_string([?/, ?/ | rest]), do: boundary([?/ | rest], ["", root()])
  def from_string([?/ | rest]), do: boundary(rest, [root()])
  def from_string([special] = path) when is_special(special), do: path
  def from_string(list) when is_list(list), do: boundary(list, [])
  def from_string(other), do: invalid(other)

  @doc "The same as `from_string/1`."
  @spec from_binary(pattern) :: native_pattern
  def from_binary(pattern), do: from_string(pattern)

  @doc "The sigil `~p` of Elixir."
  @spec sigil_p(pattern, charlist) :: native_pattern
  def sigil_p(pattern, _modifiers), do: from_string(pattern)

  @doc "The sigil `~P` of Elixir."
  @spec sigil_P(pattern, charlist) :: native_pattern
  def sigil_P(pattern, _modifiers), do: from_string(pattern)

  # Between two components; those before, last one first. What follows may be a native path.
  defp boundary([], before), do: finished(before, [])
  defp boundary([name | _] = rest, before) when is_node_id(name) or is_condition(name), do: finished(before, rest)

  defp boundary([special, name | _] = rest, before)
       when is_special(special) and (is_node_id(name) or is_condition(name)),
       do: finished(before, rest)

  defp boundary([special, next | _] = rest, []) when is_special(special) and is_special(next) and special != ?. do
    if native?(rest), do: rest, else: component(rest, [])
  end

  defp boundary([?/, ?/ | rest], before), do: boundary([?/ | rest], added("", before))
  defp boundary([?/ | rest], before), do: boundary(rest, before)
  defp boundary([character | _] = rest, before) when is_integer(character), do: component(rest, before)
  defp boundary(rest, before), do: invalid(Enum.reverse(before, rest))

  # Special components only, or some of them before a name or a condition.
  defp native?([special | rest]) when is_special(special), do: native?(rest)
  defp native?([]), do: true
  defp native?([next | _]), do: is_node_id(next) or is_condition(next)

  defp component(characters, before) do
    {text, rest} = Enum.split_while(characters, &(&1 != ?/))
    unless Enum.all?(text, &is_integer/1), do: invalid(Enum.reverse(before, characters))
    boundary(rest, added(parsed(text), before))
  end

  defp parsed([?: | name]), do: name |> decoded() |> List.to_atom()
  defp parsed(~c"."), do: this()
  defp parsed(~c".."), do: parent()
  defp parsed(~c"*"), do: if_name_matches(regex: :any)
  defp parsed(~c"**"), do: if_path_matches(regex: :any)

  defp parsed(text) do
    text = decoded(text)

    if ?* in text do
      if_name_matches(regex: ~c"^" ++ Enum.flat_map(text, &if(&1 == ?*, do: ~c".*", else: [&1])) ++ ~c"$")
    else
      :erlang.list_to_binary(text)
    end
  end

  # A path that begins with a name is relative.
  defp added(name, []) when is_node_id(name), do: [name, this()]
  defp added(component, before), do: [component | before]

  defp finished([], rest), do: rest

  defp finished(before, rest) do
    case Enum.reverse(before, rest) do
      [root() | path] -> path
      path -> path
    end
  end

  defp decoded([?%, a, b | rest]) do
    case {hex(a), hex(b)} do
      {high, low} when is_integer(high) and is_integer(low) -> [high * 16 + low | decoded(rest)]
      _no_digits -> [?% | decoded([a, b | rest])]
    end
  end

  defp decoded([character | rest]), do: [character | decoded(rest)]
  defp decoded([]), do: []

  defp hex(digit) when digit in ?0..?9, do: digit - ?0
  defp hex(digit) when digit in ?A..?F, do: digit - ?A + 10
  defp hex(digit) when digit in ?a..?f, do: digit - ?a + 10
  defp hex(_other), do: nil

  # -- To strings

  @doc "The string of a native path."
  @spec to_string(native_path) :: charlist
  def to_string([]), do: ~c"/"
  def to_string([root() | rest]), do: ~c"/" ++ joined(rest)
  def to_string([this()]), do: ~c"."
  def to_string([this(), "" | _] = path), do: joined(path)
  def to_string([this() | rest]), do: joined(rest)
  def to_string([parent() | _] = path), do: joined(path)
  def to_string(path), do: ~c"/" ++ joined(path)

  @doc "The string of a native path, as a binary."
  @spec to_binary(native_path) :: binary
  def to_binary(path), do: path |> __MODULE__.to_string() |> :erlang.list_to_binary()

  # A slash after an empty binary at the end: without it, that would not be seen.
  defp joined(path) do
    text = path |> Enum.map(&component_to_string/1) |> Enum.intersperse(~c"/") |> Enum.concat()
    if path != [] and List.last(path) == "", do: text ++ ~c"/", else: text
  end

  @doc false
  @spec component_to_string(component) :: charlist
  def component_to_string(root()), do: ~c"/"
  def component_to_string(this()), do: ~c"."
  def component_to_string(parent()), do: ~c".."
  def component_to_string(name) when is_atom(name), do: [?: | name |> Atom.to_charlist() |> encoded()]
  def component_to_string(name) when is_binary(name), do: name |> :binary.bin_to_list() |> encoded()

  defp encoded(text), do: text |> Enum.with_index() |> Enum.flat_map(fn {character, at} -> encoded(character, at) end)

  defp encoded(character, _at) when character in ?A..?Z or character in ?a..?z or character in ?0..?9, do: [character]
  defp encoded(character, _at) when character in [?-, ?_, ?~], do: [character]
  defp encoded(?., at) when at > 0, do: ~c"."
  defp encoded(character, _at), do: ~c"~2.16.0B" |> :io_lib.format([character]) |> List.flatten() |> then(&[?% | &1])

  # -- What a pattern is about

  @doc "Adds conditions to the last component."
  @spec combine_with_conditions(native_pattern, [tuple]) :: native_pattern
  def combine_with_conditions(path, []), do: path

  def combine_with_conditions(path, conditions) do
    [last | before] = Enum.reverse(path)
    Enum.reverse([if_all(conditions: [last | conditions]) | before])
  end

  @doc "`{true, path}` if the pattern can match one node only."
  @spec targets_specific_node(native_pattern) :: {true, native_path} | false
  def targets_specific_node(pattern) do
    names = Enum.map(pattern, &component_targets_specific_node/1)
    if Enum.all?(names), do: {true, Enum.map(names, &elem(&1, 1))}, else: false
  end

  @doc "`{true, name}` if the component can match one node only."
  @spec component_targets_specific_node(component | tuple) :: {true, component} | false
  def component_targets_specific_node(component) do
    case component_targets_specific_siblings(component) do
      {true, [name]} -> {true, name}
      _several_or_unknown -> false
    end
  end

  @doc "`{true, names}` if the component can match nodes of these names only."
  @spec component_targets_specific_siblings(component | tuple) :: {true, [component]} | false
  def component_targets_specific_siblings(name) when is_component(name), do: {true, [name]}

  # One name in it is enough.
  def component_targets_specific_siblings(if_all(conditions: conditions)) do
    case for(condition <- conditions, {true, names} <- [component_targets_specific_siblings(condition)], do: names) do
      [] -> false
      names -> {true, names |> Enum.concat() |> Enum.uniq() |> Enum.sort()}
    end
  end

  # Each one has to name its nodes.
  def component_targets_specific_siblings(if_any(conditions: [_ | _] = conditions)) do
    names = Enum.map(conditions, &component_targets_specific_siblings/1)

    if Enum.all?(names),
      do: {true, names |> Enum.flat_map(&elem(&1, 1)) |> Enum.uniq() |> Enum.sort()},
      else: false
  end

  def component_targets_specific_siblings(_condition), do: false

  @doc "Whether the pattern can match the root."
  @spec pattern_includes_root_node(native_pattern) :: boolean
  def pattern_includes_root_node(pattern), do: realpath(pattern) == []

  # -- Validity

  @doc "Whether all components of a native pattern are of the kinds there are."
  @spec is_valid(term) :: true | {false, term}
  def is_valid(pattern) when is_list(pattern) do
    Enum.find_value(pattern, true, fn component ->
      case Condition.is_valid(component) do
        true -> nil
        invalid -> invalid
      end
    end)
  end

  def is_valid(other), do: {false, other}

  @doc "Raises `{khepri_ex, invalid_path, _}` if a component is of no kind there is."
  @spec ensure_is_valid(term) :: :ok
  def ensure_is_valid(pattern) do
    case is_valid(pattern) do
      true -> :ok
      {false, component} -> Error.misuse(:invalid_path, %{path: pattern, component: component})
    end
  end

  @doc "Conditions in a form that is quicker to evaluate."
  @spec compile(native_pattern) :: native_pattern
  def compile(pattern), do: Enum.map(pattern, &Condition.compile/1)

  # -- Relative paths

  @doc "The path, from the root, of one that is relative to `base`."
  @spec abspath(native_pattern, native_pattern) :: native_pattern
  def abspath([special | _] = relative, base) when special in [this(), parent()], do: realpath(base ++ relative)
  def abspath(absolute, _base) when is_list(absolute), do: absolute

  @doc "The path without special components. What is above the root is the root."
  @spec realpath(native_pattern) :: native_pattern
  def realpath(path), do: realpath(path, [])

  defp realpath([root() | rest], _before), do: realpath(rest, [])
  defp realpath([this() | rest], before), do: realpath(rest, before)
  defp realpath([parent() | rest], before), do: realpath(rest, Enum.drop(before, 1))

  defp realpath([component | rest], before) when is_node_id(component) or is_condition(component),
    do: realpath(rest, [component | before])

  defp realpath([], before), do: Enum.reverse(before)

  @spec invalid(term) :: no_return
  defp invalid(path), do: Error.misuse(:invalid_path, %{path: path})
end
