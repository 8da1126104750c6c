defmodule Tank.Store.Syncer.Follower do
  @moduledoc false
  # Follows one type: lists it, then watches from there; whatever fails, it lists anew. It tells the merger, which takes
  # one thing at a time.
  #
  #     listing --listed--> watching --the watch ended, the quorum was lost--> listing
  #        ^  |failed          |could not be started
  #        +--+---- wait ------+
  #
  # A watch that ended is no loss of sync: the list that follows at once makes up for it. Should it end right away each
  # time, the follower waits, as after a failure. Without a quorum the watch would just stay silent: others may go on,
  # and this member not hear of it. Only a list, which needs the quorum, tells that it is back.

  use GenServer, restart: :temporary
  use Tank.Store.HideState, show: [:client, :type, :options, :retry_ms]

  alias Tank.Store.Syncer.Merger

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @impl true
  def init(args), do: {:ok, Map.merge(args, %{watch: nil, watched_at: nil}), {:continue, :list}}

  @impl true
  def handle_continue(:list, state) do
    case state.source.list(state.client, state.options) do
      {:ok, items, revision} ->
        :ok = Merger.listed(state.merger, state.type, items)
        watch(state, revision)

      {:error, _reason} ->
        :ok = Merger.lost(state.merger, state.type)
        retry(state)
    end
  end

  @impl true
  def handle_info(:list, %{watch: nil} = state), do: {:noreply, state, {:continue, :list}}
  # Of a watch that has ended.
  def handle_info(_message, %{watch: nil} = state), do: {:noreply, state}

  def handle_info(message, state) do
    case state.source.read(state.watch, message) do
      {:changes, []} ->
        {:noreply, state}

      {:changes, changes} ->
        :ok = Merger.changed(state.merger, state.type, changes)
        {:noreply, state}

      {:ended, _reason} ->
        relist(state)

      :lost ->
        :ok = Merger.lost(state.merger, state.type)
        relist(state)

      :unknown ->
        {:noreply, state}
    end
  end

  defp watch(state, revision) do
    case state.source.watch(state.client, state.options, revision) do
      {:ok, watch} -> {:noreply, %{state | watch: watch, watched_at: now()}}
      {:error, _reason} -> retry(state)
    end
  end

  defp relist(state) do
    :ok = state.source.cancel(state.watch)
    short? = now() - state.watched_at < state.retry_ms
    state = %{state | watch: nil}
    if short?, do: retry(state), else: {:noreply, state, {:continue, :list}}
  end

  defp retry(state) do
    Process.send_after(self(), :list, state.retry_ms)
    {:noreply, state}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
