defmodule Tank.Store.Watch.Group do
  @moduledoc false
  # Watches of the same that have nothing to catch up with, told by one process.
  #
  # A thousand processes may watch one path. If each watch's own process (`Tank.Store.Watch.Feed`) read, decoded and sent
  # a change, most of the work would be done a thousand times. So a feed that has sent all there is joins the group of
  # its kind, and sleeps; the group reads a change once and sends it to each subscriber. A subscriber whose mailbox is
  # full goes back to its feed, which holds back, and joins again later.
  #
  #     feed: behind --nothing left--> idle --join--> member --full mailbox, interval, end--> feed: behind
  #
  # Two processes send to a subscriber, one after the other. Erlang keeps the order of signals only between two processes.
  # So each of them looks at the subscriber's mailbox between its last message and the moment when the other one takes
  # over: after that, its messages are in the mailbox.

  use GenServer, restart: :temporary
  use Tank.Store.HideState, show: [:position, :told]

  alias Tank.Store.{Change, Native}

  # Revisions read at a time.
  @batch 256
  @hibernate_after 1_000
  # Where in the dictionary the revision of the last message is noted, for `told/1`.
  @told {__MODULE__, :told}

  @type member :: %{feed: pid, ref: reference, subscriber: pid, buffer: pos_integer, since: non_neg_integer}

  @doc """
  Joins the group of watches `key`, as one that was told of everything up to `member.since`. `:behind` when the group is
  further than that, or gone. `what` starts the group, if there is none.
  """
  @spec join(term, map, member) :: {:ok, pid} | :behind
  def join(key, what, member) do
    name = {:via, Registry, {Tank.Store.Names, {__MODULE__, key}}}

    with nil <- GenServer.whereis(name),
         {:error, {:already_started, group}} <- start(Map.merge(what, %{name: name, member: member})) do
      join(group, member)
    else
      {:ok, group} -> {:ok, group}
      group when is_pid(group) -> join(group, member)
      _not_started -> :behind
    end
  end

  defp join(group, member) do
    with :ok <- call(group, {:join, member}), do: {:ok, group}, else: (_gone_or_behind -> :behind)
  end

  @doc """
  Leaves a group: `{:ok, position, told}`, up to where the group has told of everything, and the revision of the last
  message that it sent. `:gone` when the feed was not a member: it was sent `{:left_group, group, position, told}`, or the
  group has ended.
  """
  @spec leave(pid) :: {:ok, non_neg_integer, non_neg_integer} | :gone
  def leave(group), do: call(group, {:leave, self()})

  @doc "The revision of the last message that a group sent."
  @spec told(pid) :: non_neg_integer
  def told(group) do
    with {:dictionary, dictionary} <- Process.info(group, :dictionary),
         {@told, told} <- List.keyfind(dictionary, @told, 0) do
      told
    else
      _gone -> 0
    end
  end

  defp start(args) do
    DynamicSupervisor.start_child(Tank.Store.Watches, {__MODULE__, args})
  catch
    # The application is being stopped.
    :exit, _reason -> :gone
  end

  # It is answered between two batches. A wait that ended earlier would leave open whether the feed is a member.
  defp call(group, request) do
    GenServer.call(group, request, :infinity)
  catch
    :exit, _reason -> :gone
  end

  def start_link(args), do: GenServer.start_link(__MODULE__, args, name: args.name, hibernate_after: @hibernate_after)

  @impl true
  def init(%{native: native, what: what, entries: entries?, member: %{since: since} = first}) do
    case Native.watch_start_large(native, what, since, false, self(), make_ref()) do
      {:ok, watch, ^since, _current, _history} ->
        Process.put(@told, since)
        send(self(), :tank_watch_ready)
        {:ok, add(%{watch: watch, entries?: entries?, members: %{}, position: since, told: since}, first)}

      {:error, reason} ->
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call({:join, %{since: since}}, _from, state) when since < state.position, do: {:reply, :behind, state}

  def handle_call({:join, member}, _from, state), do: {:reply, :ok, add(state, member)}

  def handle_call({:leave, feed}, _from, state) do
    case state.members do
      %{^feed => member} ->
        # Not for the answer: what was sent is in the mailbox then.
        _fence = room(member)
        state |> remove(member) |> stop_or_reply({:ok, max(state.position, member.since), state.told})

      _others ->
        {:reply, :gone, state}
    end
  end

  @impl true
  def handle_info(:tank_watch_ready, state), do: go_on(state)

  def handle_info({:DOWN, _monitor, :process, feed, _reason}, state) do
    case state.members do
      %{^feed => member} -> state |> remove(member) |> stop_or_go_on()
      _others -> {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp go_on(state) do
    case next(state.watch) do
      {:ok, revisions, position} ->
        # Between two batches it hears who joins and leaves.
        send(self(), :tank_watch_ready)
        state |> tell_all(revisions, position) |> stop_or_go_on()

      {:last, revisions, position} ->
        state |> tell_all(revisions, position) |> stop_or_go_on()

      {:idle, position} ->
        {:noreply, %{state | position: position}}

      # At an end, or with an error: each feed sees to that for its own subscriber.
      _other ->
        Enum.each(state.members, fn {_feed, member} -> send_back(member, state) end)
        stop(%{state | members: %{}})
    end
  end

  # Large revisions, and those that are on the disk, take a dirty scheduler.
  defp next(watch) do
    with :dirty <- Native.watch_next(watch, @batch), do: Native.watch_next_large(watch, @batch)
  end

  defp tell_all(state, revisions, position) do
    messages = for {revision, changes} <- revisions, do: {revision, message(revision, changes, state.entries?)}
    {members, full} = Enum.split_with(state.members, fn {_feed, member} -> tell(member, messages) end)
    Enum.each(full, fn {_feed, member} -> send_back(member, state) end)
    members = if full == [], do: state.members, else: Map.new(members)
    told = Enum.reduce(revisions, state.told, fn {revision, _changes}, _told -> revision end)
    Process.put(@told, told)
    %{state | members: members, position: position, told: told}
  end

  # Either all of them, or none when there is no room for all.
  defp tell(%{since: since} = member, messages) do
    messages = Enum.drop_while(messages, fn {revision, _message} -> revision <= since end)
    room? = messages == [] or room(member) >= length(messages)
    if room?, do: Enum.each(messages, fn {_revision, message} -> send_to(member, message) end)
    room?
  end

  # The Rust library has told the subscriber that the watch has ended, when its feed was killed: that is its last message.
  defp send_to(%{feed: feed, subscriber: subscriber, ref: ref}, message) do
    if Process.alive?(feed), do: send(subscriber, {:store_watch, ref, message})
  end

  defp message(revision, changes, entries?), do: {:changes, revision, Change.all(changes, entries?)}

  defp room(%{subscriber: subscriber, buffer: buffer}) do
    case Process.info(subscriber, :message_queue_len) do
      {:message_queue_len, length} -> buffer - length
      nil -> buffer
    end
  end

  # A feed that has left, or died, is not told.
  defp send_back(%{feed: feed, since: since, monitor: monitor}, state) do
    Process.demonitor(monitor, [:flush])
    send(feed, {:left_group, self(), max(state.position, since), state.told})
  end

  defp add(state, %{feed: feed} = member) do
    member = Map.put(member, :monitor, Process.monitor(feed))
    %{state | members: Map.put(state.members, feed, member)}
  end

  defp remove(state, member) do
    Process.demonitor(member.monitor, [:flush])
    %{state | members: Map.delete(state.members, member.feed)}
  end

  defp stop_or_go_on(%{members: members} = state) when members == %{}, do: stop(state)
  defp stop_or_go_on(state), do: {:noreply, state}

  defp stop_or_reply(%{members: members} = state, reply) when members == %{} do
    :ok = Native.watch_cancel(state.watch)
    {:stop, :normal, reply, state}
  end

  defp stop_or_reply(state, reply), do: {:reply, reply, state}

  defp stop(state) do
    :ok = Native.watch_cancel(state.watch)
    {:stop, :normal, state}
  end
end
