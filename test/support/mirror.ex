defmodule Tank.Store.Mirror do
  @moduledoc """
  A syncer's consumer that checks what it is told: a process that makes the syncer, and keeps what it holds.

  It fails the test, by its link, at an update that does not fit what it has, a key that is not what its path says, or a
  status that comes twice.
  """

  alias Tank.Store.{Backend, KVPair, Syncer}
  alias Tank.Store.Backend.Key
  alias Tank.Store.Syncer.Update

  @statuses [:wait_for_datastore, :resync_in_progress, :in_sync]

  defmodule Slow do
    @moduledoc "Callbacks of a syncer that take their time, and tell the mirror of this VM."

    @behaviour Syncer

    @doc "For how many milliseconds a callback blocks at the most, and the process that it tells."
    def tell(pid, block_ms_max), do: :persistent_term.put(__MODULE__, {pid, block_ms_max})

    @impl true
    def on_status_updated(status), do: called({:status, status})
    @impl true
    def on_updates(updates), do: called({:updates, updates})

    defp called(what) do
      {pid, block_ms_max} = :persistent_term.get(__MODULE__)
      Process.sleep(:rand.uniform(block_ms_max))
      send(pid, {:syncer, __MODULE__, what})
    end
  end

  @doc "Starts a mirror of what the options of `Tank.Store.Syncer.new/3` take."
  def start_link(client, opts) do
    {pid, syncer} = start(client, opts)
    Process.link(pid)
    {pid, syncer}
  end

  @doc "The same, for another node than the test's."
  def start(client, opts) do
    start(fn ->
      {:ok, syncer} = Backend.syncer(client, self(), opts)
      {syncer, syncer.ref}
    end)
  end

  @doc "The same with callbacks that block for up to so many milliseconds. There is one in a VM."
  def start_slow(client, opts, block_ms_max) do
    start(fn ->
      Slow.tell(self(), block_ms_max)
      {:ok, syncer} = Backend.syncer(client, Slow, opts)
      {syncer, Slow}
    end)
  end

  @doc """
  What the mirror has: `entries`, and what it was told, newest first: `statuses`, `sizes` of batches, `failed`. Raises
  what has ended it, if it has.
  """
  def state(pid) do
    monitor = Process.monitor(pid)
    send(pid, {:state, self()})

    receive do
      {^pid, :state, state} ->
        Process.demonitor(monitor, [:flush])
        state

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        raise "the mirror has ended: #{Exception.format_exit(reason)}"
    end
  end

  defp start(make) do
    caller = self()

    pid =
      spawn(fn ->
        {syncer, from} = make.()
        :ok = Syncer.start(syncer)
        send(caller, {self(), syncer})
        loop(from, %{syncer: syncer, entries: %{}, statuses: [], sizes: [], failed: []})
      end)

    receive do: ({^pid, syncer} -> {pid, syncer})
  end

  defp loop(ref, state) do
    receive do
      {:syncer, ^ref, message} ->
        loop(ref, told(message, state))

      {:state, from} ->
        send(from, {self(), :state, state})
        loop(ref, state)
    end
  end

  @doc "The state after a message; raises when it does not fit."
  def told({:status, status}, %{statuses: statuses} = state) do
    if status == List.first(statuses), do: raise("status #{status} twice")

    if length(statuses) < 2 and status != Enum.at(@statuses, length(statuses)),
      do: raise("status #{status} after #{inspect(statuses)}")

    %{state | statuses: [status | statuses]}
  end

  def told({:updates, updates}, state) do
    if length(updates) not in 1..1_000, do: raise("a batch of #{length(updates)}")
    %{state | entries: Enum.reduce(updates, state.entries, &apply_update/2), sizes: [length(updates) | state.sizes]}
  end

  def told({:parse_failed, key, raw}, state), do: %{state | failed: [{key, raw} | state.failed]}

  defp apply_update(%Update{type: type, kv: %KVPair{key: key} = kv} = update, entries) do
    if key |> Key.to_path() |> Key.from_path() != key, do: raise("#{inspect(key)} is no path")

    case {type, entries} do
      {:new, %{^key => _known}} ->
        raise("#{inspect(update)} of a known key")

      {:new, _unknown} ->
        Map.put(entries, key, {kv.value, kv.revision})

      {:updated, %{^key => {_value, revision}}} when revision != kv.revision ->
        Map.put(entries, key, {kv.value, kv.revision})

      {:deleted, %{^key => _known}} when kv.value == nil and kv.revision == nil ->
        Map.delete(entries, key)

      _misfit ->
        raise("#{inspect(update)}, and the mirror has #{inspect(entries[key])}")
    end
  end
end
