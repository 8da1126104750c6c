defmodule Tank.Store.Faults.Subject do
  @moduledoc """
  What runs in the VM under test: `Tank.Store` under a supervisor, writers, and a loop that calls functions on request.

  Requests come on the standard input, a line each, and answers go to the standard output; see
  `Tank.Store.Faults.Child`, the other end. When the input ends, so does the VM.

  A writer reports the answer to each operation itself, by one `write` to the pipe, before it goes on to its next. So
  when the VM is killed, every writer has one operation at the most that was not reported.
  """

  alias Tank.Store.{Call, Path}
  alias Tank.Store.Faults.Workload

  @tree __MODULE__.Tree
  @writers __MODULE__.Writers
  @reader __MODULE__.Reader
  @comparison __MODULE__.Comparison

  # A writer that gets errors goes on at this pace, so as not to flood the pipe.
  @pace_ms 20

  @doc "The main function of the VM under test. The argument is the file that its log goes to."
  def main([log_file]) do
    {:ok, _apps} = Application.ensure_all_started(:tank_store)
    log_to(log_file)
    serve()
  end

  @doc "Starts `Tank.Store` under a supervisor of its own; there is only one."
  @spec start_tank(keyword) :: :ok | {:error, term}
  def start_tank(options) do
    # The supervisor is to outlive this call, and this call the supervisor.
    Process.flag(:trap_exit, true)

    case Supervisor.start_link([{Tank.Store, options}], strategy: :one_for_one, name: @tree) do
      {:ok, pid} ->
        Process.unlink(pid)
        :ok

      {:error, {:shutdown, {:failed_to_start_child, Tank.Store, reason}}} ->
        {:error, reason}

      {:error, reason} ->
        {:error, reason}
    end
  end

  @doc "Stops what `start_tank/1` started. Fine when it has ended by itself."
  @spec stop_tank :: :ok
  def stop_tank do
    if pid = Process.whereis(@tree), do: Supervisor.stop(pid)
    :ok
  catch
    :exit, _ended_meanwhile -> :ok
  end

  @doc "Whether the supervisor of `Tank.Store` has not given up."
  @spec tree_runs? :: boolean
  def tree_runs?, do: Process.whereis(@tree) != nil

  @doc "All pods by name, and the names whose `get_pod/1` says something else than `list_pods/0`."
  @spec pods :: {%{String.t() => term}, [String.t()]}
  def pods do
    listed = Map.new(Tank.Store.list_pods(), &{&1.name, &1})
    {listed, for({name, pod} <- listed, Tank.Store.get_pod(name) != {:ok, pod}, do: name)}
  end

  @doc "Starts the writers of a run."
  @spec start_writers(pos_integer) :: :ok
  def start_writers(run) do
    caller = self()

    {pid, monitor} =
      spawn_monitor(fn ->
        Process.register(self(), @writers)

        writers =
          for writer <- 1..Workload.writers(run), do: spawn_monitor(fn -> write_on(open_output(), {run, writer, 0}) end)

        send(caller, {:writing, self()})
        await_stop(Map.new(writers, fn {pid, ref} -> {ref, pid} end))
      end)

    receive do
      {:writing, ^pid} -> :ok
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit(reason)
    end
  end

  @doc "Stops the writers, each after the operation it is at."
  @spec stop_writers :: :ok
  def stop_writers do
    case Process.whereis(@writers) do
      nil ->
        :ok

      pid ->
        monitor = Process.monitor(pid)
        send(pid, :stop)
        receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
    end
  end

  @doc "Writes values of so many bytes until one is not written, and returns the error."
  @spec put_until_error(pos_integer) :: term
  def put_until_error(bytes), do: put_until_error(bytes, 0)

  defp put_until_error(bytes, n) do
    case Tank.Store.put_at([:filler, "#{n}"], :crypto.strong_rand_bytes(bytes)) do
      :ok -> put_until_error(bytes, n + 1)
      {:error, reason} -> reason
    end
  end

  @doc "Writes values of so many bytes to a few paths from now on, as long as the VM lives."
  @spec start_filler(pos_integer) :: :ok
  def start_filler(bytes) do
    spawn(fn -> fill(:crypto.strong_rand_bytes(bytes), 0) end)
    :ok
  end

  defp fill(value, n) do
    _fine_or_down = Tank.Store.put_at([:filler, "#{rem(n, 64)}"], [n | value])
    fill(value, n + 1)
  end

  @doc """
  Reads all pods and one of them from now on, all the time. Another process decodes as much as there was to read, for
  comparison: what delays it delays any process of this VM.
  """
  @spec start_reader :: :ok
  def start_reader do
    [pod | _more] = pods = Tank.Store.list_pods()
    encoded = :erlang.term_to_binary(pods)
    begin_round(@reader, fn -> read_once(pod.name) end)
    begin_round(@comparison, fn -> if is_list(:erlang.binary_to_term(encoded)), do: [] end)
  end

  @doc """
  Stops that: how many reads there were, what went wrong, and the most milliseconds from one answer to the next, of the
  reader and of the process for comparison.
  """
  @spec stop_reader :: {pos_integer, [term], non_neg_integer, non_neg_integer}
  def stop_reader do
    [{count, problems, longest_ms}, {_count, [], bare_ms}] =
      for name <- [@reader, @comparison] do
        send(name, {:stop, self()})
        receive do: ({:rounds, seen} -> seen)
      end

    {count, problems, longest_ms, bare_ms}
  end

  defp begin_round(name, fun) do
    Process.register(spawn(fn -> go_round(fun, {0, [], 0}, now()) end), name)
    :ok
  end

  defp go_round(fun, {count, problems, longest_ms}, answered_at) do
    problem = fun.()
    now = now()
    seen = {count + 1, Enum.take(problem ++ problems, 5), max(longest_ms, now - answered_at)}

    receive do
      {:stop, pid} -> send(pid, {:rounds, seen})
    after
      1 -> go_round(fun, seen, now)
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp read_once(name) do
    # Writers may delete it.
    _found_or_not = Tank.Store.get_pod(name)
    if is_list(Tank.Store.list_pods()), do: [], else: [:no_list]
  rescue
    error -> [error]
  end

  @doc "Calls a function, and says how many milliseconds it took."
  @spec timed(module, atom, list) :: {non_neg_integer, term}
  def timed(module, function, args) do
    {microseconds, result} = :timer.tc(module, function, args)
    {div(microseconds, 1000), result}
  end

  # The standard output is for answers.
  defp log_to(file) do
    Enum.each(:logger.get_handler_ids(), &:logger.remove_handler/1)
    :ok = :logger.add_handler(:file, __MODULE__, %{config: file, formatter: {:logger_formatter, %{}}})
  end

  @doc false
  # OTP's handler syncs its file, and would meet the faults that are meant for the store.
  def log(event, %{config: file, formatter: {module, config}}) do
    File.write!(file, module.format(event, config), [:append])
  end

  defp serve do
    case IO.read(:stdio, :line) do
      line when is_binary(line) ->
        {ref, module, function, args} = line |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
        spawn(fn -> answer(ref, module, function, args) end)
        serve()

      _closed ->
        System.halt(0)
    end
  end

  defp answer(ref, module, function, args) do
    result =
      try do
        {:ok, apply(module, function, args)}
      catch
        kind, reason -> {kind, reason, __STACKTRACE__}
      end

    report(open_output(), ["answer ", Base.encode64(:erlang.term_to_binary({ref, result}, compressed: 1))])
  end

  defp await_stop(writers) when writers == %{}, do: :ok

  defp await_stop(writers) do
    receive do
      {:DOWN, ref, :process, _pid, _reason} ->
        await_stop(Map.delete(writers, ref))

      :stop ->
        Enum.each(writers, fn {_ref, pid} -> send(pid, :stop) end)
        await_stop(writers)
    end
  end

  defp write_on(output, {run, writer, n} = id) do
    {answer, pace} = id |> perform() |> reported()
    report(output, ["op #{run} #{writer} #{n} " | answer])

    receive do
      :stop -> :ok
    after
      pace -> write_on(output, {run, writer, n + 1})
    end
  end

  defp perform(id) do
    {kind, name} = Workload.op(id)
    if Workload.shared?(name), do: perform_shared(kind, name, id), else: perform_own(kind, name, id)
  rescue
    error in [RuntimeError] ->
      # Of a VM in which it was not started yet.
      if error.message == "Tank.Store is not started", do: {:error, :noproc}, else: {:error, error}
  end

  defp perform_own(:put, _name, id), do: Tank.Store.put_pod(Workload.pod(id))
  defp perform_own(:create, _name, id), do: Tank.Store.create_pod(Workload.pod(id))
  defp perform_own(:delete, name, _id), do: Tank.Store.delete_pod(name)

  # Only the revisions tell how the operations of several writers follow each other.
  defp perform_shared(kind, name, id) do
    {:ok, key} = Path.to_key([:tank, :pods, name])

    if kind == :delete,
      do: Call.delete(:tank, key, nil, 5_000),
      else: Call.write(:tank, kind, key, Workload.pod(id), nil, 5_000)
  end

  defp reported(:ok), do: {"ok", 0}
  defp reported({:ok, revision}), do: {"ok #{revision}", 0}
  defp reported({:error, :exists}), do: {"exists", 0}
  defp reported({:error, {:exists, _revisions}}), do: {"exists", 0}
  defp reported({:error, reason}), do: {["error ", Base.encode64(:erlang.term_to_binary(reason))], @pace_ms}

  # Not the BEAM's own output, which would let a writer go on before its line is in the pipe. Only the process that opens
  # it may write to it.
  defp open_output do
    {:ok, output} = :file.open(~c"/dev/stdout", [:raw, :write])
    output
  end

  defp report(output, line), do: :ok = :file.write(output, [line, ?\n])
end
