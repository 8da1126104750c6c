defmodule Tank.Khepri.Member do
  @moduledoc false
  # A process under the store's id: by that name, applications look whether the store runs. It also answers what they ask
  # Ra about the store, where that has an answer, and keeps Ra's tables about it (`Tank.Khepri.RaTables`).

  use GenServer

  alias Tank.Khepri.RaTables
  alias Tank.Store.Cluster

  # The figures in Ra's tables are looked at by people, and by what tells whether anything has changed.
  @note_ms 500

  @spec start_link(atom) :: GenServer.on_start()
  def start_link(store), do: GenServer.start_link(__MODULE__, store, name: store)

  @doc "Has Ra's tables name the leader that this member knows now."
  @spec note_now(atom) :: :ok
  def note_now(store) do
    if RaTables.there?(), do: GenServer.call(store, :note, 5_000), else: :ok
  catch
    :exit, _gone_or_busy -> :ok
  end

  @impl GenServer
  def init(store) do
    Process.flag(:trap_exit, true)

    if RaTables.there?() do
      send(self(), :note)
      Cluster.subscribe(store)
    end

    {:ok, store}
  end

  @impl GenServer
  def terminate(_reason, store), do: if(RaTables.there?(), do: RaTables.clear(store))

  @impl GenServer
  def handle_info(:note, store) do
    Process.send_after(self(), :note, @note_ms)
    RaTables.note(store)
    {:noreply, store}
  end

  def handle_info({:store_cluster, store, {:leader, _node, _term}}, store) do
    RaTables.note(store)
    {:noreply, store}
  end

  def handle_info(_other, store), do: {:noreply, store}

  @impl GenServer
  def handle_call({:leader_call, {:state_query, :members}}, _from, store), do: {:reply, members(store), store}
  def handle_call({:local_call, {:state_query, :members}}, _from, store), do: {:reply, members(store), store}

  def handle_call({:leader_call, {:command, _priority, {:"$ra_leave", {_store, node}, _mode}}}, from, store) do
    aside(from, fn -> left(Cluster.remove_member(store, node), store, node) end)
    {:noreply, store}
  end

  def handle_call({:leader_call, {:transfer_leadership, {_store, node}}}, from, store) do
    aside(from, fn -> transferred(store, node) end)
    {:noreply, store}
  end

  def handle_call(:note, _from, store), do: {:reply, RaTables.note(store), store}

  def handle_call(:force_member_change, from, store) do
    aside(from, fn -> Cluster.force_new_cluster(store, force: true) end)
    {:noreply, store}
  end

  def handle_call(_other, _from, store), do: {:reply, {:error, :unsupported}, store}

  # What takes long does not hold up the others.
  defp aside(from, fun), do: spawn(fn -> GenServer.reply(from, fun.()) end)

  defp members(store) do
    with {:ok, members} <- Cluster.members(store, favor: :low_latency, timeout: 5_000),
         {:ok, leader} <- Cluster.leader(store) do
      {:ok, members, {store, leader || node()}}
    end
  end

  defp left(:ok, store, _node), do: {:ok, :ok, {store, node()}}
  defp left({:error, {:tank, :not_a_member, _props}}, _store, _node), do: {:error, :not_member}
  defp left({:error, _reason}, _store, _node), do: {:error, :cluster_change_not_permitted}

  defp transferred(store, node) do
    case Cluster.leader(store) do
      {:ok, ^node} -> :already_leader
      _another -> Cluster.transfer_leader(store, node)
    end
  end
end
