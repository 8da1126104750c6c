defmodule Tank.Store.Syncer.Merger do
  @moduledoc false
  # The process of a syncer. It owns the feed, between the followers that fill it and the caller that empties it.
  #
  #     follower of type 0 --listed, changed, lost-->
  #     follower of type 1 -------------------------> merger <--next-- caller --> the consumer
  #
  # It never waits for either, so a consumer that blocks holds up nobody but itself.

  use GenServer, restart: :temporary
  use Tank.Store.HideState, show: [:client, :ref, :types, :retry_ms]

  alias Tank.Store.ProcessCall
  alias Tank.Store.Syncer.{Caller, Feed, Follower}

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @spec listed(pid, Feed.type(), [Tank.Store.Syncer.Item.t()]) :: :ok
  def listed(merger, type, items), do: call(merger, {:listed, type, items})

  @spec changed(pid, Feed.type(), [Feed.change()]) :: :ok
  def changed(merger, type, changes), do: call(merger, {:changed, type, changes})

  @spec lost(pid, Feed.type()) :: :ok
  def lost(merger, type), do: call(merger, {:lost, type})

  @doc "What the consumer is to be told next; waits until there is something."
  @spec next(pid) :: Feed.out() | :done
  def next(merger), do: call(merger, :next)

  # Without a bound: the merger answers a follower at once and the caller when there is news. Both are linked to it, so
  # that they end with it, and a follower that gave up would only list again what the merger has not taken in yet.
  defp call(merger, request) do
    with {:error, :noproc} <- ProcessCall.call(merger, request, :infinity), do: exit(:normal)
  end

  @impl true
  def init(%{types: types, callbacks: callbacks} = args) do
    if is_pid(callbacks), do: Process.monitor(callbacks)

    {:ok, Map.merge(args, %{feed: Feed.new(length(types)), caller: nil, waiting: nil, followers: [], stoppers: []})}
  end

  @impl true
  def handle_call(:start, _from, %{caller: nil} = state) do
    {:ok, caller} = Caller.start_link(self(), state.callbacks, state.ref)
    {:reply, :ok, %{state | caller: caller, followers: start_followers(state)}}
  end

  def handle_call(:start, _from, state), do: {:reply, :ok, state}

  def handle_call(:stop, _from, %{caller: nil} = state), do: {:stop, :normal, :ok, state}

  def handle_call(:stop, {pid, _tag} = from, state) do
    state = stop_following(state)

    # A callback would wait for itself.
    if pid == state.caller do
      {:reply, :ok, state}
    else
      go_on(%{state | stoppers: [from | state.stoppers]})
    end
  end

  def handle_call(:next, from, state), do: go_on(%{state | waiting: from})

  # Whoever is stopped may still have a last thing to say.
  def handle_call(_change, _from, %{feed: %{stopping?: true}} = state), do: {:reply, :ok, state}

  def handle_call(change, from, state) do
    GenServer.reply(from, :ok)

    feed =
      case change do
        {:listed, type, items} -> Feed.listed(state.feed, type, items)
        {:changed, type, changes} -> Feed.changed(state.feed, type, changes)
        {:lost, type} -> Feed.lost(state.feed, type)
      end

    go_on(%{state | feed: feed})
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, %{callbacks: pid} = state) do
    # The process that made the syncer is linked, and may be another one.
    end_all([state.caller | state.followers])
    {:stop, :normal, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # Answers the caller, if it waits and there is something.
  defp go_on(%{waiting: nil} = state), do: {:noreply, state}

  defp go_on(state) do
    case Feed.next(state.feed) do
      {:nothing, feed} ->
        {:noreply, %{state | feed: feed}}

      {:done, _feed} ->
        for from <- [state.waiting | state.stoppers],
            do: GenServer.reply(from, if(from == state.waiting, do: :done, else: :ok))

        {:stop, :normal, state}

      {out, feed} ->
        GenServer.reply(state.waiting, out)
        {:noreply, %{state | feed: feed, waiting: nil}}
    end
  end

  defp start_followers(state) do
    for {options, type} <- Enum.with_index(state.types) do
      args = Map.take(state, [:client, :source, :retry_ms])
      {:ok, pid} = Follower.start_link(Map.merge(args, %{type: type, options: options, merger: self()}))
      pid
    end
  end

  defp stop_following(%{feed: %{stopping?: true}} = state), do: state

  defp stop_following(state) do
    end_all(state.followers)
    %{state | feed: Feed.stop(state.feed), followers: []}
  end

  defp end_all(pids) do
    for pid <- pids, is_pid(pid) do
      Process.unlink(pid)
      Process.exit(pid, :kill)
    end
  end
end
