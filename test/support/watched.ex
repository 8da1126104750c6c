defmodule Tank.Store.Watched do
  @moduledoc """
  What a watch says, checked: the revisions rise, nothing comes twice, and what it has is the state that it leads to.
  """

  import ExUnit.Assertions

  alias Tank.Store.{Change, Watch}

  @wait_ms 10_000

  @doc "The next message of a watch."
  def next(%Watch{ref: ref}, timeout \\ @wait_ms) do
    receive do
      {:store_watch, ^ref, message} -> message
    after
      timeout ->
        flunk("no message of the watch in #{timeout} ms; the mailbox: #{inspect(Process.info(self(), :messages))}")
    end
  end

  @doc "The next message that is none of progress."
  def next_event(watch) do
    with {:progress, _revision} <- next(watch), do: next_event(watch)
  end

  @doc "The messages up to the one that says that all up to `revision` was told of."
  def until(watch, revision, seen \\ []) do
    case next(watch) do
      {kind, _what, _more} = message when kind in [:changes, :snapshot] -> go_on(watch, revision, message, seen)
      {kind, _revision} = message when kind in [:synced, :progress] -> go_on(watch, revision, message, seen)
      other -> until(watch, revision, [other | seen])
    end
  end

  defp go_on(watch, revision, message, seen) do
    if place(message) >= revision, do: Enum.reverse([message | seen]), else: until(watch, revision, [message | seen])
  end

  defp place({:snapshot, _entries, revision}), do: revision
  defp place({:changes, revision, _changes}), do: revision
  defp place({_kind, revision}), do: revision

  @doc "The changes as `{revision, [{type, path, value, previous}]}`, for comparison."
  def plain({:changes, revision, changes}) do
    for %Change{revision: ^revision} <- changes, do: :ok
    {revision, Enum.map(changes, &{&1.type, &1.path, &1.value, &1.previous})}
  end

  @doc "Applies a message to a map of paths to values; fails when it does not fit."
  def replay({:snapshot_part, entries}, map), do: Enum.reduce(entries, map, &Map.put(&2, &1.path, &1.value))
  def replay({:snapshot, entries, _revision}, map), do: replay({:snapshot_part, entries}, map)
  def replay({:changes, _revision, changes}, map), do: Enum.reduce(changes, map, &replay_change/2)
  def replay(_other, map), do: map

  defp replay_change(%Change{type: :created, path: path} = change, map) do
    refute Map.has_key?(map, path), "#{inspect(change)} of an entry that was there"
    Map.put(map, path, change.value)
  end

  defp replay_change(%Change{path: path} = change, map) do
    assert {:ok, change.previous} == Map.fetch(map, path), "#{inspect(change)} of another entry"
    if change.type == :updated, do: Map.put(map, path, change.value), else: Map.delete(map, path)
  end
end
