defmodule Tank.Store.Wire do
  @moduledoc """
  Plain TCP transfers between two nodes of a test: what a link carries without this library.

  The socket options are the system's, as for the connections of Erlang distribution.
  """

  @doc "On the receiving node: takes transfers until `close/1`. Gives the port, and the process that listens."
  def listen do
    caller = self()

    pid =
      spawn(fn ->
        {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, nodelay: true, reuseaddr: true])
        {:ok, port} = :inet.port(listener)
        send(caller, {self(), port})
        accept(listener)
      end)

    receive do: ({^pid, port} -> {port, pid})
  end

  @doc "Ends what `listen/0` began."
  def close(pid), do: Process.exit(pid, :kill)

  @doc """
  On the sending node: sends so many bytes to each of the addresses `{host, port}` at once. Gives the milliseconds until
  each receiver confirmed them all.
  """
  def transfer(addresses, bytes) do
    addresses
    |> Task.async_stream(&send_to(&1, bytes), timeout: :infinity, max_concurrency: length(addresses))
    |> Enum.map(fn {:ok, ms} -> ms end)
  end

  @doc "On the receiving node: counts datagrams until `counted/1` asks. Gives the port, and the process that counts."
  def count_datagrams do
    caller = self()

    pid =
      spawn(fn ->
        # Room for all that a test sends.
        {:ok, socket} = :gen_udp.open(0, [:binary, active: true, recbuf: 4_000_000])
        {:ok, port} = :inet.port(socket)
        send(caller, {self(), port})
        count(socket, 0)
      end)

    receive do: ({^pid, port} -> {port, pid})
  end

  @doc "How many have come so far."
  def counted(pid) do
    ref = make_ref()
    send(pid, {:counted, self(), ref})
    receive do: ({^ref, count} -> count)
  end

  @doc "On the sending node: sends so many datagrams of 1,000 bytes."
  def send_datagrams({host, port}, count) do
    {:ok, socket} = :gen_udp.open(0, [:binary, sndbuf: 4_000_000])
    payload = :binary.copy(<<0>>, 1_000)
    for _number <- 1..count, do: :ok = :gen_udp.send(socket, String.to_charlist(host), port, payload)
    :gen_udp.close(socket)
  end

  defp count(socket, count) do
    receive do
      {:udp, ^socket, _host, _port, _data} ->
        count(socket, count + 1)

      {:counted, pid, ref} ->
        send(pid, {ref, count})
        count(socket, count)
    end
  end

  defp send_to({host, port}, bytes) do
    {:ok, socket} = :gen_tcp.connect(String.to_charlist(host), port, [:binary, active: false, nodelay: true], 30_000)

    # The connection is there, as that of the cluster is.
    :ok = :gen_tcp.send(socket, <<bytes::64>>)
    {:ok, "r"} = :gen_tcp.recv(socket, 1, 60_000)
    began = System.monotonic_time(:microsecond)
    :ok = send_bytes(socket, bytes, :binary.copy(<<0>>, 64 * 1024))
    {:ok, "d"} = :gen_tcp.recv(socket, 1, :infinity)
    ms = (System.monotonic_time(:microsecond) - began) / 1_000
    :gen_tcp.close(socket)
    ms
  end

  defp send_bytes(_socket, 0, _chunk), do: :ok

  defp send_bytes(socket, left, chunk) when left >= byte_size(chunk) do
    with :ok <- :gen_tcp.send(socket, chunk), do: send_bytes(socket, left - byte_size(chunk), chunk)
  end

  defp send_bytes(socket, left, chunk), do: :gen_tcp.send(socket, binary_part(chunk, 0, left))

  defp accept(listener) do
    {:ok, socket} = :gen_tcp.accept(listener)

    pid =
      spawn(fn ->
        receive do: (:yours -> :ok)
        {:ok, <<bytes::64>>} = :gen_tcp.recv(socket, 8)
        :ok = :gen_tcp.send(socket, "r")
        :ok = receive_bytes(socket, bytes)
        :ok = :gen_tcp.send(socket, "d")
      end)

    :ok = :gen_tcp.controlling_process(socket, pid)
    send(pid, :yours)
    accept(listener)
  end

  defp receive_bytes(_socket, 0), do: :ok

  defp receive_bytes(socket, left) do
    # What is there, up to the size of the driver's buffer.
    with {:ok, data} <- :gen_tcp.recv(socket, 0), do: receive_bytes(socket, left - byte_size(data))
  end
end
