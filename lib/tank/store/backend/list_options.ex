defmodule Tank.Store.Backend.ListOptions do
  @moduledoc """
  Which keys to list or to watch, and how to read them: one kind of resource among others in a store.

    * `:root` - where the keys of this kind are, `[]` by default: all. Whole components count: `["a"]` and what is below
      it, never `["ab"]`.
    * `:fields` - the parts of a key below the root, in their order, with the value that each must have; nil takes any:
      `[host: "host-1", name: nil]`. Keys with more or fewer parts are of another kind. Without fields, any depth.
    * `:name_prefix` - what the last part of the key must begin with.
    * `:revision` - list as of that revision; nil for now.
    * `:parse` - reads a value: `fun.(value)` or `fun.(key, value)` gives `{:ok, parsed}`, `:ignore` for a key of another
      kind, or anything else for a value that cannot be read (raising is fine). Without it values are taken as they are.

  Functions take the struct, a keyword list of the same, or the root alone.
  """

  alias Tank.Store.Backend.{Key, Revision, ValidationError}

  defstruct root: [], fields: [], name_prefix: nil, revision: nil, parse: nil

  @type t :: %__MODULE__{
          root: [String.t()] | String.t(),
          fields: [{atom, String.t() | nil}],
          name_prefix: String.t() | nil,
          revision: Revision.t() | nil,
          parse: nil | (term -> term) | (Key.t(), term -> term)
        }

  @doc """
  Checks options, and gives them as a struct.

      iex> {:ok, options} = Tank.Store.Backend.ListOptions.new(root: "/endpoints", fields: [host: "a", name: nil])
      iex> options.root
      ["endpoints"]
      iex> {:error, error} = Tank.Store.Backend.ListOptions.new(rot: [])
      iex> Exception.message(error)
      "list_options :rot is no option; there are [:root, :fields, :name_prefix, :revision, :parse]"
  """
  @spec new(t | keyword | [String.t()] | String.t()) :: {:ok, t} | {:error, Exception.t()}
  def new(%__MODULE__{} = options), do: check(options)
  def new(root) when is_binary(root), do: check(%__MODULE__{root: root})
  def new([part | _rest] = root) when is_binary(part), do: check(%__MODULE__{root: root})
  def new(options) when is_list(options), do: from_keyword(options, Keyword.keyword?(options))
  def new(other), do: from_keyword(other, false)

  @doc """
  The longest path that all keys begin with which these options take.

      iex> Tank.Store.Backend.ListOptions.base(%Tank.Store.Backend.ListOptions{root: ["e"], fields: [host: "a", name: nil]})
      ["e", "a"]
  """
  @spec base(t) :: [String.t()]
  def base(%__MODULE__{root: root, fields: fields}) do
    root ++ (fields |> Keyword.values() |> Enum.take_while(&(&1 != nil)))
  end

  @doc """
  Whether these options take a key. Of what stands in a store under names that are no strings, nothing is a key.

      iex> options = %Tank.Store.Backend.ListOptions{root: ["e"], fields: [host: nil, name: "eth0"]}
      iex> Tank.Store.Backend.ListOptions.match?(options, ["e", "host-1", "eth0"])
      true
      iex> Tank.Store.Backend.ListOptions.match?(options, ["e", "host-1", "eth0", "stats"])
      false
  """
  @spec match?(t, Key.t()) :: boolean
  def match?(_options, []), do: false

  def match?(%__MODULE__{} = options, key) do
    case below(options.root, key) do
      {:ok, rest} ->
        Enum.all?(rest, &is_binary/1) and fields?(options.fields, rest) and name?(options.name_prefix, key)

      :error ->
        false
    end
  end

  @doc "Reads the value of a key that these options take."
  @spec read(t, Key.t(), term) :: {:ok, term} | :ignore | :error
  def read(%__MODULE__{parse: nil}, _key, value), do: {:ok, value}

  def read(%__MODULE__{parse: parse}, key, value) do
    case if(is_function(parse, 1), do: parse.(value), else: parse.(key, value)) do
      {:ok, parsed} when parsed != nil -> {:ok, parsed}
      :ignore -> :ignore
      _other -> :error
    end
  rescue
    # Whatever stands in a store must not stop who reads it.
    _error -> :error
  end

  defp below([], rest), do: {:ok, rest}
  defp below([part | root], [part | key]), do: below(root, key)
  defp below(_root, _key), do: :error

  defp fields?([], _rest), do: true

  defp fields?(fields, rest) do
    length(fields) == length(rest) and
      Enum.all?(Enum.zip(Keyword.values(fields), rest), fn {value, part} -> value in [nil, part] end)
  end

  defp name?(nil, _key), do: true
  defp name?(prefix, key), do: key |> List.last() |> String.starts_with?(prefix)

  defp from_keyword(options, true) do
    case Keyword.keys(options) -- names() do
      [] -> check(struct!(__MODULE__, options))
      [unknown | _rest] -> invalid(:list_options, unknown, "is no option; there are #{inspect(names())}")
    end
  end

  defp from_keyword(other, false), do: invalid(:list_options, other, "are neither a struct, a keyword list nor a root")

  defp names, do: [:root, :fields, :name_prefix, :revision, :parse]

  defp check(options) do
    with {:ok, root} <- Key.parse_root(options.root),
         {:ok, _revision} <- Revision.parse(options.revision),
         :ok <- check_fields(options.fields),
         :ok <- check_prefix(options.name_prefix),
         :ok <- check_parse(options.parse),
         do: {:ok, %{options | root: root}}
  end

  defp check_fields(fields) do
    if Keyword.keyword?(fields) and
         Enum.all?(fields, fn {_name, part} -> part == nil or (is_binary(part) and part != "") end),
       do: :ok,
       else: invalid(:fields, fields, "is not a keyword list of strings and nil")
  end

  defp check_prefix(prefix) when is_binary(prefix) or prefix == nil, do: :ok
  defp check_prefix(prefix), do: invalid(:name_prefix, prefix, "is not a string")

  defp check_parse(parse) when parse == nil or is_function(parse, 1) or is_function(parse, 2), do: :ok
  defp check_parse(parse), do: invalid(:parse, parse, "is no function of one argument or two")

  defp invalid(field, value, why), do: {:error, %ValidationError{field: field, value: value, why: why}}
end
