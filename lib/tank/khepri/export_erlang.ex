defmodule Tank.Khepri.ExportErlang do
  @moduledoc """
  The callback module for exports as text: an Erlang term a line. It takes a file's name, or an open device, which it
  leaves open.
  """

  # About as much is read at a time.
  @chunk_bytes 4096

  @type write_state :: %{required(:fd) => :file.io_device(), optional(:filename) => term}
  @type read_state :: map

  @doc "Opens a file to write."
  @spec open_write(term) :: {:ok, write_state} | {:error, term}
  def open_write(name) when is_list(name) or is_binary(name) or is_atom(name) do
    with {:ok, fd} <- :file.open(name, [:write, {:encoding, :utf8}]),
         :ok <- :io.put_chars(fd, "%% coding: utf-8\n"),
         do: {:ok, %{fd: fd, filename: name}}
  end

  def open_write(fd), do: {:ok, %{fd: fd}}

  @doc "Writes items."
  @spec write(write_state, [term]) :: {:ok, write_state} | {:error, term}
  def write(state, items) do
    Enum.reduce_while(items, {:ok, state}, fn item, done ->
      case :file.write(state.fd, :io_lib.format("~0p.~n", [item])) do
        :ok -> {:cont, done}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  @doc "Closes the file."
  @spec commit_write(write_state) :: :ok | {:error, term}
  def commit_write(%{filename: _} = state), do: :file.close(state.fd)
  def commit_write(_state), do: :ok

  @doc "Removes the file."
  @spec abort_write(write_state) :: :ok
  def abort_write(%{filename: name} = state) do
    _closed = :file.close(state.fd)
    _deleted = :file.delete(name)
    :ok
  end

  def abort_write(_state), do: :ok

  @doc "Opens a file to read."
  @spec open_read(term) :: {:ok, read_state} | {:error, term}
  def open_read(name) when is_list(name) or is_binary(name) or is_atom(name) do
    with {:ok, fd} <- :file.open(name, [:read]) do
      _encoding = :epp.set_encoding(fd)
      {:ok, %{fd: fd, location: 1, filename: name}}
    end
  end

  def open_read(fd), do: {:ok, %{fd: fd, location: 1}}

  @doc "Reads some items; none at the end."
  @spec read(read_state) :: {:ok, [term], read_state} | {:error, term}
  def read(state), do: read(state, [], position(state))

  defp read(state, items, start) do
    case :io.read(state.fd, "", state.location) do
      {:ok, item, location} ->
        state = %{state | location: location}
        items = [item | items]
        if enough?(start, position(state)), do: {:ok, Enum.reverse(items), state}, else: read(state, items, start)

      {:eof, location} ->
        {:ok, Enum.reverse(items), %{state | location: location}}

      {:error, _reason} = error ->
        error

      {:error, info, _location} ->
        {:error, info}
    end
  end

  defp position(state) do
    case :file.position(state.fd, :cur) do
      {:ok, position} -> position
      {:error, _reason} -> nil
    end
  end

  defp enough?(start, now), do: start == nil or now == nil or now - start >= @chunk_bytes

  @doc "Closes the file."
  @spec close_read(read_state) :: :ok | {:error, term}
  def close_read(%{filename: _} = state), do: :file.close(state.fd)
  def close_read(_state), do: :ok
end
