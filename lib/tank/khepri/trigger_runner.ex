defmodule Tank.Khepri.TriggerRunner do
  @moduledoc false
  # Runs triggered procedures, on the node of the leader: one after the other, in the order of revisions; of one revision
  # by priority, then by id. It follows the store from the revision that is noted in it, and notes a later one when what
  # it was told of is done: a new leader runs the rest, and what was not noted yet once more.
  #
  # A procedure that fails is logged, the same failure once in ten seconds, and affects nothing else.

  use GenServer

  require Logger

  alias Tank.Khepri.{Engine, Event, Match, Triggers}
  alias Tank.Store.{Cluster, Watch}

  @retry_ms 100
  @note_after_ms 200
  @note_timeout 5_000
  @silence_ms 10_000

  @spec start_link(atom) :: GenServer.on_start()
  def start_link(store), do: GenServer.start_link(__MODULE__, store, name: name(store))

  @spec child_spec(atom) :: Supervisor.child_spec()
  def child_spec(store), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [store]}}

  @doc "Has it look at once whether there are triggers to run."
  @spec look_now(atom) :: :ok
  def look_now(store) do
    GenServer.call(name(store), :look)
  catch
    :exit, _none_or_busy -> :ok
  end

  defp name(store), do: Module.concat(__MODULE__, store)

  @impl GenServer
  def init(store) do
    send(self(), :look)
    {:ok, %{store: store, watch: nil, noted: 0, done: 0, noting?: false, failures: %{}}}
  end

  @impl GenServer
  # A trigger was registered here.
  def handle_call(:look, _from, state), do: {:reply, :ok, look(state)}

  @impl GenServer
  # Looks now and again whether it is this member's turn.
  def handle_info(:look, state) do
    Process.send_after(self(), :look, @retry_ms)
    {:noreply, look(state)}
  end

  def handle_info({:store_watch, ref, message}, %{watch: %{ref: ref}} = state), do: {:noreply, told(message, state)}
  def handle_info(:note, state), do: {:noreply, note(%{state | noting?: false})}
  def handle_info(_other, state), do: {:noreply, state}

  defp look(state), do: if(leads?(state.store), do: follow(state), else: rest(state))

  defp leads?(store), do: Cluster.leader(store) == {:ok, node()}

  defp follow(%{watch: nil} = state) do
    with {:ok, view} <- Engine.view(state.store, :consistency, @note_timeout),
         cursor when cursor != nil <- Triggers.cursor(view),
         {:ok, watch} <- start(state.store, cursor) do
      %{state | watch: watch, noted: cursor, done: cursor}
    else
      _not_readable_or_no_triggers -> state
    end
  end

  defp follow(state), do: state

  # What is no longer in the history cannot be run.
  defp start(store, cursor) do
    with {:error, {:compacted, min}} <- Watch.start(store, [], from: {:after, cursor}, favor: :low_latency, nodes: true) do
      Logger.error("triggers of #{inspect(store)}: changes up to revision #{min} are lost, the history is shorter")
      Watch.start(store, [], from: :now, favor: :low_latency, nodes: true)
    end
  end

  defp rest(%{watch: nil} = state), do: state

  defp rest(state) do
    Watch.cancel(state.watch)
    %{state | watch: nil}
  end

  defp told({:changes, revision, changes}, state) do
    events = Event.of(changes)
    state = %{run_all(state, events) | done: revision}
    # Its own notes are no reason for another one.
    if events == [], do: state, else: note_soon(state)
  end

  defp told({:cancelled, _reason}, state), do: %{state | watch: nil}
  defp told(_other, state), do: state

  defp note_soon(%{noting?: true} = state), do: state

  defp note_soon(state) do
    Process.send_after(self(), :note, @note_after_ms)
    %{state | noting?: true}
  end

  defp note(%{done: done, noted: noted} = state) when done <= noted, do: state

  defp note(state) do
    case Triggers.put_cursor(state.store, state.done, @note_timeout) do
      :ok -> %{state | noted: state.done}
      {:error, _reason} -> note_soon(state)
    end
  end

  # -- Running

  defp run_all(state, []), do: state

  defp run_all(state, events) do
    case Engine.view(state.store, :low_latency, @note_timeout) do
      {:ok, view} ->
        overlay = Map.new(events, &{&1.path, &1})

        for trigger <- Triggers.all(view), event <- events, reduce: state do
          state -> maybe_run(state, trigger, event, {view, overlay})
        end

      {:error, _reason} ->
        state
    end
  end

  defp maybe_run(state, trigger, %{path: path} = event, trees) do
    action = Event.action(event)
    lookup = fn path -> props(path, action, trees) end

    with true <- action in trigger.actions and Match.matches?(trigger.pattern, path, lookup),
         %{sproc: fun} when is_function(fun, 1) <- lookup.(trigger.sproc) do
      run(state, trigger, fun, %{path: path, on_action: action})
    else
      _not_concerned -> state
    end
  end

  # Of the tree after the command; for a deletion, of the one before it.
  defp props(path, action, {view, overlay}) do
    case overlay do
      %{^path => event} -> shown(if(action == :delete, do: event.old, else: event.new), path, view)
      _unchanged -> with({_key, props} <- Engine.node(view, Engine.key(path), :nothing), do: props)
    end
  end

  defp shown(props, _path, _view) when props == %{}, do: nil
  defp shown(props, path, view), do: Event.with_children(props, path, fn -> view end)

  defp run(state, trigger, fun, argument) do
    fun.(argument)
    state
  catch
    class, reason -> failed(state, trigger, argument, {class, reason, __STACKTRACE__})
  end

  defp failed(state, trigger, argument, {class, reason, stacktrace} = failure) do
    now = System.monotonic_time(:millisecond)
    failures = Map.reject(state.failures, fn {_failure, at} -> now - at > @silence_ms end)

    unless is_map_key(failures, failure) do
      Logger.error(
        "Triggered stored procedure crash: store #{inspect(state.store)}, trigger #{inspect(trigger.id)}, " <>
          "#{inspect(argument)}: " <> Exception.format(class, reason, stacktrace)
      )
    end

    %{state | failures: Map.put_new(failures, failure, now)}
  end
end
