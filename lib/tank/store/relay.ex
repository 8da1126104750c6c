defmodule Tank.Store.Relay do
  @moduledoc false
  # Sends one store's frames of one channel to one node. Votes, heartbeats and acknowledgements have a channel of their
  # own, so that they do not wait in a queue of data here.
  #
  # A relay never connects nodes, and is never suspended by a slow one. It waits for a connection that takes no more, for
  # as long as a frame of its channel is worth something. After that, and when there is no connection, it drops what is
  # queued: the engine sends again what has to arrive.

  alias Tank.Store.{Inbox, Native}

  @channels [:control, :data]

  # The engine has no more data on its way than the connection carries, and gives up a connection that carries nothing
  # after four seconds.
  @patience_ms %{control: 500, data: 5_000}
  @try_again_ms 5

  @doc "The channels, each with a relay of its own."
  @spec channels :: [:control | :data]
  def channels, do: @channels

  @doc "Starts a relay, linked to the calling peers process."
  @spec start_link(Native.link(), atom, node, atom) :: pid
  def start_link(link, store_id, node, channel) do
    peers = self()
    inbox = {Inbox.name(store_id), node}
    name = Atom.to_string(node)

    # Frames of all sizes pass through: what is garbage should not wait for a full heap.
    :erlang.spawn_opt(
      fn -> loop(%{link: link, channel: channel, inbox: inbox, node: node, name: name, peers: peers}) end,
      [:link, fullsweep_after: 10]
    )
  end

  defp loop(relay) do
    receive do
      {:tank_frame, frame} -> relay(frame, relay, @patience_ms[relay.channel])
      _other -> :ok
    end

    loop(relay)
  end

  defp relay(frame, relay, patience_ms) do
    case :erlang.send(relay.inbox, {:tank_frame, node(), frame}, [:noconnect, :nosuspend]) do
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

  defp done(frame, relay), do: Native.relayed(relay.link, relay.name, relay.channel, byte_size(frame))
end
