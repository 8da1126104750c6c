defmodule Tank.Store.Events do
  @moduledoc false
  # Tells subscribers when the leader, the members or the quorum of a store's cluster change, as this member sees it.
  #
  # The engine says when to look, and only while somebody is subscribed. So a subscriber hears of a state that lasts, a
  # moment later; of one that was over before the look, it does not. While there is no store that could say so, it looks
  # again and again.

  use GenServer

  alias Tank.Store.{Members, Names, Native, ProcessCall, Running}

  # Until there is a store.
  @look_every_ms 50

  # It answers at once, unless the node is overloaded.
  @timeout 5_000

  @type event :: {:leader, node | nil, non_neg_integer} | {:members, [{atom, node}]} | {:quorum, :ok | :lost}

  def start_link(config), do: GenServer.start_link(__MODULE__, config.store_id, name: name(config.store_id))

  @doc "Tells `pid` what is, and then what changes, until it dies."
  @spec subscribe(atom, pid) :: :ok | {:error, :noproc | :timeout}
  def subscribe(store_id, pid), do: call(store_id, {:subscribe, pid})

  @doc "Ends that."
  @spec unsubscribe(atom, pid) :: :ok | {:error, :noproc | :timeout}
  def unsubscribe(store_id, pid), do: call(store_id, {:unsubscribe, pid})

  @impl true
  def init(store_id), do: {:ok, %{store_id: store_id, subscribers: %{}, seen: [], followed: nil, timer: nil}}

  @impl true
  def handle_call({:subscribe, pid}, _from, %{subscribers: subscribers} = state) do
    state = look(state)
    Enum.each(events(state, []), &send(pid, &1))
    {:reply, :ok, %{state | subscribers: Map.put_new_lazy(subscribers, pid, fn -> Process.monitor(pid) end)}}
  end

  def handle_call({:unsubscribe, pid}, _from, state), do: {:reply, :ok, remove(pid, state)}

  @impl true
  def handle_info(look, %{subscribers: subscribers} = state)
      when look in [:look, :tank_cluster_changed] and subscribers == %{},
      do: {:noreply, %{state | followed: nil}}

  def handle_info(look, state) when look in [:look, :tank_cluster_changed], do: {:noreply, look(state)}

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state), do: {:noreply, remove(pid, state)}
  def handle_info(_other, state), do: {:noreply, state}

  defp look(state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    # Followed first: what changes after the look is told.
    state = follow(state)
    seen = see(state.store_id)
    timer = if seen == nil or state.followed == nil, do: Process.send_after(self(), :look, @look_every_ms)
    # While the store is opened or stopped nothing new is known.
    new = %{state | seen: seen || state.seen, timer: timer}
    for event <- events(new, state.seen), {pid, _monitor} <- state.subscribers, do: send(pid, event)
    new
  end

  # Has the engine of the store say when something changes: of the one that is open now.
  defp follow(%{followed: followed} = state) do
    case {Running.fetch(state.store_id), followed} do
      {{:ok, store}, {store, _following}} ->
        # One whose disk has failed says nothing any more, and another one takes its place.
        if match?({:ok, %{failure: nil}}, Native.status(store)), do: state, else: %{state | followed: nil}

      {{:ok, store}, _none_or_another} ->
        case Native.follow_cluster(store) do
          {:ok, following} -> %{state | followed: {store, following}}
          {:error, _closed} -> %{state | followed: nil}
        end

      {{:error, _no_store}, _gone} ->
        %{state | followed: nil}
    end
  end

  defp see(store_id) do
    case Members.local(store_id) do
      {:ok, cluster} ->
        leader = Members.leader(cluster)
        members = cluster.members |> Enum.map(&{store_id, &1.node}) |> Enum.uniq() |> Enum.sort()

        [
          {:leader, leader && leader.node, cluster.term},
          {:members, members},
          {:quorum, if(cluster.quorum, do: :ok, else: :lost)}
        ]

      {:error, _reason} ->
        nil
    end
  end

  defp events(state, before), do: for(event <- state.seen -- before, do: {:store_cluster, state.store_id, event})

  defp remove(pid, state) do
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    # Whoever follows keeps the store from being forgotten.
    followed = if subscribers == %{}, do: nil, else: state.followed
    %{state | subscribers: subscribers, followed: followed}
  end

  defp call(store_id, request), do: ProcessCall.call(name(store_id), request, @timeout)

  defp name(store_id), do: {:via, Registry, {Names, {:events, store_id}}}
end
