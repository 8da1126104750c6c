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

  # Parts of the size that a link of the engine cuts messages into, and its small writes.
  @part_bytes 30 * 1024
  @small_bytes 300
  @pause_ms 10

  @doc """
  On the sending node: for `for_ms`, sends parts with up to `window` bytes of them on their way, and in the same
  connection small messages, one after the other. Gives the milliseconds that each of these took to be answered.
  """
  def small_among_parts(address, window, for_ms) do
    socket = begin(address, 0, high_watermark: window)
    :ok = :inet.setopts(socket, packet: 4, active: true)
    samples = exchange(socket, window, now_us() + for_ms * 1_000, {:next, now_us()}, [])
    :gen_tcp.close(socket)
    samples
  end

  # `small`: when the small message that is on its way was sent, or the next one is to be: `{:next, us}`.
  defp exchange(socket, room, until, small, samples) do
    now = now_us()

    case small do
      _any when now > until ->
        samples

      {:next, at} when at <= now ->
        :ok = :gen_tcp.send(socket, :binary.copy(<<0>>, @small_bytes))
        exchange(socket, room, until, now, samples)

      _any when room >= @part_bytes ->
        :ok = :gen_tcp.send(socket, :binary.copy(<<0>>, @part_bytes))
        exchange(socket, room - @part_bytes, until, small, samples)

      _any ->
        receive do
          {:tcp, ^socket, <<@small_bytes::32>>} ->
            now = now_us()
            exchange(socket, room, until, {:next, now + @pause_ms * 1_000}, [(now - small) / 1_000 | samples])

          {:tcp, ^socket, <<bytes::32>>} ->
            exchange(socket, room + bytes, until, small, samples)
        after
          @pause_ms -> exchange(socket, room, until, small, samples)
        end
    end
  end

  defp now_us, do: System.monotonic_time(:microsecond)

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

  # The connection is there, as that of the cluster is.
  defp begin({host, port}, bytes, options) do
    options = [:binary, active: false, nodelay: true] ++ options
    {:ok, socket} = :gen_tcp.connect(String.to_charlist(host), port, options, 30_000)
    :ok = :gen_tcp.send(socket, <<bytes::64>>)
    {:ok, "r"} = :gen_tcp.recv(socket, 1, 60_000)
    socket
  end

  defp send_to(address, bytes) do
    socket = begin(address, bytes, [])
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
        if bytes == 0, do: answer_all(socket), else: receive_all(socket, bytes)
      end)

    :ok = :gen_tcp.controlling_process(socket, pid)
    send(pid, :yours)
    accept(listener)
  end

  defp answer_all(socket) do
    :ok = :inet.setopts(socket, packet: 4)

    with {:ok, message} <- :gen_tcp.recv(socket, 0),
         :ok <- :gen_tcp.send(socket, <<byte_size(message)::32>>),
         do: answer_all(socket)
  end

  defp receive_all(socket, bytes) do
    :ok = receive_bytes(socket, bytes)
    :ok = :gen_tcp.send(socket, "d")
  end

  defp receive_bytes(_socket, 0), do: :ok

  defp receive_bytes(socket, left) do
    # What is there, up to the size of the driver's buffer.
    with {:ok, data} <- :gen_tcp.recv(socket, 0), do: receive_bytes(socket, left - byte_size(data))
  end
end
