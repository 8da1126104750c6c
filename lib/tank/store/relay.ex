defmodule Tank.Store.Relay do
  @moduledoc false
  # Sends one store's frames of one lane to one node. There is one for each lane, so that heartbeats do not wait behind
  # log entries, nor those behind a snapshot.
  #
  # It never connects nodes, and is never suspended by a slow one. A connection that takes no more is waited for, in the
  # relay alone and for as long as a frame of the lane is worth something; then, and when there is no connection, what
  # is queued is dropped. The raft core sends it again, and the members of a cluster expect no more of the network.

  alias Tank.Store.{Inbox, Native}

  @lanes [:control, :log, :snapshot]

  # A heartbeat or a vote that comes later than this has been replaced by the next one.
  @patience_ms %{control: 50, log: 500, snapshot: 5_000}
  @try_again_ms 5

  @doc "The lanes, each with a relay of its own."
  @spec lanes :: [:control | :log | :snapshot]
  def lanes, do: @lanes

  @doc "Starts a relay, linked to the calling peers process."
  @spec start_link(Native.link(), atom, node, atom) :: pid
  def start_link(link, store_id, node, lane) do
    peers = self()
    inbox = {Inbox.name(store_id), node}
    name = Atom.to_string(node)

    # Frames of all sizes pass through: what is garbage should not wait for a full heap.
    :erlang.spawn_opt(
      fn -> loop(%{link: link, lane: lane, inbox: inbox, node: node, name: name, peers: peers}) end,
      [:link, fullsweep_after: 10]
    )
  end

  defp loop(relay) do
    receive do
      {:tank_frame, frame} -> relay(frame, relay, @patience_ms[relay.lane])
      _other -> :ok
    end

    loop(relay)
  end

  defp relay(frame, relay, patience_ms) do
    case :erlang.send(relay.inbox, {:tank_frame, node(), relay.lane, frame}, [:noconnect, :nosuspend]) do
      :ok ->
        done(frame, relay)

      :nosuspend when patience_ms > 0 ->
        receive after: (@try_again_ms -> relay(frame, relay, patience_ms - @try_again_ms))

      :nosuspend ->
        drop_all(frame, relay)

      :noconnect ->
        send(relay.peers, {:disconnected, relay.node})
        drop_all(frame, relay)
    end
  end

  defp drop_all(frame, relay) do
    done(frame, relay)

    receive do
      {:tank_frame, frame} -> drop_all(frame, relay)
    after
      0 -> :ok
    end
  end

  defp done(frame, relay), do: Native.relayed(relay.link, relay.name, relay.lane, byte_size(frame))
end
