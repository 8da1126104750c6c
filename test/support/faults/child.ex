defmodule Tank.Store.Faults.Child do
  @moduledoc """
  The VM under test, an operating system process of its own, as the tests see it.

  A process of the test's supervisor holds the pipe to it, calls functions there, and keeps the ledger of what its
  writers report. The VM ends with that process, at the latest when the test ends.
  """

  use GenServer, restart: :temporary

  import Bitwise, only: [<<<: 2]

  alias Tank.Store.Faults.{Command, Ledger, Subject, Workload}

  @timeout 60_000

  # An error that says that nothing was written. After any other one it may have been.
  @not_written [:noproc, :overloaded, :no_quorum]

  @doc """
  Starts a VM under the test's supervisor. Options: `:log_file`, where its log goes; `:ledger` to go on with.
  """
  @spec start(keyword) :: pid
  def start(options) do
    id = {__MODULE__, System.unique_integer()}
    ExUnit.Callbacks.start_supervised!(Supervisor.child_spec({__MODULE__, options}, id: id))
  end

  @doc """
  Starts a VM with `Tank.Store` on `dir`, and returns it once that answers. Takes the options of `start/1`, and `:store`,
  those of the store.
  """
  @spec start_tank(String.t(), keyword) :: pid
  def start_tank(dir, options) do
    {store, options} = Keyword.pop(options, :store, [])
    child = start(options)
    :ok = call(child, Subject, :start_tank, [[data_dir: dir] ++ store])
    child
  end

  @doc "Begins to start `Tank.Store`, and returns after so many milliseconds, wherever it is then. It takes some 40."
  @spec open_for(pid, keyword, non_neg_integer) :: :ok
  def open_for(child, store, milliseconds) do
    :ok = call(child, Subject, :stop_tank, [])
    GenServer.cast(child, {:call, Subject, :start_tank, [store]})
    Process.sleep(milliseconds)
  end

  @doc "The VM's process id."
  @spec os_pid(pid) :: pos_integer
  def os_pid(child), do: GenServer.call(child, :os_pid)

  @doc "Calls a function there. What it raises or exits with ends the caller."
  @spec call(pid, module, atom, list, timeout) :: term
  def call(child, module, function, args, timeout \\ @timeout) do
    case GenServer.call(child, {:call, module, function, args}, timeout) do
      {:ok, result} -> result
      {kind, reason, stack} -> :erlang.raise(kind, reason, stack)
    end
  end

  @doc """
  Options of a store for run `run`: every second one drops its old log entries and writes its state to the disk all the
  time.

  That is when a store does most besides writing. By default it comes every 20,000 writes.
  """
  @spec store_options(pos_integer) :: keyword
  def store_options(run) when rem(run, 2) == 1,
    do: [
      snapshot_interval_entries: 200,
      log_retention_entries: 50,
      purge_batch: 100,
      segment_bytes: 50_000,
      checkpoint_bytes: 20_000
    ]

  def store_options(_run), do: []

  @doc "Starts the writers of `run`, and waits until they had `count` answers."
  @spec write_until(pid, pos_integer, pos_integer) :: :ok
  def write_until(child, run, count) do
    if Workload.filled?(run), do: :ok = call(child, Subject, :start_filler, [1 <<< 18])
    :ok = call(child, Subject, :start_writers, [run])
    await(child, count)
  end

  @doc "Waits for `count` more answers to the writers."
  @spec await(pid, pos_integer, timeout) :: :ok
  def await(child, count, timeout \\ @timeout), do: await(child, count, :any, timeout)

  @doc "Waits for `count` more answers that are errors."
  @spec await_errors(pid, pos_integer, timeout) :: :ok
  def await_errors(child, count, timeout \\ @timeout), do: await(child, count, :error, timeout)

  @doc "Waits for `count` more acknowledgements."
  @spec await_acknowledged(pid, pos_integer, timeout) :: :ok
  def await_acknowledged(child, count, timeout \\ @timeout), do: await(child, count, :ok, timeout)

  @doc "From now on an acknowledgement does not count as one: it may come from after the fault."
  @spec seal(pid) :: :ok
  def seal(child), do: GenServer.call(child, :seal)

  @doc "The ledger as of now, and how often the writers met which error."
  @spec seen(pid) :: {Ledger.t(), %{term => pos_integer}}
  def seen(child), do: GenServer.call(child, :seen)

  @doc "What is wrong with what the store there holds, by the ledger. The writers must not be at work."
  @spec judge(pid) :: [Ledger.problem()]
  def judge(child) do
    {pods, differing} = call(child, Subject, :pods, [])
    GenServer.call(child, {:judge, pods}) ++ for name <- differing, do: {:get_and_list_differ, name, %{}}
  end

  @doc """
  Ends the VM with SIGKILL and returns the ledger, with all that it reported, once it is gone. `run` is the run whose
  writers were at work, or nil.
  """
  @spec kill(pid, pos_integer | nil) :: Ledger.t()
  def kill(child, run), do: GenServer.call(child, {:kill, run}, @timeout)

  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  defp await(child, count, kind, timeout) do
    GenServer.call(child, {:await, count, kind}, timeout)
  catch
    :exit, {:timeout, _call} ->
      {ledger, errors} = seen(child)
      seen = "in all #{ledger.acknowledged} acknowledged, errors #{inspect(errors)}"
      ExUnit.Assertions.flunk("waited #{timeout} ms for #{count} more answers (#{kind}); last saw #{seen}")
  end

  @impl true
  def init(options) do
    Process.flag(:trap_exit, true)
    [command | args] = command(Keyword.fetch!(options, :log_file))
    port_options = [:binary, :exit_status, {:line, 1 <<< 16}, args: args, cd: System.tmp_dir!()]
    port = Port.open({:spawn_executable, System.find_executable(command)}, port_options)
    {:os_pid, os_pid} = Port.info(port, :os_pid)

    {:ok,
     %{
       port: port,
       os_pid: os_pid,
       ledger: Keyword.get_lazy(options, :ledger, &Ledger.new/0),
       sealed?: false,
       partial: "",
       errors: %{},
       calls: %{},
       awaits: [],
       ended: nil
     }}
  end

  @impl true
  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}
  def handle_call(:seal, _from, state), do: {:reply, :ok, %{state | sealed?: true}}
  def handle_call(:seen, _from, state), do: {:reply, {state.ledger, state.errors}, state}

  def handle_call({:judge, pods}, _from, state) do
    {ledger, problems} = Ledger.judge(state.ledger, pods)
    {:reply, problems, %{state | ledger: ledger}}
  end

  def handle_call({:call, module, function, args}, from, state) do
    {:noreply, request(module, function, args, from, state)}
  end

  def handle_call({:await, count, kind}, from, state) do
    {:noreply, %{state | awaits: [{count, kind, from} | state.awaits]}}
  end

  def handle_call({:kill, run}, from, state) do
    kill_vm(state.os_pid)
    {:noreply, %{state | ended: {from, run}}}
  end

  @impl true
  def handle_cast({:call, module, function, args}, state) do
    {:noreply, request(module, function, args, nil, state)}
  end

  @impl true
  def handle_info({port, {:data, {:noeol, text}}}, %{port: port} = state) do
    {:noreply, %{state | partial: [state.partial, text]}}
  end

  def handle_info({port, {:data, {:eol, text}}}, %{port: port} = state) do
    line = IO.iodata_to_binary([state.partial, text])
    {:noreply, handle_line(line, %{state | partial: ""})}
  end

  # The exit status comes after all output.
  def handle_info({port, {:exit_status, _status}}, %{port: port, ended: {from, run}} = state) do
    ledger = if run, do: Ledger.note_crash(state.ledger, run), else: state.ledger
    GenServer.reply(from, ledger)
    {:stop, :normal, %{state | os_pid: nil}}
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = state) do
    {:stop, {:vm_exited, status}, %{state | os_pid: nil}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{os_pid: nil}), do: :ok

  def terminate(_reason, %{os_pid: os_pid, port: port}) do
    kill_vm(os_pid)
    await_exit(port)
  end

  defp request(module, function, args, from, state) do
    ref = System.unique_integer([:positive])
    request = {ref, module, function, args} |> :erlang.term_to_binary() |> Base.encode64()
    true = Port.command(state.port, [request, ?\n])
    put_in(state.calls[ref], from)
  end

  defp handle_line("op " <> text, state) do
    [run, writer, n | answer] = String.split(text, " ")
    id = {String.to_integer(run), String.to_integer(writer), String.to_integer(n)}
    {kind, answer, errors} = decode(answer, state)
    ledger = Ledger.note(state.ledger, id, answer)
    %{state | ledger: ledger, errors: errors, awaits: Enum.flat_map(state.awaits, &count_down(&1, kind))}
  end

  defp handle_line("answer " <> text, state) do
    {ref, result} = text |> Base.decode64!() |> :erlang.binary_to_term()
    {from, calls} = Map.pop!(state.calls, ref)
    if from, do: GenServer.reply(from, result)
    %{state | calls: calls}
  end

  defp handle_line(other, state) do
    IO.puts(:stderr, "from the VM under test: #{other}")
    state
  end

  defp decode(["ok" | _revision], %{sealed?: true} = state), do: {:ok, :unknown, state.errors}
  defp decode(["ok"], state), do: {:ok, {:ok, nil}, state.errors}
  defp decode(["ok", revision], state), do: {:ok, {:ok, String.to_integer(revision)}, state.errors}
  defp decode(["exists"], state), do: {:exists, :exists, state.errors}

  defp decode(["error", text], state) do
    reason = text |> Base.decode64!() |> :erlang.binary_to_term()
    answer = if reason in @not_written, do: :not_written, else: :unknown
    {:error, answer, Map.update(state.errors, reason, 1, &(&1 + 1))}
  end

  defp count_down({count, wanted, from}, kind) when wanted in [:any, kind] do
    if count > 1 do
      [{count - 1, wanted, from}]
    else
      GenServer.reply(from, :ok)
      []
    end
  end

  defp count_down(await, _kind), do: [await]

  defp command(log_file) do
    paths = [:tank_store, :logger] |> Enum.flat_map(&["-pa", Path.join(:code.lib_dir(&1), "ebin") |> to_string()])
    ["elixir" | paths] ++ ["-e", "#{inspect(Subject)}.main(System.argv())", log_file]
  end

  defp kill_vm(os_pid), do: Command.run("sh", ["-c", "kill -KILL #{os_pid}"])

  defp await_exit(port) do
    receive do
      {^port, {:exit_status, _status}} -> :ok
      {^port, _data} -> await_exit(port)
    after
      10_000 -> :ok
    end
  end
end
