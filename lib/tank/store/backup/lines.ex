defmodule Tank.Store.Backup.Lines do
  @moduledoc false
  # Text files: written so that a crash leaves the old one or the new one, and read line by line.

  import Bitwise, only: [<<<: 2]

  @doc "Calls `fun` with a function that writes, and puts the file in its place when that gives `{:ok, result}`."
  @spec write(String.t(), ((iodata -> :ok | {:error, atom}) -> {:ok, term} | {:error, term})) ::
          {:ok, term} | {:error, term}
  def write(path, fun) do
    # A name of its own: another one may write this file too.
    temporary = "#{path}.#{System.pid()}-#{System.unique_integer([:positive])}-#{System.os_time()}.tmp"

    with {:ok, file} <- :file.open(temporary, [:write, :exclusive, :raw, :binary, {:delayed_write, 1 <<< 20, 1_000}]) do
      written = write_to(file, fun)
      closed = :file.close(file)

      with {:ok, result} <- written, :ok <- closed, :ok <- :file.rename(temporary, path), :ok <- sync_dir(path) do
        {:ok, result}
      else
        error ->
          _gone = :file.delete(temporary)
          error
      end
    end
    |> named(path)
  end

  @doc "Folds `fun` over the lines of a file, each with its number. `fun` gives `{:cont, acc}` or `{:halt, result}`."
  @spec fold(String.t(), acc, (binary, pos_integer, acc -> {:cont, acc} | {:halt, result})) ::
          {:ok, acc} | result | {:error, term}
        when acc: term, result: term
  def fold(path, acc, fun) do
    case :file.open(path, [:read, :raw, :binary, {:read_ahead, 1 <<< 18}]) do
      {:ok, file} ->
        folded = fold_lines(file, 1, acc, fun)
        :ok = :file.close(file)
        named(folded, path)

      error ->
        named(error, path)
    end
  end

  defp write_to(file, fun) do
    with {:ok, result} <- fun.(&:file.write(file, &1)), :ok <- :file.sync(file), do: {:ok, result}
  end

  # Makes the name durable.
  defp sync_dir(path) do
    with {:ok, dir} <- :file.open(Path.dirname(path), [:read, :raw, :directory]) do
      synced = :file.sync(dir)
      :ok = :file.close(dir)
      synced
    end
  end

  defp fold_lines(file, number, acc, fun) do
    case :file.read_line(file) do
      {:ok, line} ->
        case fun.(line, number, acc) do
          {:cont, acc} -> fold_lines(file, number + 1, acc, fun)
          {:halt, result} -> result
        end

      :eof ->
        {:ok, acc}

      error ->
        error
    end
  end

  defp named({:error, :enospc}, _path), do: {:error, :disk_full}
  defp named({:error, posix}, path) when is_atom(posix) and posix not in [:disk_full], do: {:error, {:file, path}}
  defp named(other, _path), do: other
end
