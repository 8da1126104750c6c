defmodule Tank.Store.Json do
  @moduledoc "JSON, as far as tests need it: OTP has it from 27 on."

  @doc "A term as JSON: maps, lists, strings, numbers, booleans and nil."
  def encode(map) when is_map(map),
    do: "{" <> Enum.map_join(map, ",", fn {key, value} -> encode(to_string(key)) <> ":" <> encode(value) end) <> "}"

  def encode(list) when is_list(list), do: "[" <> Enum.map_join(list, ",", &encode/1) <> "]"
  def encode(nil), do: "null"
  def encode(text) when is_binary(text), do: ~s(") <> for(<<c::utf8 <- text>>, into: "", do: escape(c)) <> ~s(")
  def encode(other) when is_number(other) or is_boolean(other), do: to_string(other)

  defp escape(?"), do: ~S(\")
  defp escape(?\\), do: ~S(\\)
  defp escape(c) when c < 32, do: "\\u" <> (c |> Integer.to_string(16) |> String.pad_leading(4, "0"))
  defp escape(c), do: <<c::utf8>>

  @doc "The term of a JSON text."
  def decode(text) do
    {value, rest} = value(skip(text))
    "" = skip(rest)
    value
  end

  defp value("{" <> rest), do: object(skip(rest), %{})
  defp value("[" <> rest), do: array(skip(rest), [])
  defp value(~s(") <> rest), do: string(rest, [])
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}
  defp value("null" <> rest), do: {nil, rest}

  defp value(text) do
    [number] = Regex.run(~r/^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?/, text, capture: :first)
    rest = binary_part(text, byte_size(number), byte_size(text) - byte_size(number))
    {number(number), rest}
  end

  defp number(text) do
    case Integer.parse(text) do
      {number, ""} -> number
      {number, "." <> _fraction} when is_integer(number) -> text |> Float.parse() |> elem(0)
      {number, exponent} -> "#{number}.0#{exponent}" |> Float.parse() |> elem(0)
    end
  end

  defp object("}" <> rest, map), do: {map, rest}

  defp object(~s(") <> rest, map) do
    {key, rest} = string(rest, [])
    ":" <> rest = skip(rest)
    {value, rest} = value(skip(rest))
    rest |> skip() |> more() |> object(Map.put(map, key, value))
  end

  defp array("]" <> rest, list), do: {Enum.reverse(list), rest}

  defp array(text, list) do
    {value, rest} = value(text)
    rest |> skip() |> more() |> array([value | list])
  end

  defp more("," <> rest), do: skip(rest)
  defp more(text), do: text

  # What comes up to the next quote or backslash is taken at once: screenshots are long strings.
  defp string(text, parts) do
    {at, 1} = :binary.match(text, [~s("), "\\"])
    {part, <<sign, rest::binary>>} = :erlang.split_binary(text, at)
    if sign == ?", do: {IO.iodata_to_binary(Enum.reverse([part | parts])), rest}, else: escaped(rest, [part | parts])
  end

  defp escaped("u" <> <<high::binary-4, "\\u", low::binary-4, rest::binary>>, parts)
       when (high >= "D800" and high < "DC00") or (high >= "d800" and high < "dc00") do
    [high, low] = Enum.map([high, low], &String.to_integer(&1, 16))
    string(rest, [<<0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00::utf8>> | parts])
  end

  defp escaped("u" <> <<code::binary-4, rest::binary>>, parts),
    do: string(rest, [<<String.to_integer(code, 16)::utf8>> | parts])

  for {sign, text} <- [{"n", "\n"}, {"t", "\t"}, {"r", "\r"}, {"b", "\b"}, {"f", "\f"}],
      do: defp(escaped(unquote(sign) <> rest, parts), do: string(rest, [unquote(text) | parts]))

  defp escaped(<<sign, rest::binary>>, parts), do: string(rest, [<<sign>> | parts])

  defp skip(<<space, rest::binary>>) when space in [?\s, ?\n, ?\r, ?\t], do: skip(rest)
  defp skip(text), do: text
end
