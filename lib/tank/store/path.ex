defmodule Tank.Store.Path do
  @moduledoc """
  Paths: lists of atoms and strings that name the entries of a store.

  `:a` and `"a"` are different components; `[]` is the root. A string component may hold any bytes, also none, a
  slash, a zero byte, or what is not UTF-8. A component is at most 255 bytes long, a path 1 KiB, unless
  the store's options say otherwise (`:path_component_bytes_max`, `:path_bytes_max`).
  """

  import Kernel, except: [to_string: 1]

  @type component :: atom | String.t()
  @type t :: [component]

  # The encoding that native/tank_engine/src/key.rs describes; keys sort as paths do.
  @atom 1
  @string 2
  @stop 0

  @wildcards [:*, :**, :has_data]

  @doc """
  The key of a path: its encoding, as the engine takes it.

      iex> Tank.Store.Path.to_key([:pods, "web"])
      {:ok, <<1, "pods", 0, 2, "web", 0>>}
      iex> Tank.Store.Path.to_key([:pods, 7])
      {:error, {:invalid_path, "component 7 is neither an atom nor a string"}}
      iex> Tank.Store.Path.to_key("pods/web")
      {:error, {:invalid_path, "\\"pods/web\\" is not a list of atoms and strings"}}

  `:*`, `:**` and `:has_data` match nodes in a pattern (`Tank.Store.Pattern`) and are no names of a node, so that a
  function of one node does not take a pattern by mistake.

      iex> {:error, {:invalid_path, why}} = Tank.Store.Path.to_key([:users, :*])
      iex> why
      ":* stands for many nodes, and here a path names one: patterns are for get_many, put_many, delete_many, clear, " <>
        "count, stream and list_since"
  """
  @spec to_key(t) :: {:ok, binary} | {:error, {:invalid_path, String.t()}}
  def to_key(path) when is_list(path) do
    # A list of parts that is made a binary at once: adding to a binary, part by part, takes twice as long.
    if names?(path), do: {:ok, path |> encoded() |> IO.iodata_to_binary()}, else: invalid(path, path)
  end

  def to_key(path), do: {:error, {:invalid_path, "#{inspect(path)} is not a list of atoms and strings"}}

  @doc false
  # The key of a path that a store gave. Unlike what a caller means by `:*`, its atoms are nothing but names.
  @spec to_stored_key(t) :: binary
  def to_stored_key(path), do: path |> encoded() |> IO.iodata_to_binary()

  @doc false
  # The path of a key. Its atoms are made: a store gives back what was put into it.
  @spec of_key(binary) :: {:ok, t}
  def of_key(key), do: {:ok, key |> :binary.split(<<@stop>>, [:global]) |> List.delete_at(-1) |> Enum.map(&of_part/1)}

  defp of_part(<<@string, text::binary>>), do: unescape(text)
  defp of_part(<<@atom, text::binary>>), do: text |> unescape() |> String.to_atom()

  defp unescape(text),
    do: text |> :binary.replace(<<1, 1>>, <<0>>, [:global]) |> :binary.replace(<<1, 2>>, <<1>>, [:global])

  @doc """
  The key of the child `name` of the path with the key `parent`.

      iex> Tank.Store.Path.child_key(<<1, "pods", 0>>, "web")
      <<1, "pods", 0, 2, "web", 0>>
  """
  @spec child_key(binary, component) :: binary
  def child_key(parent, name) when is_binary(name), do: <<parent::binary, @string, escape(name)::binary, @stop>>

  def child_key(parent, name) when is_atom(name),
    do: <<parent::binary, @atom, escape(Atom.to_string(name))::binary, @stop>>

  @doc """
  The path of a string such as `/:pods/web`: components between slashes, an atom's with a colon before it.

  `%` and two hexadecimal digits stand for any byte; `""` is the empty string. Repeated slashes count as one, and
  the one at the beginning may be missing. `.` and `..` are names as any other.

  Only atoms that exist are taken, since atoms are never freed: `{:error, {:unknown_atom, name}}` otherwise. For
  strings that can be trusted, `atoms: :create` makes them. Other errors are `{:error, {:invalid_path, why}}`.

      iex> Tank.Store.Path.from_string("/:pods/web%20server")
      {:ok, [:pods, "web server"]}
      iex> Tank.Store.Path.from_string("/")
      {:ok, []}
      iex> Tank.Store.Path.from_string("/:no_such_atom_here")
      {:error, {:unknown_atom, "no_such_atom_here"}}
      iex> Tank.Store.Path.from_string("/100%")
      {:error, {:invalid_path, "two hexadecimal digits follow a % in \\"100%\\""}}
  """
  @spec from_string(String.t(), atoms: :existing | :create) ::
          {:ok, t} | {:error, {:invalid_path, String.t()} | {:unknown_atom, String.t()}}
  def from_string(string, opts \\ []) when is_binary(string) do
    atoms = Keyword.get(opts, :atoms, :existing)
    if atoms not in [:existing, :create], do: raise(ArgumentError, "atoms: is :existing or :create")

    string |> split() |> parse_all(atoms, [])
  end

  @doc false
  # The key of such a string, which makes no atoms: for looking up what may not be there.
  @spec string_to_key(String.t()) :: {:ok, binary} | {:error, {:invalid_path, String.t()}}
  def string_to_key(string) do
    with {:ok, names} <- string |> split() |> parse_all(:names, []),
         do: {:ok, names |> encoded() |> IO.iodata_to_binary()}
  end

  @doc """
  The string of a path, which `from_string/2` reads. Raises `ArgumentError` for what is no path.

      iex> Tank.Store.Path.to_string([:pods, "web server", ""])
      ~s(/:pods/web%20server/"")
      iex> Tank.Store.Path.to_string([])
      "/"
  """
  @spec to_string(t) :: String.t()
  def to_string([]), do: "/"

  def to_string(path) do
    # Paths that a store gave are printed too, whatever atoms are in them.
    case to_key(if(is_list(path), do: Enum.reject(path, &(&1 in @wildcards)), else: path)) do
      {:ok, _key} -> Enum.map_join(path, &("/" <> print(&1)))
      {:error, {:invalid_path, why}} -> raise ArgumentError, why
    end
  end

  @doc false
  # A component as the library gives it. The atoms are those that a caller once wrote: a store gives back what was
  # put into it, also to a VM that was just started.
  @spec component(:atom | :string, binary) :: component
  def component(:string, name), do: name
  def component(:atom, name), do: String.to_atom(name)

  defp split(string), do: string |> :binary.split("/", [:global]) |> Enum.reject(&(&1 == ""))

  defp parse_all([], _atoms, path), do: {:ok, Enum.reverse(path)}

  defp parse_all([text | rest], atoms, path) do
    with {:ok, component} <- parse(text, atoms), do: parse_all(rest, atoms, [component | path])
  end

  defp parse(~s(""), _atoms), do: {:ok, ""}
  defp parse(":" <> name, atoms), do: with({:ok, name} <- decode(name, name, ""), do: to_atom(name, atoms))
  defp parse(text, _atoms), do: decode(text, text, "")

  defp decode("", _text, decoded), do: {:ok, decoded}

  defp decode("%" <> rest, text, decoded) do
    with <<digits::binary-2, rest::binary>> <- rest,
         {:ok, byte} <- Base.decode16(digits, case: :mixed) do
      decode(rest, text, decoded <> byte)
    else
      _other -> {:error, {:invalid_path, "two hexadecimal digits follow a % in #{inspect(text)}"}}
    end
  end

  defp decode(<<byte, rest::binary>>, text, decoded), do: decode(rest, text, <<decoded::binary, byte>>)

  defp to_atom(name, atoms) do
    cond do
      not String.valid?(name) -> {:error, {:invalid_path, "an atom is valid UTF-8, and #{inspect(name)} is not"}}
      String.length(name) > 255 -> {:error, {:invalid_path, "an atom has at most 255 characters"}}
      atoms == :create -> {:ok, String.to_atom(name)}
      atoms == :names -> {:ok, {:atom, name}}
      true -> existing_atom(name)
    end
  end

  defp existing_atom(name) do
    {:ok, String.to_existing_atom(name)}
  rescue
    ArgumentError -> {:error, {:unknown_atom, name}}
  end

  defp print(""), do: ~s("")
  defp print(name) when is_atom(name), do: ":" <> encode(Atom.to_string(name))
  defp print(name), do: encode(name)

  defp encode(name), do: URI.encode(name, &URI.char_unreserved?/1)

  defp names?([name | rest]) when is_binary(name), do: names?(rest)
  defp names?([name | rest]) when is_atom(name) and name not in @wildcards, do: names?(rest)
  defp names?(rest), do: rest == []

  defp encoded([name | rest]) when is_binary(name), do: [@string, escape(name), @stop | encoded(rest)]
  defp encoded([{:atom, name} | rest]), do: [@atom, escape(name), @stop | encoded(rest)]
  defp encoded([name | rest]), do: [@atom, escape(Atom.to_string(name)), @stop | encoded(rest)]
  defp encoded([]), do: []

  defp invalid([wildcard | _rest], _path) when wildcard in @wildcards, do: many(wildcard)
  defp invalid([name | rest], path) when is_binary(name) or is_atom(name), do: invalid(rest, path)
  defp invalid([condition | _rest], _path) when is_tuple(condition), do: many(condition)

  defp invalid([other | _rest], _path),
    do: {:error, {:invalid_path, "component #{inspect(other)} is neither an atom nor a string"}}

  defp invalid(_improper, path), do: {:error, {:invalid_path, "#{inspect(path)} is not a proper list"}}

  defp many(condition) do
    why =
      "#{inspect(condition)} stands for many nodes, and here a path names one: patterns are for get_many, put_many, " <>
        "delete_many, clear, count, stream and list_since"

    {:error, {:invalid_path, why}}
  end

  # Names hardly ever hold one of the two bytes: looking first costs less than building the name anew. And looking
  # byte by byte costs less than `:binary.match/2`, which makes its search tables for each call.
  defp escape(name), do: if(plain?(name), do: name, else: for(<<byte <- name>>, into: "", do: escape_byte(byte)))

  defp plain?(<<a, b, c, d, rest::binary>>) when a > 1 and b > 1 and c > 1 and d > 1, do: plain?(rest)
  defp plain?(<<byte, rest::binary>>) when byte > 1, do: plain?(rest)
  defp plain?(rest), do: rest == ""

  defp escape_byte(byte) when byte <= 1, do: <<1, byte + 1>>
  defp escape_byte(byte), do: <<byte>>
end
