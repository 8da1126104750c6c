defmodule Tank.Store.ReadIndex do
  @moduledoc false
  # How new a follower's view has to be for a read that must not be stale: the leader knows.
  #
  #     readers --> this process --question--> inbox of the leader's node
  #        ^             |  ^                       | its lease holds
  #        +----index----+  +---------index---------+
  #
  # Without the engine, where a question changes threads eight times on its way. It is asked once, and waited for a
  # moment; what is not answered then is left to the engine, which goes on, and asks whoever comes to lead.
  #
  # Readers that wait at the same time share a question. Only one that is still to be sent: the answer covers what was
  # acknowledged before the leader had the question, and a reader must see what was acknowledged before it came. So
  # whoever comes while questions are on their way shares the next one.

  use GenServer

  alias Tank.Store.{Inbox, Native, Running}

  # Hundreds of round trips in a data centre.
  @patience_ms 50

  # Questions on their way at a time: so that a few readers need not wait for one another, and many share.
  @questions_max 3

  def start_link(config), do: GenServer.start_link(__MODULE__, config.store_id, name: name(config.store_id))

  @doc "Asks the leader; `:unknown` when that is for the engine to do, or there is no answer at once."
  @spec ask(Native.store(), timeout) :: {:ok, non_neg_integer} | :unknown
  def ask(store, timeout) do
    case Native.leader_elsewhere(store) do
      nil ->
        :unknown

      {_node, store_id, _cluster_id, _member_id} ->
        ask_process(Process.whereis(name(store_id)), min(timeout, @patience_ms))
    end
  end

  # It is started anew, or the store is being closed.
  defp ask_process(nil, _patience_ms), do: :unknown

  defp ask_process(pid, patience_ms) do
    ref = make_ref()
    # An answer that comes too late finds no alias, and nobody's mailbox.
    reader = :erlang.alias([:reply])
    send(pid, {:ask, reader, ref})

    receive do
      {^ref, nil} -> :unknown
      {^ref, index} -> {:ok, index}
    after
      patience_ms ->
        :erlang.unalias(reader)
        receive do: ({^ref, _late} -> :unknown), after: (0 -> :unknown)
    end
  end

  defp name(store_id), do: Inbox.name(store_id, "tank_store_read_index_")

  @impl true
  def init(store_id), do: {:ok, %{store_id: store_id, alias: :erlang.alias(), waiting: [], asked: %{}}}

  @impl true
  def handle_info({:ask, reader, ref}, state), do: go_on(%{state | waiting: [{reader, ref} | state.waiting]})

  # All that had gathered in the mailbox is known.
  def handle_info(:timeout, state) do
    if state.waiting != [] and map_size(state.asked) < @questions_max,
      do: {:noreply, ask_leader(state)},
      else: {:noreply, state}
  end

  def handle_info({ref, index}, state) when is_reference(ref), do: state |> answered(ref, index) |> go_on()
  def handle_info({:late, ref}, state), do: state |> answered(ref, nil) |> go_on()
  def handle_info(_other, state), do: go_on(state)

  defp go_on(state), do: {:noreply, state, 0}

  defp ask_leader(%{waiting: readers} = state) do
    ref = make_ref()

    with {:ok, store} <- Running.fetch(state.store_id),
         {node, store_id, cluster_id, member_id} <- Native.leader_elsewhere(store),
         question = {:tank_read_index, state.alias, ref, cluster_id, member_id},
         :ok <- :erlang.send({Inbox.name(store_id), node}, question, [:noconnect, :nosuspend]) do
      timer = Process.send_after(self(), {:late, ref}, @patience_ms)
      %{state | waiting: [], asked: Map.put(state.asked, ref, {readers, timer})}
    else
      _nobody ->
        answer(readers, nil)
        %{state | waiting: []}
    end
  end

  defp answered(%{asked: asked} = state, ref, index) do
    case Map.pop(asked, ref) do
      {nil, _asked} ->
        state

      {{readers, timer}, asked} ->
        Process.cancel_timer(timer, async: true, info: false)
        answer(readers, index)
        %{state | asked: asked}
    end
  end

  # The index, or nil when it is not known.
  defp answer(readers, index), do: for({reader, ref} <- readers, do: send(reader, {ref, index}))
end
