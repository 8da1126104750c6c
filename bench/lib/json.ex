defmodule Tank.Bench.Json do
  @moduledoc "JSON of maps, lists, strings, atoms and numbers. Older VMs have none of their own."

  @doc "The text, one level of the document a line."
  @spec encode(map) :: iodata
  def encode(map), do: [value(map, 2), "\n"]

  defp value(map, lines) when is_map(map) do
    pairs = for {key, value} <- Enum.sort(map), do: [string(to_string(key)), ": ", value(value, lines - 1)]
    bracket(pairs, "{", "}", lines)
  end

  defp value(list, lines) when is_list(list), do: bracket(Enum.map(list, &value(&1, lines - 1)), "[", "]", lines)
  defp value(atom, _lines) when atom in [true, false, nil], do: if(atom == nil, do: "null", else: to_string(atom))
  defp value(number, _lines) when is_integer(number), do: Integer.to_string(number)
  defp value(number, _lines) when is_float(number), do: :erlang.float_to_binary(number, [:compact, decimals: 6])
  defp value(text, _lines), do: string(to_string(text))

  defp bracket(items, open, close, lines) when lines > 0 and items != [],
    do: [open, "\n", Enum.intersperse(items, ",\n"), "\n", close]

  defp bracket(items, open, close, _lines), do: [open, Enum.intersperse(items, ", "), close]

  defp string(text), do: [?", for(<<char::utf8 <- text>>, do: escape(char)), ?"]

  defp escape(char) when char in [?", ?\\], do: [?\\, char]
  defp escape(char) when char < 32, do: :io_lib.format("\\u~4.16.0b", [char])
  defp escape(char), do: <<char::utf8>>
end
