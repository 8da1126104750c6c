defmodule Tank.Store.Inbox do
  @moduledoc false
  # Takes the frames that other nodes send to one store, and gives them to the engine.
  #
  # While no engine is attached, as when the store is just being opened, frames are dropped: a network may do that.

  use GenServer

  alias Tank.Store.Native

  # Decoding this much takes a good part of a millisecond; more is left to a dirty scheduler.
  @large_bytes 256 * 1024

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
    GenServer.call(name(store_id), {:attach, store}, :infinity)
  catch
    # It is gone, and delivers to nobody; the supervisor starts it and the store anew.
    :exit, _reason -> :ok
  end

  @impl true
  def init(_store_id) do
    # Many frames at a time come in, and none of them should wait behind a scheduler's other work.
    Process.flag(:priority, :high)
    {:ok, nil}
  end

  @impl true
  def handle_call({:attach, store}, _from, _before), do: {:reply, :ok, store}

  @impl true
  def handle_info({:tank_frame, node, lane, frame}, store)
      when store != nil and is_atom(node) and lane in [:control, :log, :snapshot] and is_binary(frame) do
    # What it says does not matter here: a frame that fits nobody is counted by the engine, and dropped.
    if byte_size(frame) > @large_bytes,
      do: Native.deliver_large(store, Atom.to_string(node), lane, frame),
      else: Native.deliver(store, Atom.to_string(node), lane, frame)

    {:noreply, store}
  end

  # See Tank.Store.ReadIndex.
  def handle_info({:tank_read_index, asker, ref, cluster_id, member_id}, store)
      when store != nil and is_reference(asker) and is_id(cluster_id) and is_id(member_id) do
    answer = {ref, Native.read_index(store, cluster_id, member_id)}
    # One that cannot be sent now is not waited for: the asker has another way.
    _sent? = :erlang.send(asker, answer, [:noconnect, :nosuspend])
    {:noreply, store}
  end

  def handle_info(_dropped, store), do: {:noreply, store}
end
