defmodule Tank.Store.Backup.Export do
  @moduledoc false
  # The text of a store. What it looks like: Tank.Store.Backup.export/3.

  alias Tank.Store.Backup.Lines
  alias Tank.Store.{Call, Error, Native}

  @head "%% tank_store export, format 3"
  @end_mark "%% end"
  @page_bytes 1024 * 1024
  # Printing and parsing takes a microsecond and 200 bytes of memory for each byte: larger values have no text, and are
  # written at the speed of the disk. What encodes them takes a dirty scheduler, which a small value is not worth.
  @text_bytes_max 64 * 1024
  # Nobody reads longer binaries that are no text, and their numbers take four times the space.
  @bytes_read 64

  @spec run(Native.pinned(), non_neg_integer, non_neg_integer, String.t(), fun) :: {:ok, map} | {:error, Error.reason()}
  def run(pinned, revision, count, path, progress) do
    Lines.write(path, fn write ->
      with :ok <- write.("#{@head}, revision #{revision}\n"),
           {:ok, done, skipped} <- pages(pinned, nil, write, {0, 0}, count, progress),
           :ok <- write.(pinned |> Native.pinned_nodes() |> node_lines()),
           :ok <- write.("#{@end_mark}, #{done} entries\n"),
           do: {:ok, %{revision: revision, entries: done, skipped: skipped}}
    end)
  end

  defp pages(pinned, from, write, done, count, progress) do
    case Native.page(pinned, from, @page_bytes) do
      {:error, reason} -> {:error, Error.public(reason)}
      {page, next} -> write_page(pinned, {page, next}, write, done, count, progress)
    end
  end

  defp write_page(pinned, {page, next}, write, {done, skipped}, count, progress) do
    lines = for {path, payload, 0} <- page, do: line(path, payload)
    {done, skipped} = {done + length(lines), skipped + length(page) - length(lines)}
    # Pages are binaries of megabytes, which the process' own small heap does not count.
    :erlang.garbage_collect()
    progress.(done + skipped, count)

    case write.(lines) do
      :ok when next == nil -> {:ok, done, skipped}
      :ok -> pages(pinned, next, write, {done, skipped}, count, progress)
      error -> error
    end
  end

  # Conditions last: they must hold when they are written.
  defp node_lines(nodes) do
    bare = for {path, true, _kind, _source} <- nodes, do: ["{node,", text(path), "}.\n"]

    kinds = for {path, _bare?, kind, _source} <- nodes, kind != nil, do: ["{kind,", text(path), ",#{kind}}.\n"]

    kept =
      for {path, _bare?, _kind, source} <- nodes, source != nil do
        ["{keep_while,", text(path), ~s(,<<"), Base.encode64(source), ~s(">>}.\n)]
      end

    [bare, kinds | kept]
  end

  defp line(path, payload) do
    path = text(path)

    case value_text(payload) do
      {:ok, value} -> ["{", path, ",", value, "}.\n"]
      :none -> ["{", path, ~s(,etf,<<"), encode(payload), ~s(">>}.\n)]
    end
  end

  defp encode(payload) when byte_size(payload) > @text_bytes_max, do: Native.encode_base64(payload)
  defp encode(payload), do: Base.encode64(payload)

  @doc "The payload that a line has as Base64."
  @spec decode(binary) :: {:ok, binary} | :error
  def decode(text) when byte_size(text) > @text_bytes_max, do: Native.decode_base64(text)
  def decode(text), do: Base.decode64(text)

  # Only a text that gives the very same bytes is one: that of a pid, of -0.0 or of a very old encoding is not.
  defp value_text(payload) when byte_size(payload) > @text_bytes_max, do: :none
  # Compressed: its value may be any size.
  defp value_text(<<131, 80, _rest::binary>>), do: :none

  defp value_text(payload) do
    value = :erlang.binary_to_term(payload)
    if readable?(value), do: same_text(text(value), payload), else: :none
  rescue
    ArgumentError -> :none
  end

  defp same_text(text, payload) do
    case parse(text <> ".") do
      {:ok, term} -> if Call.encode(term) == payload, do: {:ok, text}, else: :none
      :error -> :none
    end
  end

  defp readable?(value) when is_binary(value), do: byte_size(value) <= @bytes_read or String.printable?(value)
  defp readable?([first | rest]), do: readable?(first) and readable?(rest)
  defp readable?(value) when is_tuple(value), do: value |> Tuple.to_list() |> readable?()
  defp readable?(value) when is_map(value), do: value |> :maps.to_list() |> readable?()
  defp readable?(_value), do: true

  defp text(term), do: "~0tp" |> :io_lib.format([term]) |> :unicode.characters_to_binary()

  @doc "The term that a line of text is."
  @spec parse(binary) :: {:ok, term} | :error
  def parse(text) do
    with chars when is_list(chars) <- :unicode.characters_to_list(text), do: parse_chars(chars), else: (_bad -> :error)
  end

  @doc "The same, of characters."
  @spec parse_chars(charlist) :: {:ok, term} | :error
  def parse_chars(chars) do
    with {:ok, tokens, _line} <- :erl_scan.string(chars),
         {:ok, term} <- :erl_parse.parse_term(tokens) do
      {:ok, term}
    else
      _not_a_term -> :error
    end
  rescue
    # Both raise for some of what nobody writes, such as a binary of a size that makes no sense.
    _error -> :error
  end

  defmodule Reader do
    @moduledoc false
    # Reads what the module around it wrote.

    alias Tank.Store.Backup.{Export, Lines}
    alias Tank.Store.Call

    # Format 1 has entries only, format 2 no kinds of values.
    @heads for format <- 1..3, do: "%% tank_store export, format #{format}"
    @end_mark "%% end"

    # What a value without a text is written between.
    @etf_begin ~s(,etf,<<")
    @etf_end ~s(">>}.\n)

    # Garbage that is worth collecting at once.
    @large 1024 * 1024

    @doc "Folds over the entries of a file."
    def fold(path, acc, fun) do
      case Lines.fold(path, {:head, acc}, &line(&1, &2, &3, fun)) do
        {:ok, {{:ended, _line}, acc}} -> {:ok, acc, %{}}
        {:ok, {:head, _acc}} -> {:error, {:malformed, 1}}
        {:ok, {{:body, line}, _acc}} -> {:error, {:malformed, line + 1}}
        other -> other
      end
    end

    defp line(line, 1, {:head, acc}, _fun),
      do: if(String.starts_with?(line, @heads), do: {:cont, {{:body, 1}, acc}}, else: malformed(1))

    defp line(_line, number, {:head, _acc}, _fun), do: malformed(number)
    defp line("\n", number, {{:body, _last}, acc}, _fun), do: {:cont, {{:body, number}, acc}}
    defp line(@end_mark <> _rest, number, {{:body, _last}, acc}, _fun), do: {:cont, {{:ended, number}, acc}}
    defp line("%" <> _comment, number, {{:body, _last}, acc}, _fun), do: {:cont, {{:body, number}, acc}}
    defp line(_line, number, {{:ended, _last}, _acc}, _fun), do: malformed(number)

    defp line(line, number, {{:body, _last}, acc}, fun) do
      with {:ok, kind, path, payload} <- read(line),
           {:ok, key} <- Tank.Store.Path.to_key(path),
           :ok <- decodes(kind, path, payload),
           {:cont, acc} <- fun.(key, payload, acc) do
        if byte_size(line) > @large, do: :erlang.garbage_collect()
        {:cont, {{:body, number}, acc}}
      else
        {:halt, result} -> {:halt, result}
        {:invalid_value, path} -> {:halt, {:error, {:invalid_value, number, path}}}
        _bad -> malformed(number)
      end
    end

    # A line of the term `{Path, etf, Base64}` as it was written is not parsed but for its path: it may be large.
    defp read(line) do
      with {:ok, path, encoded} <- split(line),
           {:ok, path} when is_list(path) <- Export.parse(path <> "."),
           {:ok, payload} <- Export.decode(encoded) do
        {:ok, :etf, path, payload}
      else
        _another_form -> with {:ok, term} <- Export.parse(line), do: entry(term)
      end
    end

    # Base64 has no quotation marks, and the path may have anything: the last beginning counts.
    defp split(line) do
      ends_at = byte_size(line) - byte_size(@etf_end)

      with true <- String.starts_with?(line, "{") and String.ends_with?(line, @etf_end),
           [_one | _more] = begins <- :binary.matches(line, @etf_begin),
           {begin, length} = List.last(begins),
           true <- begin + length <= ends_at do
        {:ok, binary_part(line, 1, begin - 1), binary_part(line, begin + length, ends_at - begin - length)}
      else
        _another_form -> :error
      end
    end

    # What does not decode would make each list of its part of the store fail, for good.
    defp decodes(:node, _path, _node_or_kind), do: :ok

    defp decodes(:etf, path, {:keep_while, source}) do
      with :ok <- decodes(:etf, path, source) do
        # What each source is: Tank.Store.Tree.KeepWhile.
        term = :erlang.binary_to_term(source)
        if is_tuple(term) and tuple_size(term) > 1 and is_list(elem(term, 1)), do: :ok, else: {:invalid_value, path}
      end
    end

    defp decodes(:etf, path, payload) do
      {_value, used} = :erlang.binary_to_term(payload, [:used])
      if used == byte_size(payload), do: :ok, else: {:invalid_value, path}
    rescue
      ArgumentError -> {:invalid_value, path}
    end

    # It was a term, and has just been encoded.
    defp decodes(:term, _path, _payload), do: :ok

    defp entry({path, :etf, encoded}) when is_list(path) and is_binary(encoded) do
      with {:ok, payload} <- Export.decode(encoded), do: {:ok, :etf, path, payload}
    end

    defp entry({:node, path}) when is_list(path), do: {:ok, :node, path, :node}

    # Kinds of their own begin at 2 (`Tank.Khepri`'s stored procedures); the last byte is none.
    defp entry({:kind, path, kind}) when is_list(path) and kind in 2..254, do: {:ok, :node, path, {:kind, kind}}

    defp entry({:keep_while, path, encoded}) when is_list(path) and is_binary(encoded) do
      with {:ok, source} <- Base.decode64(encoded), do: {:ok, :etf, path, {:keep_while, source}}
    end

    defp entry({path, value}) when is_list(path), do: {:ok, :term, path, Call.encode(value)}
    defp entry(_other), do: :error

    defp malformed(number), do: {:halt, {:error, {:malformed, number}}}
  end
end
