defmodule Tank.Store.Grove.Group do
  @moduledoc false
  # Names of groups: any term becomes one component of a path, the same one on every node and release of Erlang.
  #
  # A name is written in the external term format, with the pairs of maps in the order of their encoded keys, so that
  # terms that are `===` have one encoding, and it can be read back. The options of `:erlang.term_to_binary/2` do not
  # promise that between releases. A longer encoding than a component may be is replaced by its hash; the group itself
  # stands in the value.

  # "t" for a term, "h" for a hash; a component has at most 255 bytes.
  @bytes_max 254

  @doc "The path component of a group."
  @spec to_component(term) :: String.t()
  def to_component(group) do
    case IO.iodata_to_binary([131 | encode(group)]) do
      short when byte_size(short) <= @bytes_max -> "t" <> short
      long -> "h" <> :erlang.md5(long)
    end
  end

  @doc "The group of a component: itself, or `:in_value`, or `:none` for what is no group's."
  @spec from_component(term) :: {:ok, term} | :in_value | :none
  def from_component("t" <> encoded) do
    {:ok, :erlang.binary_to_term(encoded)}
  rescue
    ArgumentError -> :none
  end

  def from_component(<<"h", _hash::binary-size(16)>>), do: :in_value
  def from_component(_other), do: :none

  defp encode(tuple) when is_tuple(tuple) and tuple_size(tuple) <= 255,
    do: [104, tuple_size(tuple) | tuple |> Tuple.to_list() |> Enum.map(&encode/1)]

  defp encode(tuple) when is_tuple(tuple),
    do: [105, <<tuple_size(tuple)::32>> | tuple |> Tuple.to_list() |> Enum.map(&encode/1)]

  defp encode([]), do: [106]

  defp encode(list) when is_list(list) do
    {encoded, length, tail} = elements(list, [], 0)
    [108, <<length::32>>, encoded | encode(tail)]
  end

  defp encode(map) when is_map(map) do
    pairs = for {key, value} <- :maps.to_list(map), do: {IO.iodata_to_binary(encode(key)), encode(value)}
    pairs = for {key, value} <- Enum.sort_by(pairs, &elem(&1, 0)), do: [key, value]
    [116, <<map_size(map)::32>> | pairs]
  end

  # Atoms in UTF-8, on all releases.
  defp encode(other) do
    <<131, encoded::binary>> = :erlang.term_to_binary(other, minor_version: 2)
    [encoded]
  end

  defp elements([head | tail], encoded, length), do: elements(tail, [encoded | encode(head)], length + 1)
  defp elements(tail, encoded, length), do: {encoded, length, tail}
end
