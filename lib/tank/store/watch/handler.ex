defmodule Tank.Store.Watch.Handler do
  @moduledoc false
  # A watch as a child of a supervisor: gives its messages to a function, and goes on after each interruption.
  #
  #     starting --watch--> watching --cancelled, killed--> starting, after the last revision that was told
  #        ^  |store is down
  #        +--+ waits, up to a second
  #
  # Where the history does not reach back as far, the function is told so, and a snapshot follows.

  use GenServer
  use Tank.Store.HideState, show: [:store, :pattern, :position, :retry_ms]

  alias Tank.Store.{Callback, Options, Pattern, Watch}

  @retry_ms 10
  @retry_max_ms 1_000
  @names [:store_id, :store, :pattern, :handler, :name, :id]

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts) do
    {own, watch} = Keyword.split(opts, @names)
    watch = Watch.check_options!(watch, @names)

    args = %{
      store: Options.store_id!(own, Tank.Store.Cluster.get_default_store_id()),
      pattern: pattern!(own[:pattern] || []),
      handler: Callback.check!(own[:handler], :handler),
      opts: watch
    }

    GenServer.start_link(__MODULE__, args, Keyword.take(own, [:name]))
  end

  @impl true
  def init(args) do
    state = Map.merge(args, %{watch: nil, position: nil, retry_ms: @retry_ms})
    {:ok, state, {:continue, :start}}
  end

  @impl true
  def handle_continue(:start, state), do: start(state)

  @impl true
  def handle_info({:store_watch, ref, message}, %{watch: %{ref: ref}} = state), do: handle(message, state)
  def handle_info(:start, %{watch: nil} = state), do: start(state)

  # It was killed: its last message, if there was one, would have come before.
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, %{watch: %{pid: pid}} = state),
    do: start(%{state | watch: nil})

  def handle_info(_other, state), do: {:noreply, state}

  defp handle({:cancelled, {:lagged, _revision}}, state), do: start(%{state | watch: nil})
  defp handle({:cancelled, :store_stopped}, state), do: start(%{state | watch: nil})
  defp handle({:cancelled, _reason} = message, state), do: start_over(message, %{state | watch: nil})

  defp handle(message, state) do
    Callback.run(state.handler, message)
    {:noreply, %{state | position: position(message, state), retry_ms: @retry_ms}}
  end

  # Half a snapshot is nothing to go on from.
  defp position({:snapshot_part, _entries}, state), do: state.position
  defp position({:snapshot, _entries, revision}, state), do: {state.watch.history, revision}
  defp position({:changes, revision, _changes}, state), do: {state.watch.history, revision}
  defp position({_synced_or_progress, revision}, state), do: {state.watch.history, revision}

  defp start_over(message, state) do
    Callback.run(state.handler, message)
    start(%{state | position: nil, opts: Keyword.put(state.opts, :from, :snapshot)})
  end

  defp start(%{position: position} = state) do
    opts = if position, do: Keyword.put(state.opts, :from, {:after, position}), else: state.opts

    case Watch.start(state.store, state.pattern, opts) do
      {:ok, watch} ->
        Process.monitor(watch.pid)
        {:noreply, %{state | watch: watch}}

      {:error, {:compacted, _min} = reason} ->
        start_over({:cancelled, reason}, state)

      {:error, _down} ->
        Process.send_after(self(), :start, state.retry_ms)
        {:noreply, %{state | retry_ms: min(2 * state.retry_ms, @retry_max_ms)}}
    end
  end

  defp pattern!(pattern) do
    case Pattern.prefix_or_pattern(pattern) do
      {:ok, _what} -> pattern
      {:error, {_kind, why}} -> raise ArgumentError, "option :pattern: #{why}"
    end
  end
end
