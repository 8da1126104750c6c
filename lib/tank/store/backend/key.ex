defmodule Tank.Store.Backend.Key do
  @moduledoc """
  Keys of `Tank.Store.Backend`: lists of strings, none of them empty; and their form as one string, a path.

  In a path `%` is written `%25` and `/` is written `%2f`, so that a component may hold both. A key with a part that is
  missing (nil or `""`), and the key without any part, name nothing: `Tank.Store.Backend.InsufficientIdentifiers`.
  """

  alias Tank.Store.Backend.{InsufficientIdentifiers, ValidationError}

  @type t :: [String.t(), ...]

  @doc """
  A key from a list, or from the path that a string holds.

      iex> Tank.Store.Backend.Key.parse(["endpoints", "eth0"])
      {:ok, ["endpoints", "eth0"]}
      iex> Tank.Store.Backend.Key.parse("/endpoints/eth%2f0")
      {:ok, ["endpoints", "eth/0"]}
      iex> {:error, error} = Tank.Store.Backend.Key.parse(["endpoints", nil])
      iex> Exception.message(error)
      "insufficient identifiers in key [\\"endpoints\\", nil]: part 2 is missing"
  """
  @spec parse(t | String.t()) :: {:ok, t} | {:error, Exception.t()}
  def parse([]), do: {:error, %InsufficientIdentifiers{key: [], part: 1}}

  def parse(key) do
    with {:ok, parts} <- parse_root(key), do: if(parts == [], do: parse([]), else: {:ok, parts})
  end

  @doc """
  The same for a root, which may also be the empty list: all keys are below it.

      iex> Tank.Store.Backend.Key.parse_root("/")
      {:ok, []}
  """
  @spec parse_root([String.t()] | String.t()) :: {:ok, [String.t()]} | {:error, Exception.t()}
  def parse_root(path) when is_binary(path), do: path |> from_path() |> parse_root()

  def parse_root(parts) when is_list(parts) do
    if List.improper?(parts), do: invalid(parts), else: check(parts)
  end

  def parse_root(other), do: invalid(other)

  @doc """
  The path of a key.

      iex> Tank.Store.Backend.Key.to_path(["endpoints", "eth/0", "100%"])
      "/endpoints/eth%2f0/100%25"
  """
  @spec to_path([String.t()]) :: String.t()
  def to_path(key), do: "/" <> Enum.map_join(key, "/", &escape/1)

  @doc """
  The key of a path.

      iex> Tank.Store.Backend.Key.from_path("/endpoints/eth%2f0/100%25")
      ["endpoints", "eth/0", "100%"]
  """
  @spec from_path(String.t()) :: [String.t()]
  def from_path(path) do
    case String.replace_prefix(path, "/", "") do
      "" -> []
      parts -> parts |> :binary.split("/", [:global]) |> Enum.map(&unescape/1)
    end
  end

  defp check(parts) do
    case Enum.find_index(parts, &(&1 in [nil, ""])) do
      nil -> if(Enum.all?(parts, &is_binary/1), do: {:ok, parts}, else: invalid(parts))
      missing -> {:error, %InsufficientIdentifiers{key: parts, part: missing + 1}}
    end
  end

  defp invalid(key), do: {:error, %ValidationError{field: :key, value: key, why: "is not a list of strings"}}

  defp escape(part), do: part |> String.replace("%", "%25") |> String.replace("/", "%2f")

  # The other way round, so that "%252f" becomes "%2f" and nothing more.
  defp unescape(part), do: part |> String.replace(["%2f", "%2F"], "/") |> String.replace("%25", "%")
end
