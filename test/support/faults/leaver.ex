defmodule Tank.Store.Faults.Leaver do
  @moduledoc """
  A VM that ends while its store is at something, as the tests see it, and what it does itself.

  The VM says `ack N` for each acknowledged write and `leaving` when it begins to end. What it said arrives whole: the
  pipe outlives it.
  """

  alias Tank.Store.{Backup, Cluster, Tree}

  @writers 4
  @writes_before 200
  @code 7

  # Without a word for so long it hangs. A VM on a busy machine takes a minute to start.
  @hung_ms 300_000

  @doc "What the store does when the VM ends."
  def states, do: [:open, :opening, :closing, :compacting, :restoring]

  @doc "How the VM ends."
  def ways, do: [:halt, :stop, :term, :mix_run, :test_run]

  @doc "The exit code that each way asks for. One test of a test run fails, which is 2."
  def exit_code(way) when way in [:halt, :stop], do: @code
  def exit_code(way) when way in [:term, :mix_run], do: 0
  def exit_code(:test_run), do: 2

  @doc """
  Runs a VM that ends `delay_us` microseconds after its store, in `dir`, has begun to do `state`, or that has none
  (`:without_store`). Returns its exit code, the writes that it reported, the milliseconds from `leaving` to its end, and
  what else it printed.
  """
  def run(dir, store_id, state, way, delay_us) do
    [command | args] = command(way, "#{inspect(__MODULE__)}.main(#{inspect([dir, store_id, state, way, delay_us])})")

    options = [:binary, :exit_status, :stderr_to_stdout, {:line, 1024}, args: args, env: [{~c"MIX_ENV", ~c"test"}]]
    port = Port.open({:spawn_executable, System.find_executable(command)}, options)
    collect(port, %{acknowledged: [], left_at: nil, output: []})
  end

  defp command(:mix_run, code), do: ["mix", "run", "--no-start", "--no-compile", "-e", code]

  defp command(_way, code) do
    paths = for app <- [:tank_store], do: Path.join(:code.lib_dir(app), "ebin")
    ["elixir"] ++ Enum.flat_map(paths, &["-pa", &1]) ++ ["-e", code]
  end

  defp collect(port, seen) do
    receive do
      {^port, {:data, {_eol, "ack " <> n}}} ->
        collect(port, %{seen | acknowledged: [String.to_integer(n) | seen.acknowledged]})

      {^port, {:data, {_eol, "leaving"}}} ->
        collect(port, %{seen | left_at: now()})

      {^port, {:data, {_eol, line}}} ->
        collect(port, %{seen | output: [line | seen.output]})

      {^port, {:exit_status, code}} ->
        {code, seen.acknowledged, now() - (seen.left_at || now()), Enum.reverse(seen.output)}
    after
      @hung_ms ->
        {:os_pid, os_pid} = Port.info(port, :os_pid)
        threads = threads(os_pid)
        System.cmd("kill", ["-KILL", "#{os_pid}"])
        # Or its directory would still be locked.
        receive do: ({^port, {:exit_status, _killed}} -> :ok)
        {:hung, seen.acknowledged, @hung_ms, Enum.reverse(seen.output) ++ ["left: #{seen.left_at != nil}" | threads]}
    end
  end

  # What the threads of a process that hangs wait for: name, state and function of the kernel.
  defp threads(os_pid) do
    for task <- Path.wildcard("/proc/#{os_pid}/task/*") do
      Enum.map_join(["comm", "wchan", "syscall"], " ", &String.trim(read(Path.join(task, &1)))) <>
        " " <> (task |> Path.join("stat") |> read() |> String.replace(~r/^.*\) (.).*$/s, "\\1"))
    end
  end

  # A thread may just have ended.
  defp read(file) do
    case File.read(file) do
      {:ok, text} -> text
      {:error, reason} -> Atom.to_string(reason)
    end
  end

  @doc "What the VM runs."
  def main([dir, store_id, state, way, delay_us]) do
    Logger.configure(level: :error)
    {:ok, _apps} = Application.ensure_all_started(:tank_store)
    if way == :test_run, do: define_tests()
    begin(state, dir, store_id)
    spin(now_us() + delay_us)
    IO.puts("leaving")
    leave(way)
  end

  defp begin(:without_store, _dir, _store_id), do: :ok
  defp begin(:open, dir, store_id), do: dir |> start(store_id) |> write_on()

  defp begin(:opening, dir, store_id) do
    store_id = start(dir, store_id)
    :ok = Cluster.stop(store_id)
    spawn(fn -> Cluster.start(dir, store_id) end)
  end

  defp begin(:closing, dir, store_id) do
    # With its whole log and state in memory, as by default.
    store_id = start(dir, %{cluster_name: store_id})
    spawn(fn -> Cluster.stop(store_id) end)
  end

  defp begin(:compacting, dir, store_id) do
    store_id = start(dir, store_id)
    write_on(store_id)
    spawn(fn -> forever(fn -> compact(store_id) end) end)
  end

  defp begin(:restoring, dir, store_id) do
    store_id = start(dir, store_id)
    {:ok, _about} = Backup.create(store_id, dir <> ".backup")
    spawn(fn -> forever(fn -> Backup.restore(dir <> ".backup", "#{dir}.#{System.unique_integer()}") end) end)
  end

  # Snapshots and purges all the time: the database is flushed and compacted with them.
  defp start(dir, store_id) when is_atom(store_id) do
    start(dir, %{
      cluster_name: store_id,
      snapshot_interval_entries: 50,
      log_retention_entries: 20,
      purge_batch: 20,
      segment_bytes: 50_000
    })
  end

  defp start(dir, %{cluster_name: store_id} = config) do
    {:ok, ^store_id} = Cluster.start(dir, config)
    for n <- 1..@writes_before, do: write(store_id, n)
    store_id
  end

  defp write_on(store_id) do
    for writer <- 1..@writers do
      spawn(fn -> Enum.each(Stream.iterate(@writes_before + writer, &(&1 + @writers)), &write(store_id, &1)) end)
    end
  end

  defp write(store_id, n) do
    case Tree.put(store_id, ["k", n |> Integer.to_string()], n) do
      {:ok, _revision} -> IO.puts("ack #{n}")
      # It ends.
      {:error, _reason} -> :ok
    end
  end

  defp compact(store_id) do
    with {:ok, revision} <- Tree.put(store_id, ["compacted"], 0), do: Tree.compact(store_id, revision)
  end

  defp leave(:halt), do: System.halt(@code)

  # Both return at once, and the end of the script would be another way to end.
  defp leave(:stop) do
    System.stop(@code)
    Process.sleep(:infinity)
  end

  defp leave(:term) do
    System.cmd("kill", ["-TERM", System.pid()])
    Process.sleep(:infinity)
  end

  # The end of the script.
  defp leave(:mix_run), do: :ok
  defp leave(:test_run), do: :ok

  # ExUnit runs them when the script ends, and ends the VM with its own exit code.
  defp define_tests do
    ExUnit.start(formatters: [])

    Code.eval_string("""
    defmodule LeaverTest do
      use ExUnit.Case
      test "one that fails", do: assert(1 == 2)
    end
    """)
  end

  defp forever(fun) do
    fun.()
    forever(fun)
  end

  defp spin(until), do: if(now_us() < until, do: spin(until))

  defp now, do: System.monotonic_time(:millisecond)
  defp now_us, do: System.monotonic_time(:microsecond)
end
