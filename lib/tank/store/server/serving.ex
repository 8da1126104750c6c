defmodule Tank.Store.Server.Serving do
  @moduledoc false
  # Which engine the callers of a store find, and which one other members reach.
  #
  #     none --publish--> the open engine --retire--> the last view of the engine that failed
  #      ^                   |       ^                   |
  #      +-------close-------+       +--- take_over: once the engine that is open again has applied as much
  #
  # After an opening a member of several does not know at once what is committed: its view may be older than what callers
  # have read before. So they keep the last view until the new engine has caught up, for which other members reach it.

  alias Tank.Store.{Alarms, Error, Identity, Inbox, Log, LongCall, Members, Native, Running}
  alias Tank.Store.Formation.Forming
  alias Tank.Store.Server.State

  # A reader finds its store, and then reads: so much later at the most, if its process gets no processor.
  @let_go_after_ms 10_000

  # With a majority an engine catches up at once, unless it lacks much. When it has not after so long, it is asked again.
  @catch_up_timeout 2_000
  @ask_again_ms 100

  @alarm :behind

  @doc "Gives callers an engine."
  @spec publish(State.t(), Native.store()) :: State.t()
  def publish(%State{config: %{store_id: store_id}} = state, store) do
    # In this order: once frames reach the new engine, others may write through it, and nobody may still read what the
    # one before has.
    Running.put(store_id, store)
    :ok = Inbox.attach(store_id, store)
    note_cluster(store_id, store)
    let_go(%{state | store: store})
  end

  @doc "Gives callers an engine that is open again, unless the last view of one that failed is newer."
  @spec take_over(State.t(), Native.store()) :: State.t()
  def take_over(%State{shown: nil} = state, store), do: publish(state, store)

  def take_over(%State{config: %{store_id: store_id}} = state, store) do
    if caught_up?(state.shown, store) do
      publish(state, store)
    else
      :ok = Inbox.attach(store_id, store)
      note_cluster(store_id, store)
      ask(%{state | store: store})
    end
  end

  @doc "Takes in what the open engine answered, when it was asked to catch up."
  @spec answered(State.t(), :ok | {:error, Native.reason()}) :: State.t()
  def answered(%State{store: store} = state, :ok), do: publish(state, store)

  def answered(state, {:error, _reason}) do
    # Without a majority it cannot catch up: it goes on to wait for one.
    :ok = Alarms.set(state.config.store_id, @alarm, behind_text())
    Process.send_after(self(), {:catch_up, state.catching_up}, @ask_again_ms)
    state
  end

  @doc "Asks the open engine again."
  @spec ask_again(State.t()) :: State.t()
  def ask_again(%State{store: store} = state),
    do: if(caught_up?(state.shown, store), do: publish(state, store), else: ask(state))

  @doc "Takes an engine that failed at its disk from everybody but readers, who keep its last view."
  @spec retire(State.t()) :: State.t()
  def retire(%State{store: store, shown: nil} = state) do
    :ok = Inbox.attach(state.config.store_id, nil)
    # Its last sync usually fails too.
    _closed = LongCall.retire(store)
    %{state | store: nil, shown: store}
  end

  # It failed again before readers had it.
  def retire(%State{store: store} = state) do
    :ok = Inbox.attach(state.config.store_id, nil)
    _closed = LongCall.close(store)
    Alarms.clear(state.config.store_id, @alarm)
    %{state | store: nil, catching_up: nil}
  end

  @doc "Closes the open engine; callers find none."
  @spec close(State.t()) :: State.t()
  def close(%State{config: config, store: store} = state) do
    Running.delete(config.store_id)
    :ok = Inbox.attach(config.store_id, nil)
    with {:error, reason} <- Identity.close(config, store), do: warn("closing", config, reason)
    %{let_go(state) | store: nil}
  end

  @doc "Closes the open engine; reads of what this node knows go on from its last view (`Tank.Store.LastView`)."
  @spec leave_to_readers(State.t()) :: State.t()
  def leave_to_readers(%State{config: config, store: store} = state) do
    Running.leave_to_readers(config.store_id)
    :ok = Inbox.attach(config.store_id, nil)
    with {:error, reason} <- Identity.close(config, store, &LongCall.retire/1), do: warn("closing", config, reason)
    %{state | store: nil}
  end

  @doc "Closes an engine that was let go."
  @spec close_former(Native.store()) :: :ok
  def close_former(store) do
    _closed = LongCall.close(store)
    :ok
  end

  @doc "Logs what went wrong while the server does what it can."
  @spec warn(String.t(), Tank.Store.Server.config(), Native.reason()) :: :ok
  def warn(doing, config, reason) do
    text = "#{doing}, store #{inspect(config.store_id)}: #{Exception.message(Error.from_native(reason))}"
    Log.error(config.store_id, :closing, text)
  end

  defp note_cluster(store_id, store) do
    with {:ok, cluster} <- Members.of(store), do: Forming.hold(store_id, cluster.cluster_id)
  end

  # Whether readers of `store` see at least what those of `shown` have seen. A view that is authoritative has everything.
  defp caught_up?(shown, store),
    do: Native.has_applied(store, applied_index(shown)) or match?({:ok, _view}, Native.view(store, true))

  defp ask(%State{store: store} = state) do
    ref = make_ref()
    {:ok, _call} = Native.await_applied(store, ref, applied_index(state.shown), @catch_up_timeout)
    %{state | catching_up: ref}
  end

  defp applied_index(store) do
    case Native.status(store) do
      {:ok, %{applied_index: index}} -> index || 0
      {:error, _reason} -> 0
    end
  end

  defp let_go(%State{shown: shown} = state) do
    :ok = Alarms.clear(state.config.store_id, @alarm)
    # Somebody may be about to read it.
    if shown, do: Process.send_after(self(), {:close_former, shown}, @let_go_after_ms)
    %{state | shown: nil, catching_up: nil}
  end

  defp behind_text do
    "its disk works again. Reads go on from memory and writes are refused until this member has caught up with what was " <>
      "read here before, which takes a majority of the members"
  end
end
