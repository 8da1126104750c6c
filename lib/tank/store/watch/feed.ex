defmodule Tank.Store.Watch.Feed do
  @moduledoc false
  # The process of one watch: pulls from the engine and sends to the subscriber, as fast as that one takes it.
  #
  #     snapshot --last part--> catching up --nothing left--> idle --:tank_watch_ready--> catching up ...
  #
  # While it is idle, and there are other watches of the same, a process for all of them sends in its place
  # (`Tank.Store.Watch.Group`).
  #
  # What was pulled and not sent yet is a single batch, of a megabyte or one revision. While the subscriber's mailbox is
  # full nothing is pulled: the history keeps it. All states end when the store or the subscriber does. Should this process
  # be killed, the Rust library tells the subscriber.

  use GenServer, restart: :temporary
  use Tank.Store.HideState, show: [:ref, :subscriber, :sent, :position, :told, :current]

  alias Tank.Store.{Change, Counters, Entry, Native, ProcessCall, Telemetry}
  alias Tank.Store.Watch.Group

  # Revisions pulled at a time.
  @batch 256
  # Bytes of a part of a snapshot, about.
  @part_bytes 512 * 1024
  # How soon to look again whether a full mailbox has room: soon at first, since most are read quickly.
  @look_again_ms 2
  @look_again_max_ms 100
  # The same, whether a member has come to the revision that a watch goes on from.
  @look_ahead_ms 50
  # Where in the dictionary it is noted up to where was told, or which group knows.
  @sent {__MODULE__, :sent}
  # The garbage of delivered batches is not worth keeping while nothing happens.
  @hibernate_after 1_000

  def start_link(args), do: GenServer.start_link(__MODULE__, args, hibernate_after: @hibernate_after)

  @typedoc "What a watch is of, whose it is, and up to where it was told."
  @type description :: %{store: atom, pattern: term, subscriber: pid, sent: non_neg_integer, waiting: non_neg_integer}

  @doc "The watches of a store on this node. None of them is asked: a watch that is busy does not hold this up."
  @spec list(atom) :: [description]
  def list(store) do
    for pid <- all(), %{store: ^store} = description <- [description(pid)], do: description
  end

  defp all do
    children = ProcessCall.run(fn -> DynamicSupervisor.which_children(Tank.Store.Watches) end)
    if is_list(children), do: for({_id, pid, _type, _modules} <- children, is_pid(pid), do: pid), else: []
  end

  # A report of a crash shows the dictionary, and a pattern may hold values: it is in a function, which nothing prints.
  defp describe(description), do: Process.put(__MODULE__, fn -> description end)

  defp description(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {__MODULE__, description} <- List.keyfind(dictionary, __MODULE__, 0),
         {@sent, sent} <- List.keyfind(dictionary, @sent, 0) do
      %{subscriber: subscriber} = description = description.()
      sent = with {group, told} <- sent, do: max(told, Group.told(group))
      Map.merge(description, %{sent: sent, waiting: waiting(subscriber)})
    end
  end

  defp waiting(subscriber) do
    case Process.info(subscriber, :message_queue_len) do
      {:message_queue_len, waiting} -> waiting
      nil -> 0
    end
  end

  @impl true
  def init(%{native: native, what: what, asked?: asked?, ref: ref, subscriber: subscriber, opts: opts} = args) do
    case start(native, what, from(opts.from), asked?, subscriber, ref) do
      {:ok, watch, revision, current, history} ->
        Process.monitor(subscriber)
        send(subscriber, {ref, :began, revision, history})
        describe(Map.take(args, [:store, :pattern, :subscriber]))
        Process.put(@sent, revision)

        state = %{
          watch: watch,
          native: native,
          what: what,
          store: args.store,
          pattern: args.pattern,
          ref: ref,
          subscriber: subscriber,
          opts: opts,
          # Up to where all has been sent; where the engine has come to; and what the subscriber last heard of.
          sent: revision,
          position: revision,
          told: revision,
          # What is newer than this is new.
          current: current,
          snapshot?: opts.from == :snapshot,
          synced?: opts.from == :now,
          pending: [],
          full_since: nil,
          look_again: @look_again_ms,
          report_at: nil,
          timer: nil,
          # The group that sends in its place, and the monitor of it.
          group: nil
        }

        state = if state.synced?, do: tell(state, {:synced, revision}), else: state
        set_interval(state)
        {:ok, state, {:continue, :go_on}}

      {:error, reason} ->
        # Not a crash: nobody needs a report of it.
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_continue(:go_on, state), do: go_on(state)
  def handle_continue(:join, state), do: {:noreply, join(state)}

  @impl true
  # Sent before it joined.
  def handle_info(message, %{group: {_, _}} = state) when message in [:tank_watch_ready, :look_again],
    do: {:noreply, state}

  def handle_info(:tank_watch_ready, state), do: go_on(state)
  def handle_info(:look_again, state), do: go_on(state)

  def handle_info({:left_group, group, position, told}, %{group: {group, _}} = state),
    do: state |> left(position, told) |> go_on()

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{group: {_, monitor}} = state),
    do: cancelled(%{state | group: nil}, :store_stopped)

  def handle_info({:cancel, ref}, %{ref: ref} = state), do: stop(state)
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, %{subscriber: pid} = state), do: stop(state)

  def handle_info({:report_at, revision}, state),
    do: on_its_own(%{state | report_at: min(revision, state.report_at || revision)}, &go_on/1)

  def handle_info(:interval, state) do
    set_interval(state)
    # One with something to send tells its place with that.
    if state.synced? and state.pending == [], do: on_its_own(state, &refresh/1), else: {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # With regular expressions that have to be compiled first it takes longer.
  defp start(native, what, from, asked?, subscriber, ref) do
    with :dirty <- Native.watch_start(native, what, from, asked?, subscriber, ref),
         do: Native.watch_start_large(native, what, from, asked?, subscriber, ref)
  end

  # -- Sending what there is room for

  defp go_on(state) do
    case room(state) do
      room when room > 0 -> state |> Map.merge(%{full_since: nil, look_again: @look_again_ms}) |> deliver(room)
      _full -> hold_back(state)
    end
  end

  defp deliver(%{snapshot?: true} = state, _room), do: deliver_part(state)
  defp deliver(%{pending: []} = state, room), do: pull(state, min(room, @batch))

  defp deliver(%{pending: pending} = state, room) do
    {now, later} = Enum.split(pending, room)
    state = tell_changes(state, now)
    again(%{state | pending: later, sent: if(later == [], do: state.position, else: state.sent)})
  end

  defp tell_changes(state, revisions) do
    Enum.reduce(revisions, state, fn {revision, changes}, state ->
      %{tell(state, {:changes, revision, Change.all(changes, state.opts.entries)}) | sent: revision}
    end)
  end

  defp deliver_part(%{opts: opts} = state) do
    case Native.watch_snapshot(state.watch, opts.snapshot_page_size, @part_bytes) do
      # It looked at many that it is not about.
      {:ok, [], true} ->
        again(state)

      {:ok, entries, true} ->
        state |> tell({:snapshot_part, Enum.map(entries, &Entry.new/1)}) |> again()

      {:ok, entries, false} ->
        state
        |> tell({:snapshot, Enum.map(entries, &Entry.new/1), state.sent})
        |> tell({:synced, state.sent})
        |> Map.merge(%{snapshot?: false, synced?: true})
        |> again()

      {:error, reason} ->
        end_with(state, reason)
    end
  end

  defp pull(state, revisions) do
    case next(state.watch, revisions) do
      # As many as there is room for.
      {:ok, pulled, position} -> again(%{tell_changes(state, pulled) | position: position, sent: position})
      {:last, pulled, position} -> idle(%{tell_changes(state, pulled) | position: position, sent: position})
      {:idle, position} -> idle(%{state | position: position, sent: position})
      {:compacted, min} -> cancelled(state, {:compacted, min})
      {:error, reason} -> end_with(state, reason)
    end
  end

  defp next(watch, revisions) do
    with :dirty <- Native.watch_next(watch, revisions), do: Native.watch_next_large(watch, revisions)
  end

  # This member has not come yet to the revision that the watch goes on from.
  defp idle(%{synced?: false, sent: sent, current: current} = state) when current < sent do
    case Native.view(state.native, false) do
      {:ok, view} -> idle_at(Native.view_revision(view), state)
      {:error, reason} -> end_with(state, reason)
    end
  end

  # What is in the view may take a moment to come to the watches.
  defp idle(%{synced?: false, sent: sent, current: current} = state) when sent < current,
    do: {:noreply, look_again(state, @look_again_ms)}

  defp idle(%{synced?: false} = state), do: idle(tell(%{state | synced?: true}, {:synced, state.sent}))

  defp idle(%{report_at: revision} = state) when is_integer(revision) do
    if state.sent >= revision do
      idle(tell(%{state | report_at: nil}, {:progress, state.sent}))
    else
      # Revisions that are of no concern to this watch do not wake it.
      {:noreply, look_again(state, @look_again_ms)}
    end
  end

  defp idle(state), do: {:noreply, state, {:continue, :join}}

  defp idle_at(current, %{sent: sent} = state) when current >= sent, do: idle(%{state | current: current})

  defp idle_at(_current, state), do: {:noreply, look_again(state, @look_ahead_ms)}

  # Between two batches it hears whether it is to end.
  defp again(state) do
    send(self(), :tank_watch_ready)
    {:noreply, state}
  end

  defp refresh(state) do
    case go_on(state) do
      {:noreply, %{pending: [], full_since: nil, sent: sent, told: told} = state, go_on} when sent > told ->
        {:noreply, tell(state, {:progress, sent}), go_on}

      other ->
        other
    end
  end

  # -- The group of watches of the same

  defp join(%{watch: watch, sent: sent, opts: opts} = state) do
    case Native.watch_group(watch) do
      nil -> state
      number -> join(state, {state.native, number, opts.entries}, sent)
    end
  end

  defp join(%{opts: opts, ref: ref, subscriber: subscriber} = state, key, sent) do
    # Not for the answer: what was sent is in the mailbox then.
    _fence = room(state)
    what = %{native: state.native, what: state.what, entries: opts.entries}
    member = %{feed: self(), ref: ref, subscriber: subscriber, buffer: opts.mailbox_max, since: sent}

    case Group.join(key, what, member) do
      {:ok, group} ->
        :ok = Native.watch_move(state.watch, sent)
        Process.put(@sent, {group, state.told})
        %{state | group: {group, Process.monitor(group)}}

      # The watch is told when there is something new.
      :behind ->
        state
    end
  end

  # Leaves its group, if it is in one, for a moment.
  defp on_its_own(state, go_on) do
    case leave(state) do
      {:ok, state} -> go_on.(state)
      # What the group sent is not known.
      {:crashed, state} -> cancelled(state, :store_stopped)
    end
  end

  defp leave(%{group: nil} = state), do: {:ok, state}

  defp leave(%{group: {group, monitor}} = state) do
    case Group.leave(group) do
      {:ok, position, told} ->
        {:ok, left(state, position, told)}

      :gone ->
        receive do
          {:left_group, ^group, position, told} -> {:ok, left(state, position, told)}
          {:DOWN, ^monitor, :process, _pid, _reason} -> {:crashed, %{state | group: nil}}
        end
    end
  end

  defp left(%{group: {_group, monitor}} = state, position, told) do
    Process.demonitor(monitor, [:flush])
    :ok = Native.watch_move(state.watch, position)
    state = %{state | group: nil, position: position, sent: position}
    note(state, max(told, state.told))
  end

  # -- Holding back

  defp room(%{subscriber: subscriber, opts: opts}) do
    case Process.info(subscriber, :message_queue_len) do
      {:message_queue_len, length} -> opts.mailbox_max - length
      # Dead: told soon.
      nil -> 0
    end
  end

  # A full mailbox is of no concern to a watch that has nothing to send.
  defp hold_back(%{pending: [], snapshot?: false} = state) do
    case next(state.watch, @batch) do
      {:ok, [], position} ->
        again(%{state | position: position, sent: position})

      {kind, revisions, position} when kind in [:ok, :last] ->
        hold_back(%{state | pending: revisions, position: position})

      {:idle, position} when state.synced? ->
        idle(%{state | position: position, sent: position, full_since: nil})

      {:idle, position} ->
        wait(%{state | position: position, sent: position})

      {:compacted, min} ->
        cancelled(state, {:compacted, min})

      {:error, reason} ->
        end_with(state, reason)
    end
  end

  defp hold_back(state), do: wait(state)

  defp wait(state) do
    now = System.monotonic_time(:millisecond)
    since = state.full_since || now

    if state.opts.lag_timeout_ms != :infinity and now - since >= state.opts.lag_timeout_ms do
      lagged(state)
    else
      state = look_again(state, state.look_again)
      {:noreply, %{state | full_since: since, look_again: min(2 * state.look_again, @look_again_max_ms)}}
    end
  end

  # There is one timer for it, whoever asks.
  defp look_again(state, ms) do
    if state.timer, do: Process.cancel_timer(state.timer)
    %{state | timer: Process.send_after(self(), :look_again, ms)}
  end

  # -- Ends

  defp lagged(state) do
    behind = max(revision(state) - state.sent, 0)
    Counters.add(state.store, :watches_lagged)
    Telemetry.execute([:watch, :lagged], %{revisions: behind}, %{store_id: state.store, pattern: state.pattern})
    # Half a snapshot is nothing to go on from.
    cancelled(state, {:lagged, if(state.snapshot?, do: 0, else: state.sent)})
  end

  defp revision(state) do
    case Native.view(state.native, false) do
      {:ok, view} -> Native.view_revision(view)
      _closed -> state.sent
    end
  end

  defp end_with(state, reason) when reason in [:closed, :noproc], do: cancelled(state, :store_stopped)
  defp end_with(state, {:engine_failed, _why}), do: cancelled(state, :store_stopped)
  # Damage on the disk: it ends with the reason, rather than to leave something out.
  defp end_with(state, reason), do: cancelled(state, Tank.Store.Error.public(reason))

  defp cancelled(state, reason), do: state |> tell({:cancelled, reason}) |> stop()

  defp stop(state) do
    # It sends nothing more in place of this watch.
    {_ok_or_crashed, state} = leave(state)
    :ok = Native.watch_cancel(state.watch)
    {:stop, :normal, state}
  end

  # -- Messages

  defp tell(state, message) do
    send(state.subscriber, {:store_watch, state.ref, message})
    if is_integer(told(message)), do: note(state, told(message)), else: state
  end

  defp note(state, told) do
    Process.put(@sent, told)
    %{state | told: told}
  end

  defp told({:snapshot, _entries, revision}), do: revision
  defp told({:changes, revision, _changes}), do: revision
  defp told({kind, revision}) when kind in [:synced, :progress], do: revision
  defp told(_other), do: nil

  defp set_interval(%{opts: %{progress_interval_ms: :infinity}}), do: :ok
  defp set_interval(%{opts: opts}), do: Process.send_after(self(), :interval, opts.progress_interval_ms)

  defp from({:after, position}), do: position
  defp from(from), do: from
end
