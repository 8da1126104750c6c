defmodule Tank.Store.Reporter do
  @moduledoc false
  # Tells an operator of one store what happens in its cluster: by the log, by counters, and by `:telemetry`.
  #
  # It is told of changes (`Tank.Store.Events`), and does nothing otherwise; but with `:telemetry` it looks once a second what
  # the engine has counted.

  use GenServer

  alias Tank.Store.{Counters, Events, Log, Native, Running, Telemetry}

  @measure_every_ms 1_000
  # A quorum that is lost for longer is told to the operator.
  @lost_after_ms 1_000

  def start_link(config), do: GenServer.start_link(__MODULE__, config.store_id)

  @impl true
  def init(store_id) do
    state = %{store_id: store_id, leader: :unknown, quorum: :unknown, members: nil, measured: nil}
    {:ok, state, {:continue, :subscribe}}
  end

  @impl true
  def handle_continue(:subscribe, state) do
    # It is not there only while the instance ends.
    _subscribed = Events.subscribe(state.store_id, self())
    measure_later()
    {:noreply, state}
  end

  @impl true
  def handle_info({:store_cluster, _store_id, event}, state), do: {:noreply, event(event, state)}

  def handle_info(:lost, %{quorum: {:losing, _timer}} = state) do
    Counters.add(state.store_id, :quorum_losses)
    text = "has lost its quorum: writes and linearizable reads wait for a majority of its members"
    log(state, :warning, :cluster, text)
    {:noreply, %{state | quorum: :lost}}
  end

  def handle_info(:measure, state) do
    measure_later()
    {:noreply, measure(state)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # -- The cluster. What is when the store is opened is no change.

  defp event({:leader, leader, _term}, %{leader: leader} = state), do: state

  defp event({:leader, leader, term}, state) do
    if state.leader != :unknown, do: Counters.add(state.store_id, :leader_changes)
    Telemetry.execute([:cluster, :leader], %{term: term}, %{store_id: state.store_id, leader: leader})

    # Without a leader there is no quorum, which is told.
    if several?(state) and state.leader != :unknown and leader != nil,
      do: log(state, :info, :cluster, leader_text(leader, term))

    %{state | leader: leader}
  end

  defp event({:quorum, quorum}, %{quorum: quorum} = state), do: state

  defp event({:quorum, :lost}, %{quorum: known} = state) when known in [:unknown, :none_yet],
    do: %{state | quorum: :none_yet}

  # At each election there is none for a moment.
  defp event({:quorum, :lost}, %{quorum: :ok} = state) do
    tell_quorum(:lost, state)
    %{state | quorum: {:losing, Process.send_after(self(), :lost, @lost_after_ms)}}
  end

  defp event({:quorum, :lost}, state), do: state

  defp event({:quorum, :ok}, %{quorum: before} = state) do
    tell_quorum(:ok, state)
    with {:losing, timer} <- before, do: Process.cancel_timer(timer)
    if before == :lost, do: log(state, :notice, :cluster, "has a quorum again")
    %{state | quorum: :ok}
  end

  defp event({:members, members}, %{members: members} = state), do: state

  defp event({:members, members}, state) do
    nodes = for {_store_id, node} <- members, do: node
    {joined, left} = {nodes -- (state.members || []), (state.members || []) -- nodes}
    metadata = %{store_id: state.store_id, members: nodes, joined: joined, left: left}
    Telemetry.execute([:cluster, :members], %{count: length(nodes)}, metadata)
    if state.members, do: log_members(joined, left, nodes, state)
    %{state | members: nodes}
  end

  defp event(_other, state), do: state

  defp tell_quorum(quorum, state),
    do: Telemetry.execute([:cluster, :quorum], %{}, %{store_id: state.store_id, quorum: quorum})

  defp log_members(joined, left, nodes, state) do
    for node <- joined, do: log(state, :notice, :members, "#{node} has joined: #{length(nodes)} members")
    for node <- left, do: log(state, :notice, :members, "#{node} is no member any more: #{length(nodes)} members")
  end

  defp leader_text(leader, term) when leader == node(), do: "this member leads since term #{term}"
  defp leader_text(leader, term), do: "#{leader} leads since term #{term}"

  defp several?(%{members: members}), do: match?([_one, _two | _more], members)

  defp log(%{store_id: store_id}, level, target, text),
    do: Log.log(store_id, level, target, "store #{inspect(store_id)}: #{text}")

  # -- The engine

  defp measure_later, do: if(Telemetry.on?(), do: Process.send_after(self(), :measure, @measure_every_ms))

  defp measure(state) do
    case Running.fetch(state.store_id) do
      {:ok, store} ->
        metrics = Native.metrics(store)
        # One that was opened again counts from 0 on.
        if state.measured, do: tell(state, state.measured, metrics)
        %{state | measured: metrics}

      {:error, _reason} ->
        %{state | measured: nil}
    end
  end

  defp tell(%{store_id: store_id}, before, now) do
    for {key, name} <- [syncs: :sync, batches: :apply, checkpoints: :checkpoint] do
      {count, us} = {count(now[key]) - count(before[key]), elem(now[key], 1) - elem(before[key], 1)}
      duration = System.convert_time_unit(max(us, 0), :microsecond, :native)
      if count > 0, do: Telemetry.execute([:engine, name], %{count: count, duration: duration}, %{store_id: store_id})
    end

    received = now.snapshots_received - before.snapshots_received
    if received > 0, do: Telemetry.execute([:snapshot, :received], %{count: received}, %{store_id: store_id})
  end

  defp count({buckets, _sum_us}), do: Enum.sum(buckets)
end
