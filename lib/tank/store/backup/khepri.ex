defmodule Tank.Store.Backup.Khepri do
  @moduledoc false
  # Reads what Khepri's `khepri:export/3` writes: `{put, Path, Payload, Options}` for each node, as text (module
  # `khepri_export_erlang`) or in a disk_log (module `mnesia_backup`).

  alias Tank.Store.Backup.{Export, Lines}

  # What a disk_log begins with.
  @disk_log <<1, 2, 3, 4>>

  @doc "Folds over the nodes with a value of a file; gives also how many there are of other kinds."
  def fold(path, acc, fun) do
    state = {acc, %{without_value: 0, functions: 0}}

    folded =
      case kind(path) do
        {:ok, :stream} -> fold_stream(path, state, fun)
        {:ok, :text} -> fold_text(path, state, fun)
        error -> error
      end

    with {:ok, {acc, found}} <- folded, do: {:ok, acc, found}
  end

  defp kind(path) do
    with {:ok, file} <- :file.open(path, [:read, :raw, :binary]) do
      head = :file.read(file, byte_size(@disk_log))
      :ok = :file.close(file)

      case head do
        {:ok, @disk_log} -> {:ok, :stream}
        {:error, _posix} -> {:error, {:file, path}}
        _text_or_empty -> {:ok, :text}
      end
    else
      {:error, _posix} -> {:error, {:file, path}}
    end
  end

  # -- Text. Khepri writes bytes: what is above 127 is a character of Latin-1, unless the file says otherwise.

  defp fold_text(path, state, fun) do
    case Lines.fold(path, {:latin1, [], state}, &line(&1, &2, &3, fun)) do
      {:ok, {_encoding, [], state}} -> {:ok, state}
      {:ok, {_encoding, rest, state}} -> last_line(rest, state)
      other -> other
    end
  end

  defp last_line(rest, state) do
    if rest |> IO.iodata_to_binary() |> String.trim() == "", do: {:ok, state}, else: {:error, {:malformed, :end}}
  end

  defp line("%" <> comment, _number, {encoding, [], state}, _fun) do
    encoding = if comment =~ ~r/coding\s*[:=]\s*utf-?8/i, do: :unicode, else: encoding
    {:cont, {encoding, [], state}}
  end

  # A term ends with the line that ends with a full stop.
  defp line(line, number, {encoding, before, state}, fun) do
    text = [before, line]
    if line =~ ~r/\.\s*\z/, do: term(text, encoding, number, state, fun), else: {:cont, {encoding, text, state}}
  end

  defp term(text, encoding, number, state, fun) do
    bytes = IO.iodata_to_binary(text)

    added =
      with chars when is_list(chars) <- :unicode.characters_to_list(bytes, encoding),
           {:ok, term} <- Export.parse_chars(chars) do
        add(term, state, fun)
      else
        # A function has no text that could be read.
        _not_a_term -> if bytes =~ ~r/\A\s*\{put,\[.*\],\{p_sproc,/s, do: add_function(state), else: :error
      end

    case added do
      {:cont, state} -> {:cont, {encoding, [], state}}
      {:halt, result} -> {:halt, result}
      :error -> {:halt, {:error, {:malformed, number}}}
    end
  end

  # -- Stream

  defp fold_stream(path, state, fun) do
    name = {__MODULE__, make_ref()}

    case :disk_log.open(name: name, file: String.to_charlist(path), mode: :read_only, repair: false) do
      {:ok, log} ->
        folded = chunks(log, :start, 1, state, fun)
        :ok = :disk_log.close(log)
        folded

      {:error, {:file_error, _file, _posix}} ->
        {:error, {:file, path}}

      {:error, _damaged} ->
        {:error, {:malformed, :end}}
    end
  end

  defp chunks(log, continuation, number, state, fun) do
    case :disk_log.chunk(log, continuation) do
      :eof ->
        {:ok, state}

      {continuation, terms} ->
        with(
          {:ok, number, state} <- terms(terms, number, state, fun),
          do: chunks(log, continuation, number, state, fun)
        )

      _damaged ->
        {:error, {:malformed, number}}
    end
  end

  defp terms([], number, state, _fun), do: {:ok, number, state}

  defp terms([term | rest], number, state, fun) do
    case add(term, state, fun) do
      {:cont, state} -> terms(rest, number + 1, state, fun)
      {:halt, result} -> result
      :error -> {:error, {:malformed, number}}
    end
  end

  # -- Nodes

  defp add({:put, path, payload, _options}, state, fun), do: add_node(path, payload, state, fun)
  defp add({:put, path, payload}, state, fun), do: add_node(path, payload, state, fun)
  defp add(_other, _state, _fun), do: :error

  defp add_node(path, {:p_data, value}, {acc, found}, fun) do
    with {:ok, key} <- Tank.Store.Path.to_key(path),
         {:cont, acc} <- fun.(key, :erlang.term_to_binary(value), acc) do
      {:cont, {acc, found}}
    else
      {:halt, result} -> {:halt, result}
      {:error, _invalid_path} -> :error
    end
  end

  defp add_node(_path, payload, state, _fun) when elem(payload, 0) == :p_sproc, do: add_function(state)

  defp add_node(_path, no_payload, {acc, found}, _fun) when no_payload in [:"$__NO_PAYLOAD__", :p_none],
    do: {:cont, {acc, Map.update!(found, :without_value, &(&1 + 1))}}

  defp add_node(_path, _payload, _state, _fun), do: :error

  defp add_function({acc, found}), do: {:cont, {acc, Map.update!(found, :functions, &(&1 + 1))}}
end
