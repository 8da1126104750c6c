defmodule Tank.Store.Pattern do
  @moduledoc """
  Patterns: paths with conditions in them, for `Tank.Store.Tree`.

  | component | matches |
  |---|---|
  | an atom or a string | the component itself |
  | `:*` | any one level |
  | `:**` | one level or more |
  | `{:is, component}` | the component itself, also one that means something else here, as `:*` does |
  | `{:name_matches, regex}` | a name, an atom's or a string's, in which the regular expression is found |
  | `{:data, term}` | a node whose value equals the term |
  | `:has_data` | a node that has a value |
  | `{:version, op, n}` | a node whose version stands so to `n`; without a value it is 0 |
  | `{:child_count, op, n}` | a node whose count of direct children stands so to `n` |
  | `{:payload_version, op, n}`, `{:child_list_version, op, n}` | these numbers of a node (`Tank.Store.Entry`) |
  | `{:all, list}`, `{:any, list}`, `{:not, condition}` | what all, one or more, or the one do or does not match |

  `op` is `:==`, `:!=`, `:<`, `:<=`, `:>` or `:>=`. `{:all, [:**, condition]}` matches one level or more, of which the
  last one meets the condition; `:**` stands nowhere else in a condition. A path is a pattern that matches itself.

  ## Of what changes

  A watch, a projection and `Tank.Store.Tree.list_since/4` take a path, for all at it and below, or a pattern, for the
  entries that it matches: `[:pods]` is everything below the pods, `[:pods, :*]` the pods alone, and `[{:all, [:pods]}]`
  the one entry at `[:pods]`. Whether an entry matches must follow from its path and itself: `:child_count` is refused, and
  so are `:data`, `:has_data` and `:version` before the last component, `{:error, {:invalid_pattern, why}}`.

  A **node** is a path that has a value, or something below it. The root, `[]`, is matched by `[]` only.

      iex> {:ok, _pattern} = Tank.Store.Pattern.encode([:pods, {:name_matches, ~r/^web/}, :**])
      iex> Tank.Store.Pattern.encode([:pods, {:version, :=~, 1}])
      {:error, {:invalid_pattern, "{:version, :=~, 1} is not a condition"}}

  ## Equality

  `{:data, term}` compares encodings, as `compare_and_swap` and `txn` do. It is equality by `===`: 1 is not 1.0, and
  maps are equal whatever the order in which they were made. Two floats are equal when their bits are, so 0.0 is not
  -0.0. A function equals itself as long as its module is not compiled anew.

  ## Regular expressions

  They are evaluated by every member, in Rust, in time linear in the name. So they differ from `Regex`:

    * neither look-around nor back-references, `{:error, {:invalid_pattern, why}}`,
    * they match bytes: `\\w`, `\\d`, `\\s`, `\\b` and the option `i` know ASCII alone, and `.` is one byte. The option `u`
      is refused,
    * at most 1 KiB long.

  The options `i`, `m`, `s`, `x` and `U` of a `Regex` are kept. A string is taken as a regular expression too.
  """

  alias Tank.Store.{Call, Path}

  @typedoc "A path with conditions in it."
  @type t :: [Path.component() | condition]
  @type condition ::
          :*
          | :**
          | :has_data
          | {:is, Path.component()}
          | {:name_matches, Regex.t() | String.t()}
          | {:data, term}
          | {:version | :child_count | :payload_version | :child_list_version, relation, non_neg_integer}
          | {:all | :any, [Path.component() | condition]}
          | {:not, Path.component() | condition}
  @type relation :: :== | :!= | :< | :<= | :> | :>=

  @relations [:==, :!=, :<, :<=, :>, :>=]
  @number_max 0xFFFF_FFFF_FFFF_FFFF
  @depth_max 32
  @parts_max 63

  @doc false
  defguard is_number_of(op, n) when op in @relations and is_integer(n) and n in 0..@number_max

  @doc """
  What the Rust library takes for a pattern.

      iex> Tank.Store.Pattern.encode([:pods, :*])
      {:ok, [one: {:is, <<1, "pods", 0>>}, one: :any]}
      iex> Tank.Store.Pattern.encode(:pods)
      {:error, {:invalid_pattern, ":pods is not a list"}}
  """
  @spec encode(t) :: {:ok, [{:one | :many, term}]} | {:error, {:invalid_pattern, String.t()}}
  def encode(pattern) when is_list(pattern) do
    if List.improper?(pattern), do: invalid(pattern, "a proper list")
    {:ok, Enum.map(pattern, &part/1)}
  catch
    {__MODULE__, why} -> {:error, {:invalid_pattern, why}}
  end

  def encode(other), do: {:error, {:invalid_pattern, "#{inspect(other)} is not a list"}}

  @doc false
  # A condition by itself, as the Rust library takes it.
  @spec encode_condition(Path.component() | condition) :: {:ok, term} | {:error, {:invalid_pattern, String.t()}}
  def encode_condition(condition) do
    {:ok, condition(condition, @depth_max)}
  catch
    {__MODULE__, why} -> {:error, {:invalid_pattern, why}}
  end

  @doc false
  # The pattern that an encoded one was made of, or one that matches the same.
  @spec decode([{:one | :many, term}]) :: t
  def decode(parts), do: Enum.map(parts, &decode_part/1)

  @doc false
  @spec decode_condition(term) :: Path.component() | condition
  def decode_condition(:any), do: :*
  def decode_condition(:has_data), do: :has_data

  def decode_condition({:is, encoded}) do
    {:ok, [name]} = Path.of_key(encoded)
    if name in [:*, :**, :has_data], do: {:is, name}, else: name
  end

  def decode_condition({:name, source}), do: {:name_matches, source}
  def decode_condition({:payload, payload}), do: {:data, :erlang.binary_to_term(payload)}
  def decode_condition({:not, condition}), do: {:not, decode_condition(condition)}
  def decode_condition({:all, conditions}), do: {:all, Enum.map(conditions, &decode_condition/1)}
  def decode_condition({:any_of, conditions}), do: {:any, Enum.map(conditions, &decode_condition/1)}
  def decode_condition({number, op, n}), do: {number, op, n}
  def decode_condition({kind, n}), do: {kind, n}

  defp decode_part({:one, condition}), do: decode_condition(condition)
  defp decode_part({:many, :any}), do: :**
  defp decode_part({:many, {:all, conditions}}), do: {:all, [:** | Enum.map(conditions, &decode_condition/1)]}

  @doc false
  # The encoded pattern of one path; see `below/2` for one that is too deep.
  @spec exactly(Path.t()) :: [{:one | :many, term}]
  def exactly(path) when length(path) <= @parts_max, do: Enum.map(path, &{:one, {:is, Path.child_key("", &1)}})
  def exactly(path), do: below(path, :many)

  @doc false
  # The encoded pattern of what is directly below a path, or, with `:many`, at any depth. A path that is too deep for that
  # is cut: then the pattern matches more.
  @spec below(Path.t(), :one | :many) :: [{:one | :many, term}]
  def below(path, levels) do
    {names, rest} = path |> Enum.map(&{:one, {:is, Path.child_key("", &1)}}) |> Enum.split(@parts_max - 1)
    names ++ [{if(rest == [], do: levels, else: :many), :any}]
  end

  @doc false
  # What a watch is about, as the Rust library takes it: a path stands for all at it and below, a pattern for what it
  # matches.
  @spec prefix_or_pattern(t) ::
          {:ok, Tank.Store.Native.prefix_or_pattern()}
          | {:error, {:invalid_path, String.t()} | {:invalid_pattern, String.t()}}
  def prefix_or_pattern(path) do
    if not path?(path) and is_list(path) and not List.improper?(path) and Enum.any?(path, &condition?/1) do
      with {:ok, parts} <- encode(path), do: {:ok, if(names?(parts), do: prefix(parts), else: parts)}
    else
      Path.to_key(path)
    end
  end

  @doc false
  # Whether it is a list of names and nothing else: what nearly everybody asks for, told in one pass.
  @spec path?(term) :: boolean
  def path?([name | rest]) when is_binary(name), do: path?(rest)
  def path?([name | rest]) when is_atom(name) and name not in [:*, :**, :has_data], do: path?(rest)
  def path?(rest), do: rest == []

  @doc false
  # The key of the path that all matches of an encoded pattern are at or below.
  @spec prefix([{:one | :many, term}]) :: binary
  def prefix(parts) do
    for {:one, {:is, name}} <- Enum.take_while(parts, &match?({:one, {:is, _name}}, &1)), into: "", do: name
  end

  @doc false
  # The bytes that an encoded pattern carries, about.
  @spec size([{:one | :many, term}]) :: non_neg_integer
  def size(parts), do: :erlang.external_size(parts)

  defp condition?(part), do: is_tuple(part) or part in [:*, :**, :has_data]

  # `{:is, component}` is the component.
  defp names?(parts), do: Enum.all?(parts, &match?({:one, {:is, _name}}, &1))

  defp part(:**), do: {:many, :any}

  defp part({:all, conditions} = all) when is_list(conditions) do
    if List.improper?(conditions), do: invalid(all, "a condition")

    case Enum.split_with(conditions, &(&1 == :**)) do
      {[], conditions} -> {:one, {:all, conditions(conditions, @depth_max)}}
      {_many, conditions} -> {:many, {:all, conditions(conditions, @depth_max)}}
    end
  end

  defp part(component), do: {:one, condition(component, @depth_max)}

  defp conditions(list, depth), do: Enum.map(list, &condition(&1, depth - 1))

  defp condition(other, 0), do: invalid(other, "allowed here: conditions stand in each other too deeply")
  defp condition(:*, _depth), do: :any
  defp condition(:has_data, _depth), do: :has_data
  defp condition(:**, _depth), do: invalid(:**, "allowed here: it stands by itself, or in {:all, [:**, condition]}")
  defp condition(name, _depth) when is_atom(name) or is_binary(name), do: {:is, Path.child_key("", name)}
  defp condition({:is, name}, _depth) when is_atom(name) or is_binary(name), do: {:is, Path.child_key("", name)}
  defp condition({:name_matches, regex}, _depth), do: {:name, regex(regex)}
  defp condition({:data, value}, _depth), do: {:payload, Call.encode(value)}
  defp condition({:version, op, n}, _depth) when is_number_of(op, n), do: {:version, op, n}

  defp condition({kind, op, n}, _depth)
       when kind in [:child_count, :payload_version, :child_list_version] and is_number_of(op, n),
       do: {kind, op, n}

  defp condition({:kind, n}, _depth) when n in 0..255, do: {:kind, n}
  defp condition({:not, condition}, depth), do: {:not, condition(condition, depth - 1)}

  defp condition({kind, list} = both, depth) when kind in [:all, :any] and is_list(list) do
    if List.improper?(list), do: invalid(both, "a condition")
    {if(kind == :any, do: :any_of, else: :all), conditions(list, depth)}
  end

  defp condition(other, _depth), do: invalid(other, "a condition")

  defp regex(%Regex{} = regex), do: flags(Regex.opts(regex)) <> Regex.source(regex)
  defp regex(source) when is_binary(source), do: if(String.valid?(source), do: source, else: invalid(source, "UTF-8"))
  defp regex(other), do: invalid(other, "a regular expression")

  defp flags([]), do: ""
  defp flags(""), do: ""
  defp flags(letters) when is_binary(letters), do: flags(String.graphemes(letters))
  defp flags(options), do: "(?" <> Enum.map_join(options, &flag/1) <> ")"

  defp flag(option) when option in [:caseless, "i"], do: "i"
  defp flag(option) when option in [:multiline, "m"], do: "m"
  defp flag(option) when option in [:dotall, "s"], do: "s"
  defp flag(option) when option in [:extended, "x"], do: "x"
  defp flag(option) when option in [:ungreedy, "U"], do: "U"
  # `s` in a Regex also sets how line ends are found.
  defp flag({:newline, :anycrlf}), do: ""
  defp flag(option), do: invalid(option, "an option of regular expressions that is known here")

  defp invalid(term, what), do: throw({__MODULE__, "#{inspect(term)} is not #{what}"})
end
