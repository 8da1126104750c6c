defmodule Tank.Store.Registry.Server do
  @moduledoc false
  # The registry of this node: one process, with the name `Tank.Store.Registry`.
  #
  #     started --> loads what its predecessor left, looks for running stores
  #        |
  #        v          scope runs           scope ends
  #     alone --------------------> met -----------------> alone, and looks for the scope again
  #
  # Each change goes one way: it is worked out by `Own` or `Others`, told to subscribers, kept in the table, and, when
  # it is of this node, told to the registries of other nodes.

  use GenServer, shutdown: 5_000

  alias Tank.Store.Registry.{Feed, Meeting, Others, Own, Subscribers, Table, Wire}

  # How soon a scope that is gone is looked for again: its supervisor starts it at once.
  @enter_again_ms 20
  # How often the registry looks whether all is as it thinks: stores that it was not told of, registries that have not
  # answered, stores that have become a cluster.
  @look_every_ms 500
  # How long the rows of a registry that was killed wait for the next one, which comes within milliseconds.
  @orphan_ms 5_000

  def start_link(_options \\ []), do: GenServer.start_link(__MODULE__, [], name: Tank.Store.Registry)

  @impl true
  def init([]) do
    # So that `terminate` runs, and says goodbye.
    Process.flag(:trap_exit, true)
    # Without the library's application there is none.
    :ok = Table.make()
    :ok = :net_kernel.monitor_nodes(true, node_type: :all)
    left = Table.load()

    state = %{
      node: node(),
      incarnation: Others.incarnation(),
      seq: 0,
      own: Own.new(left.own),
      others: Others.new(left.others),
      # The registries of other nodes that are told of changes, and their monitors.
      peers: %{},
      subscribers: Subscribers.new(left.subscribers),
      meeting: nil
    }

    {:ok, state, {:continue, :started}}
  end

  @impl true
  def handle_continue(:started, state) do
    state = Enum.reduce(Map.keys(state.others), state, &await_or_forget/2)
    Process.send_after(self(), :look, @look_every_ms)
    {:noreply, state |> look_at_stores() |> enter()}
  end

  @impl true
  def handle_call({:announce, row, pid}, _from, state),
    do: {:reply, :ok, own(state, row.store_id, Own.announce(state.own, :process, pid, row))}

  def handle_call({:unannounce, store_id}, _from, state) do
    change =
      case Feed.store(store_id) do
        {^store_id, pid, _dir} -> Own.hide(state.own, store_id, pid)
        nil -> Own.remove(state.own, store_id)
      end

    {:reply, :ok, own(state, store_id, change)}
  end

  def handle_call(:list, _from, state), do: {:reply, {:ok, rows(state)}, state}

  def handle_call({:subscribe, pid, snapshot?}, _from, state) do
    rows = if snapshot?, do: rows(state), else: []
    {:reply, :ok, %{state | subscribers: Subscribers.add(state.subscribers, pid, snapshot?, rows)}}
  end

  def handle_call({:unsubscribe, pid}, _from, state),
    do: {:reply, :ok, %{state | subscribers: Subscribers.remove(state.subscribers, pid)}}

  def handle_call(_unknown, _from, state), do: {:noreply, state}

  @impl true
  def handle_cast({:opened, store_id, pid}, state) do
    case Feed.store(store_id) do
      {^store_id, ^pid, _dir} = store -> {:noreply, announce_store(store, state)}
      # It has closed since, or been opened anew, which is told too.
      _other -> {:noreply, state}
    end
  end

  def handle_cast({:closing, store_id, pid}, state) do
    if Own.known?(state.own, store_id, pid),
      do: {:noreply, own(state, store_id, Own.hide(state.own, store_id, pid))},
      else: {:noreply, state}
  end

  def handle_cast(_unknown, state), do: {:noreply, state}

  @impl true
  def handle_info({group, :join, _name, pids}, %{meeting: %{group: group}} = state),
    do: {:noreply, Enum.reduce(pids, state, &meet/2)}

  def handle_info({:tank_registry, 1, message}, state), do: {:noreply, hear(message, state)}

  def handle_info({:DOWN, scope, :process, _name, _reason}, %{meeting: %{scope: scope}} = state),
    do: {:noreply, enter(%{state | meeting: nil})}

  def handle_info({:DOWN, monitor, :process, pid, reason}, state) when is_pid(pid) do
    case state do
      %{peers: %{^pid => ^monitor}} -> {:noreply, peer_ended(pid, reason, state)}
      %{subscribers: %{^pid => %{monitor: ^monitor}}} -> {:noreply, subscriber_ended(pid, state)}
      _own -> {:noreply, own_ended(monitor, reason, state)}
    end
  end

  # The registry of the node was gone before: nobody else tells that its stores are, too.
  def handle_info({:nodedown, node, _info}, state),
    do: {:noreply, if(Others.orphaned?(state.others, node), do: forget(node, state), else: state)}

  def handle_info({:orphan, node, incarnation}, state) do
    case state.others do
      %{^node => %{pid: nil, incarnation: ^incarnation}} -> {:noreply, forget(node, state)}
      _it_came_back -> {:noreply, state}
    end
  end

  def handle_info({:again, pid}, state) when is_map_key(state.peers, pid) do
    Wire.send_to(pid, {:ask, self()})
    Wire.send_to(pid, all(state))
    {:noreply, state}
  end

  def handle_info(:enter, %{meeting: nil} = state), do: {:noreply, enter(state)}

  def handle_info(:look, state) do
    Process.send_after(self(), :look, @look_every_ms)
    state = state |> renamed() |> look_at_stores()
    for {pid, _monitor} <- state.peers, not Others.current?(state.others, pid), do: Wire.send_to(pid, {:ask, self()})
    {:noreply, state}
  end

  def handle_info(_unknown, state), do: {:noreply, state}

  @impl true
  def terminate(reason, state) do
    # After a crash the next one comes at once; on purpose, nobody stands for these rows any more.
    if reason in [:normal, :shutdown] or match?({:shutdown, _why}, reason), do: tell_peers({:bye, self()}, state)
  end

  # -- Other registries

  defp enter(state) do
    case Meeting.enter() do
      {:ok, meeting, pids} ->
        Enum.reduce(pids, %{state | meeting: meeting}, &meet/2)

      :error ->
        Process.send_after(self(), :enter, @enter_again_ms)
        state
    end
  end

  # One that is known already may be one that we could not hear for a while.
  defp meet(pid, state) when node(pid) == node(), do: state

  defp meet(pid, state) do
    state = %{state | peers: Map.put_new_lazy(state.peers, pid, fn -> Process.monitor(pid) end)}
    Wire.send_to(pid, {:ask, self()})
    state
  end

  defp hear({:ask, pid}, state) when is_pid(pid) and node(pid) != node() do
    # It hears of each change from now on, so it has to be known, whether the scope has told of it or not.
    state = if is_map_key(state.peers, pid), do: state, else: meet(pid, state)
    Wire.send_to(pid, all(state))
    state
  end

  defp hear({:all, pid, incarnation, seq, rows}, state) when is_map_key(state.peers, pid) and is_list(rows) do
    case Others.all(state.others, pid, incarnation, seq, rows) do
      {:ok, others} -> others(state, node(pid), others)
      :old -> state
    end
  end

  defp hear({:change, pid, incarnation, seq, change}, state) when is_map_key(state.peers, pid) do
    case Others.change(state.others, pid, incarnation, seq, change) do
      {:ok, others} ->
        others(state, node(pid), others)

      :gap ->
        Wire.send_to(pid, {:ask, self()})
        state

      :old ->
        state
    end
  end

  defp hear({:bye, pid}, state) when is_map_key(state.peers, pid) do
    state = forget_peer(pid, state)
    if Others.current?(state.others, pid), do: forget(node(pid), state), else: state
  end

  # From nobody that we know: what it says now, it says again when it is met.
  defp hear(_other, state), do: state

  defp peer_ended(pid, :noconnection, state), do: forget(node(pid), forget_peer(pid, state))

  defp peer_ended(pid, _reason, state) do
    state = forget_peer(pid, state)

    case Others.orphan(state.others, pid) do
      {:orphaned, others} -> await_or_forget(node(pid), %{state | others: others})
      :none -> state
    end
  end

  defp await_or_forget(node, state) do
    if node in Node.list(:connected) do
      Process.send_after(self(), {:orphan, node, state.others[node].incarnation}, @orphan_ms)
      state
    else
      forget(node, state)
    end
  end

  defp forget_peer(pid, state) do
    {monitor, peers} = Map.pop(state.peers, pid)
    Process.demonitor(monitor, [:flush])
    %{state | peers: peers}
  end

  defp forget(node, state), do: others(state, node, Map.delete(state.others, node))

  defp others(state, node, others) do
    rows = Others.rows(others, node)
    Subscribers.tell(state.subscribers, Subscribers.difference(Others.rows(state.others, node), rows))
    Table.put(:others, node, if(is_map_key(others, node), do: rows))
    %{state | others: others}
  end

  # -- This node

  defp look_at_stores(state), do: Enum.reduce(Feed.stores(), state, &look_at_store/2)

  defp look_at_store({store_id, pid, _dir} = store, state) do
    case Own.entry(state.own, store_id) do
      # Hidden, or announced by somebody who says it otherwise.
      %{row: nil, pid: ^pid} -> state
      %{kind: :process} -> state
      _unknown_or_known -> announce_store(store, state)
    end
  end

  defp announce_store({store_id, pid, _dir} = store, state) do
    # A store that has become a cluster is announced again; it is registered since it was opened.
    old = if Own.known?(state.own, store_id, pid), do: Own.entry(state.own, store_id).row
    row = Feed.row(store, old)
    own(state, store_id, Own.announce(state.own, :store, pid, row))
  end

  defp own_ended(monitor, reason, state) do
    case Own.ended(state.own, monitor, reason) do
      {store_id, own, changes} -> own(state, store_id, {own, changes})
      nil -> state
    end
  end

  defp own(state, store_id, {own, changes}) do
    Subscribers.tell(state.subscribers, changes)
    Table.put(:own, store_id, Own.entry(own, store_id))
    Enum.reduce(changes, %{state | own: own}, &tell_change/2)
  end

  defp tell_change({type, row}, state) do
    state = %{state | seq: state.seq + 1}
    change = if type == :announced, do: {:announced, row}, else: {:retired, row.store_id}
    tell_peers({:change, self(), state.incarnation, state.seq, change}, state)
    state
  end

  defp tell_peers(message, state), do: for({pid, _monitor} <- state.peers, do: Wire.send_to(pid, message))

  defp all(state), do: {:all, self(), state.incarnation, state.seq, Map.values(Own.rows(state.own))}

  # A node gets its name when it becomes distributed.
  defp renamed(%{node: node} = state) when node == node(), do: state

  defp renamed(state) do
    Enum.reduce(Own.rows(state.own), %{state | node: node()}, fn {store_id, row}, state ->
      own(state, store_id, Own.rename(state.own, %{row | node: node()}))
    end)
  end

  # -- Subscribers

  defp subscriber_ended(pid, state), do: %{state | subscribers: Subscribers.remove(state.subscribers, pid)}

  defp rows(state) do
    others = for {_node, %{rows: rows}} <- state.others, do: Map.values(rows)
    Enum.sort_by(Map.values(Own.rows(state.own)) ++ Enum.concat(others), &{&1.store_id, &1.node})
  end
end
