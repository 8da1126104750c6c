defmodule Tank.Store.Dashboard.TermText do
  @moduledoc false
  # Values for people, of their encoding: pretty, and cut. What a value's own `Inspect` hides stays hidden.

  alias Tank.Store.Dashboard.Bounded
  alias Tank.Store.StatusText

  # Encoded values that are decoded for a page, and for a line of a list.
  @page_bytes 1024 * 1024
  @line_bytes 1024

  @page [pretty: true, width: 84, limit: 200, printable_limit: 16_384]
  @line [limit: 12, printable_limit: 80, width: 120]
  # Of a value that is wide on many levels, each element counts many times: then with fewer.
  @few 20
  @page_characters 32_768
  @line_characters 160

  # Printing may take long for a small value, such as one with an `Inspect` of its own.
  @ms 1_000
  @megawords 16

  @doc "How many bytes of an encoded value `page/2` and `line/2` look at."
  @spec page_bytes :: pos_integer
  def page_bytes, do: @page_bytes

  @spec line_bytes :: pos_integer
  def line_bytes, do: @line_bytes

  @doc "A value, of the first bytes of its encoding and how many it has."
  @spec page(binary | nil, non_neg_integer) :: String.t()
  def page(payload, bytes), do: text(payload, bytes, @page, @page_characters)

  @doc "The same on one line."
  @spec line(binary | nil, non_neg_integer) :: String.t()
  def line(payload, bytes), do: payload |> text(bytes, @line, @line_characters) |> String.replace("\n", " ")

  @doc "A term on one line, which is not large."
  @spec of_term(term) :: String.t()
  def of_term(term), do: print(fn -> term end, @line, @line_characters)

  @doc "A component of a path."
  @spec component(Tank.Store.Path.component()) :: String.t()
  def component(component), do: inspect(component, printable_limit: :infinity, limit: :infinity)

  defp text(payload, bytes, opts, characters) when byte_size(payload) == bytes,
    do: print(fn -> :erlang.binary_to_term(payload) end, opts, characters)

  defp text(nil, bytes, _opts, _characters), do: "#{StatusText.bytes(bytes)}, not in memory"

  defp text(payload, bytes, opts, characters),
    do: cut("#{StatusText.bytes(bytes)}: #{beginning(payload, opts)}", characters)

  defp print(term, opts, characters) do
    with {:error, _too_much} <- inspected(term, opts, characters),
         {:error, why} <- inspected(term, Keyword.update!(opts, :limit, &min(&1, @few)), characters) do
      "(a value that #{why(why)})"
    else
      {:ok, text} -> text
    end
  end

  defp inspected(term, opts, characters),
    do: Bounded.run(fn -> term.() |> inspect(opts) |> cut(characters) end, @ms, @megawords)

  defp why(:timeout), do: "takes too long to print"
  defp why(:memory), do: "takes too much memory to print"
  defp why({:crash, _why}), do: "cannot be printed"

  defp cut(text, characters) do
    case String.split_at(text, characters) do
      {text, ""} -> text
      {text, _more} -> text <> " ..."
    end
  end

  # Of the external term format.
  defp beginning(<<131, 109, _bytes::32, text::binary>>, opts),
    do: "a binary that begins with #{inspect(whole(text), opts)}"

  defp beginning(<<131, 107, count::16, _rest::binary>>, _opts), do: "a list of #{count} elements"
  defp beginning(<<131, 108, count::32, _rest::binary>>, _opts), do: "a list of #{count} elements"
  defp beginning(<<131, 104, count, _rest::binary>>, _opts), do: "a tuple of #{count} elements"
  defp beginning(<<131, 105, count::32, _rest::binary>>, _opts), do: "a tuple of #{count} elements"
  defp beginning(<<131, 116, count::32, _rest::binary>>, _opts), do: "a map of #{count} keys"
  defp beginning(_other, _opts), do: "a large term"

  # Without a character that was cut in two.
  defp whole(text) do
    Enum.find_value(0..3, text, fn cut ->
      part = binary_part(text, 0, max(byte_size(text) - cut, 0))
      if String.valid?(part), do: part
    end)
  end
end
