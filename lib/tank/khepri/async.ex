defmodule Tank.Khepri.Async do
  @moduledoc false
  # Commands that return at once. Those of one caller are done in order, by a process of that caller's for the store; its
  # commands that wait, and its consistent reads, come after them. Those that came while another one was done, and have
  # nothing to do with each other, go into one log entry (`Tank.Khepri.Together`).

  use GenServer

  alias Tank.Khepri.Together
  alias Tank.Store.Deadline

  @doc "Runs a command, now or, as the option `async` says, after the caller's others."
  @spec call(atom, map, Together.command()) :: term
  def call(store, opts, command) do
    case correlation(opts[:async]) do
      :sync ->
        if Process.get({__MODULE__, store}), do: flush(store, Tank.Khepri.Options.timeout(opts))
        Together.alone(command)

      {:async, correlation} ->
        GenServer.cast(worker(store), {:run, command, correlation})
    end
  end

  @doc "Whether the caller does not wait for the answer."
  @spec later?(map) :: boolean
  def later?(opts), do: correlation(opts[:async]) != :sync

  defp correlation(none) when none in [nil, false], do: :sync
  defp correlation(true), do: {:async, nil}
  defp correlation(priority) when priority in [:normal, :low], do: {:async, nil}
  defp correlation(correlation) when is_integer(correlation) or is_reference(correlation), do: {:async, correlation}

  defp correlation({correlation, priority})
       when priority in [:normal, :low] and (is_integer(correlation) or is_reference(correlation)),
       do: {:async, correlation}

  defp correlation(_other), do: :erlang.error(:function_clause)

  @doc "Waits until all that the caller has under way is done."
  @spec flush(atom, timeout) :: :ok
  def flush(store, timeout) do
    case Process.get({__MODULE__, store}) do
      nil -> :ok
      worker -> flushed(worker, timeout)
    end
  end

  defp flushed(worker, timeout) do
    GenServer.call(worker, :flush, Deadline.bounded(timeout))
  catch
    :exit, _gone_or_late -> :ok
  end

  defp worker(store) do
    case Process.get({__MODULE__, store}) do
      pid when is_pid(pid) -> if Process.alive?(pid), do: pid, else: start(store)
      nil -> start(store)
    end
  end

  defp start(store) do
    {:ok, pid} = GenServer.start(__MODULE__, {store, self()})
    Process.put({__MODULE__, store}, pid)
    pid
  end

  @impl GenServer
  def init({store, caller}) do
    Process.monitor(caller)
    {:ok, %{store: store, caller: caller}}
  end

  @impl GenServer
  def handle_cast({:run, command, correlation}, state) do
    run({command, correlation}, state)
    {:noreply, state}
  end

  @impl GenServer
  def handle_call(:flush, _from, state), do: {:reply, :ok, state}

  @impl GenServer
  def handle_info({:DOWN, _ref, :process, _caller, _reason}, state), do: {:stop, :normal, state}
  def handle_info(_other, state), do: {:noreply, state}

  defp run({command, correlation}, state) do
    {others, next} = command |> Together.begin() |> waiting([])
    commands = [{command, correlation} | others]
    results = commands |> Enum.map(&elem(&1, 0)) |> Together.run()
    for {{_command, correlation}, result} <- Enum.zip(commands, results), do: tell(state, correlation, result)
    if next, do: run(next, state)
  end

  # The commands in the mailbox that may join this one, and the first that may not.
  defp waiting(batch, others) do
    receive do
      {:"$gen_cast", {:run, command, correlation}} ->
        case Together.join(batch, command) do
          {:ok, batch} -> waiting(batch, [{command, correlation} | others])
          :alone -> {Enum.reverse(others), {command, correlation}}
        end
    after
      0 -> {Enum.reverse(others), nil}
    end
  end

  defp tell(_state, nil, _result), do: :ok
  defp tell(state, correlation, result), do: send(state.caller, event(state.store, correlation, result))

  defp event(store, correlation, result), do: {:ra_event, {store, node()}, {:applied, [{correlation, result}]}}

  @doc "The answers of an event: a list of correlations and results."
  @spec handle(atom, term) :: [{term, term}]
  def handle(_store, {:ra_event, _from, {:applied, results}}), do: Enum.map(results, &answer/1)

  def handle(_store, {:ra_event, _from, {:rejected, {:not_leader, leader, correlation}}}),
    do: [{correlation, {:error, {:not_leader, leader}}}]

  defp answer({_correlation, {:exception, class, reason, stacktrace}}), do: :erlang.raise(class, reason, stacktrace)
  defp answer(answer), do: answer
end
