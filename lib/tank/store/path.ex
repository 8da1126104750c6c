defmodule Tank.Store.Path do
  @moduledoc """
  Paths: lists of atoms and strings that name the entries of a store.

  `:a` and `"a"` are different components; `[]` is the root. A string component may hold any bytes, also none, a
  slash, a zero byte, or what is not UTF-8. A component is at most 255 bytes long, a path 1 KiB.
  """

  @type component :: atom | String.t()
  @type t :: [component]

  # The encoding that native/tank_engine/src/key.rs describes; keys sort as paths do.
  @atom 1
  @string 2
  @stop 0

  @doc """
  The key of a path: its encoding, as the engine takes it.

      iex> Tank.Store.Path.to_key([:pods, "web"])
      {:ok, <<1, "pods", 0, 2, "web", 0>>}
      iex> Tank.Store.Path.to_key([:pods, 7])
      {:error, {:invalid_path, "component 7 is neither an atom nor a string"}}
      iex> Tank.Store.Path.to_key("pods/web")
      {:error, {:invalid_path, "\\"pods/web\\" is not a list of atoms and strings"}}
  """
  @spec to_key(t) :: {:ok, binary} | {:error, {:invalid_path, String.t()}}
  def to_key(path) when is_list(path), do: append("", path, path)
  def to_key(path), do: {:error, {:invalid_path, "#{inspect(path)} is not a list of atoms and strings"}}

  @doc """
  The key of the child `name` of the path with the key `parent`.

      iex> Tank.Store.Path.child_key(<<1, "pods", 0>>, "web")
      <<1, "pods", 0, 2, "web", 0>>
  """
  @spec child_key(binary, component) :: binary
  def child_key(parent, name) when is_binary(name), do: <<parent::binary, @string, escape(name)::binary, @stop>>

  def child_key(parent, name) when is_atom(name),
    do: <<parent::binary, @atom, escape(Atom.to_string(name))::binary, @stop>>

  @doc false
  # A component as the library gives it. The atoms are those that a caller once wrote: a store gives back what was
  # put into it, also to a VM that was just started.
  @spec component(:atom | :string, binary) :: component
  def component(:string, name), do: name
  def component(:atom, name), do: String.to_atom(name)

  defp append(key, [name | rest], path) when is_binary(name) or is_atom(name),
    do: append(child_key(key, name), rest, path)

  defp append(key, [], _path), do: {:ok, key}

  defp append(_key, [other | _rest], _path),
    do: {:error, {:invalid_path, "component #{inspect(other)} is neither an atom nor a string"}}

  defp append(_key, _improper, path), do: {:error, {:invalid_path, "#{inspect(path)} is not a proper list"}}

  # Names hardly ever hold one of the two bytes: looking first costs less than building the name anew. And looking
  # byte by byte costs less than `:binary.match/2`, which makes its search tables for each call.
  defp escape(name), do: if(plain?(name), do: name, else: for(<<byte <- name>>, into: "", do: escape_byte(byte)))

  defp plain?(<<byte, rest::binary>>) when byte > 1, do: plain?(rest)
  defp plain?(rest), do: rest == ""

  defp escape_byte(byte) when byte <= 1, do: <<1, byte + 1>>
  defp escape_byte(byte), do: <<byte>>
end
