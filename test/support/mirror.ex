defmodule Tank.Store.Mirror do
  @moduledoc """
  A syncer's consumer that checks what it is told: a process that makes the syncer, and keeps what it holds.

  It fails the test, by its link, at an update that does not fit what it has, or a status that comes twice.
  """

  alias Tank.Store.{Backend, KVPair, Syncer}
  alias Tank.Store.Syncer.Update

  @statuses [:wait_for_datastore, :resync_in_progress, :in_sync]

  @doc "Starts a mirror of what the options of `Tank.Store.Syncer.new/3` take."
  def start_link(client, opts) do
    {pid, syncer} = start(client, opts)
    Process.link(pid)
    {pid, syncer}
  end

  @doc "The same, for another node than the test's."
  def start(client, opts) do
    caller = self()

    pid =
      spawn(fn ->
        {:ok, syncer} = Backend.syncer(client, self(), opts)
        :ok = Syncer.start(syncer)
        send(caller, {self(), syncer})
        loop(%{syncer: syncer, entries: %{}, statuses: [], sizes: [], failed: []})
      end)

    receive do: ({^pid, syncer} -> {pid, syncer})
  end

  @doc "What the mirror has: `entries`, and what it was told, newest first: `statuses`, `sizes` of batches, `failed`."
  def state(pid) do
    send(pid, {:state, self()})
    receive do: ({^pid, :state, state} -> state)
  end

  defp loop(%{syncer: %{ref: ref}} = state) do
    receive do
      {:syncer, ^ref, message} ->
        loop(told(message, state))

      {:state, from} ->
        send(from, {self(), :state, state})
        loop(state)
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
