defmodule Tank.Store.Inbox do
  @moduledoc false
  # Takes the frames that other nodes send to one store, and gives them to the engine.
  #
  # While no engine is attached, as when the store is just being opened, frames are dropped, and the inbox that belongs to
  # their sender is told so: it need not wait for answers. Of frames of another cluster `Tank.Store.OtherClusters` is told.

  use GenServer

  alias Tank.Store.{Native, OtherClusters, ProcessCall}

  # It does nothing that takes longer, unless the node hangs.
  @attach_timeout 30_000

  # How often it is told that a node sends frames of another cluster.
  @tell_every_ms 1_000

  defguardp is_id(id) when is_integer(id) and id in 0..0xFFFF_FFFF_FFFF_FFFF

  def start_link(config), do: GenServer.start_link(__MODULE__, config.store_id, name: name(config.store_id))

  @doc "The name under which other nodes reach the inbox of a store."
  @spec name(atom | String.t()) :: atom
  def name(store_id), do: name(store_id, "tank_store_inbox_")

  @doc "The name of a process of a store that is sent to many times a second."
  @spec name(atom | String.t(), prefix :: String.t()) :: atom
  def name(store_id, prefix) when is_atom(store_id), do: name(Atom.to_string(store_id), prefix)

  def name(id, prefix) do
    # One atom for each store of this VM. A store id may be as long as an atom can be.
    suffix = if byte_size(id) <= 200, do: id, else: Integer.to_string(:erlang.phash2(id, 4_294_967_296))
    String.to_atom(prefix <> suffix)
  end

  @doc "Gives frames to `store` from now on; to nobody, for nil. When this returns, no frame is on its way to another."
  @spec attach(atom, Native.store() | nil) :: :ok
  def attach(store_id, store) do
    case ProcessCall.call(name(store_id), {:attach, store}, @attach_timeout) do
      :ok ->
        :ok

      # It is gone, and delivers to nobody; the supervisor restarts it and the store.
      {:error, :noproc} ->
        :ok

      # It hangs. Without it the supervisor restarts both.
      {:error, :timeout} ->
        with pid when pid != nil <- Process.whereis(name(store_id)), do: Process.exit(pid, :kill)
        :ok
    end
  end

  @doc "Tells the engine that another node is disconnected."
  @spec peer_lost(atom, node) :: :ok
  def peer_lost(store_id, node) do
    with pid when pid != nil <- Process.whereis(name(store_id)), do: send(pid, {:peer_lost, node})
    :ok
  end

  @impl true
  def init(store_id) do
    # Many frames at a time come in, and none of them should wait behind a scheduler's other work.
    Process.flag(:priority, :high)
    {:ok, %{store_id: store_id, name: name(store_id), store: nil, others: %{}}}
  end

  @impl true
  # Without what referred to the engine before: that takes as much memory as its state.
  def handle_call({:attach, store}, _from, state), do: {:reply, :ok, %{state | store: store}, :hibernate}

  @impl true
  def handle_info({:tank_frame, node, frame}, %{store: nil} = state) when is_atom(node) and is_binary(frame) do
    _sent? = :erlang.send({state.name, node}, {:tank_absent, node()}, [:noconnect, :nosuspend])
    {:noreply, state}
  end

  def handle_info({:tank_frame, node, frame}, state) when is_atom(node) and is_binary(frame) do
    # A frame that fits nobody is counted by the engine, and dropped.
    case Native.deliver(state.store, Atom.to_string(node), frame) do
      :ok -> {:noreply, state}
      {:other_cluster, cluster_id} -> {:noreply, other_cluster(node, cluster_id, state)}
    end
  end

  def handle_info({:tank_absent, node}, %{store: store} = state) when store != nil and is_atom(node) do
    Native.peer_absent(store, Atom.to_string(node))
    {:noreply, state}
  end

  def handle_info({:peer_lost, node}, %{store: store} = state) when store != nil do
    Native.peer_lost(store, Atom.to_string(node))
    {:noreply, state}
  end

  # See Tank.Store.ReadIndex.
  def handle_info({:tank_read_index, asker, ref, cluster_id, member_id}, %{store: store} = state)
      when store != nil and is_reference(asker) and is_id(cluster_id) and is_id(member_id) do
    answer = {ref, Native.read_index(store, cluster_id, member_id)}
    # One that cannot be sent now is not waited for: the asker has another way.
    _sent? = :erlang.send(asker, answer, [:noconnect, :nosuspend])
    {:noreply, state}
  end

  def handle_info(_dropped, state), do: {:noreply, state}

  # Frames come many times a second.
  defp other_cluster(node, cluster_id, %{others: others} = state) do
    now = System.monotonic_time(:millisecond)

    if now - Map.get(others, node, now - @tell_every_ms) >= @tell_every_ms do
      OtherClusters.met(state.store_id, node, cluster_id, :frames)
      %{state | others: Map.put(others, node, now)}
    else
      state
    end
  end
end
