defmodule Tank.Bench.Etcd do
  @moduledoc """
  etcd beside the stores, for context: a process of its own, which syncs each write, and a client in Rust that puts as
  many bytes as a pod has (`etcd_load/`). Both have the machine's processors, as a store with its callers has.
  """

  @port 23_790

  # It keeps every version, and takes no more once it has 2 GB: long runs with large values come to more.
  @quota_bytes 16_000_000_000

  @doc "Starts etcd in `dir`; it ends with this VM. A reason when it is not there."
  @spec start(Path.t()) :: :ok | {:skip, String.t()}
  def start(dir) do
    case System.find_executable("etcd") do
      nil -> {:skip, "etcd is not installed"}
      etcd -> start(etcd, dir)
    end
  end

  defp start(etcd, dir) do
    options = [
      "--data-dir=#{dir}",
      "--listen-client-urls=http://127.0.0.1:#{@port}",
      "--advertise-client-urls=http://127.0.0.1:#{@port}",
      "--listen-peer-urls=http://127.0.0.1:#{@port + 1}",
      "--quota-backend-bytes=#{@quota_bytes}",
      "--log-level=error"
    ]

    # Of a process that stays, unlike the caller.
    spawn(fn -> own([etcd | options]) end)
    await(System.monotonic_time(:millisecond) + 30_000)
  end

  defp own(command) do
    # etcd does not notice our end by its standard input; the shell does.
    script = ~s("$@" & child=$!; cat >/dev/null; kill "$child")
    arguments = ["-c", script, "etcd" | command]
    port = Port.open({:spawn_executable, "/bin/sh"}, [:binary, :exit_status, :stderr_to_stdout, args: arguments])
    print(port)
  end

  defp print(port) do
    receive do
      {^port, {:data, text}} -> IO.write(:stderr, text) && print(port)
      {^port, {:exit_status, status}} -> IO.puts(:stderr, "etcd ended with #{status}")
    end
  end

  @doc "Puts each of so many pods once."
  @spec fill(pos_integer, pos_integer) :: :ok
  def fill(pods, bytes) do
    load([0, 64, pods, bytes])
    :ok
  end

  @doc "Puts by so many clients for so many seconds."
  @spec puts(pos_integer, pos_integer, number, pos_integer) :: %{rate: float, p50: float, p99: float}
  def puts(clients, pods, seconds, bytes) do
    [count, elapsed, p50, p99] = load([max(1, round(seconds)), clients, pods, bytes])
    %{rate: count / elapsed, p50: p50, p99: p99}
  end

  defp load(numbers) do
    program = Path.join(System.fetch_env!("BENCH_EBIN"), "etcd_load")
    {output, 0} = System.cmd(program, Enum.map([@port | numbers], &to_string/1))
    output |> String.split() |> Enum.map(&elem(Float.parse(&1), 0))
  end

  defp await(deadline) do
    case :gen_tcp.connect(~c"127.0.0.1", @port, []) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, reason} ->
        if System.monotonic_time(:millisecond) > deadline, do: raise("etcd does not answer: #{reason}")
        Process.sleep(20)
        await(deadline)
    end
  end
end
