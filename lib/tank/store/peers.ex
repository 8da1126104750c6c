defmodule Tank.Store.Peers do
  @moduledoc false
  # The way of one store to other nodes: connects them, and has relays for those that are connected.
  #
  #     unknown --wanted--> connecting --nodeup--> connected, with relays --nodedown--> unknown
  #                             |                                                          ^
  #                             +------- failed: asked for again in a while ---------------+
  #
  # The engine asks for a node again and again while it has something to say to it. Nothing here keeps a node connected
  # that no member of the cluster runs on.

  use GenServer

  alias Tank.Store.{Inbox, Names, Native, ProcessCall, Relay}

  # It only takes messages, and does nothing that takes time.
  @link_timeout 30_000

  # A node that refuses is asked again at once; one that does not answer holds up only the process that connects.
  @connect_again_ms 500

  def start_link(config), do: GenServer.start_link(__MODULE__, config.store_id, name: name(config.store_id))

  @doc "The link that an engine of this store is opened with."
  @spec link(atom) :: {:ok, Native.link()} | {:error, :noproc | :timeout}
  def link(store_id), do: ProcessCall.call(name(store_id), :link, @link_timeout)

  @impl true
  def init(store_id) do
    Process.flag(:trap_exit, true)
    # Works on a node that is not distributed too, which may become so.
    :ok = :net_kernel.monitor_nodes(true, node_type: :all)
    {:ok, %{store_id: store_id, link: Native.link(), relays: %{}, connecting: %{}}}
  end

  @impl true
  def handle_call(:link, _from, state), do: {:reply, {:ok, state.link}, state}

  @impl true
  def handle_info({:tank_peer_wanted, name}, state) do
    case existing_node(name) do
      {:ok, node} -> {:noreply, want(node, state)}
      :unknown -> {:noreply, state}
    end
  end

  def handle_info({:nodeup, node, _info}, state) do
    # Only a node that was asked for: others are nothing to this store.
    if Map.has_key?(state.connecting, node), do: {:noreply, connected(node, state)}, else: {:noreply, state}
  end

  def handle_info({:nodedown, node, _info}, state) do
    :ok = Inbox.peer_lost(state.store_id, node)
    {:noreply, disconnected(node, state)}
  end

  # A relay noticed it, and its message may have overtaken the node's return.
  def handle_info({:disconnected, node}, state) do
    if node in Node.list(:connected), do: {:noreply, state}, else: {:noreply, disconnected(node, state)}
  end

  def handle_info({:connect_ended, node}, state) do
    # Its `:nodeup` came before, as a rule. New relays would lose what the first ones have queued.
    if node in Node.list(:connected) and not Map.has_key?(state.relays, node),
      do: {:noreply, connected(node, state)},
      else: {:noreply, %{state | connecting: Map.delete(state.connecting, node)}}
  end

  def handle_info({:EXIT, pid, reason}, state) do
    case Enum.find(state.relays, fn {_node, pids} -> pid in pids end) do
      {node, _pids} -> {:noreply, disconnected(node, state)}
      nil when reason == :normal -> {:noreply, state}
      # The supervisor's, or a connecting process that was killed.
      nil -> {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp want(node, state) do
    cond do
      node == node() or Map.has_key?(state.relays, node) -> state
      node in Node.list(:connected) -> connected(node, state)
      Map.has_key?(state.connecting, node) -> state
      true -> %{state | connecting: Map.put(state.connecting, node, connect(node))}
    end
  end

  # Connecting takes seconds when nobody answers, so another process does it.
  defp connect(node) do
    peers = self()

    spawn(fn ->
      unless Node.connect(node) == true, do: Process.sleep(@connect_again_ms)
      send(peers, {:connect_ended, node})
    end)
  end

  defp connected(node, state) do
    state = disconnected(node, state)
    name = Atom.to_string(node)

    pids =
      for channel <- Relay.channels() do
        pid = Relay.start_link(state.link, state.store_id, node, channel)
        :ok = Native.set_relay(state.link, name, channel, pid)
        pid
      end

    %{state | relays: Map.put(state.relays, node, pids), connecting: Map.delete(state.connecting, node)}
  end

  # What is queued goes with the relays: it is of a connection that is gone.
  defp disconnected(node, state) do
    {pids, relays} = Map.pop(state.relays, node, [])
    if pids != [], do: Native.unset_relays(state.link, Atom.to_string(node))
    Enum.each(pids, &stop_relay/1)
    %{state | relays: relays}
  end

  defp stop_relay(pid) do
    Process.unlink(pid)
    Process.exit(pid, :kill)
  end

  # Names come from the log, where `Tank.Store.Members` puts those of nodes that were asked in, or from a connected
  # node. A member that was just started knows no atom for the others yet: these few are made.
  defp existing_node(name) when byte_size(name) <= 255 do
    if String.valid?(name) and String.contains?(name, "@"), do: {:ok, String.to_atom(name)}, else: :unknown
  end

  defp existing_node(_name), do: :unknown

  defp name(store_id), do: {:via, Registry, {Names, {:peers, store_id}}}
end
