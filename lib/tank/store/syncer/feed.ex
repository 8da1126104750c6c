defmodule Tank.Store.Syncer.Feed do
  @moduledoc false
  # What a syncer tells its consumer, as a pure value: lists and changes go in, statuses and updates come out.
  #
  #     :wait_for_datastore --a type is listed--> :resync_in_progress --all are--> :in_sync
  #                                                       ^                           |
  #                                                       +- a list fails, no quorum -+
  #
  # Statuses do not queue. There is the one that was reported and the one that is true; the way between them is gone
  # when the consumer asks. So it never hears one twice in a row, and a state that came and went while it was busy, not
  # at all. `:in_sync` waits for what was queued before it, up to the `barrier`.

  alias Tank.Store.Syncer.{Cache, Item, Queue, Update}

  @enforce_keys [:caches]
  defstruct [
    :caches,
    :barrier,
    listed: MapSet.new(),
    queue: %Queue{},
    reported: nil,
    status: :wait_for_datastore,
    stopping?: false
  ]

  @type type :: non_neg_integer
  @type status :: :wait_for_datastore | :resync_in_progress | :in_sync
  @type change :: {:put, Item.t()} | {:delete, Tank.Store.Backend.Key.t()}
  @type out :: {:status, status} | {:updates, [Update.t()]} | {:unparsed, Tank.Store.Backend.Key.t(), term}
  @type t :: %__MODULE__{}

  @doc "A feed of so many types, numbered from 0."
  @spec new(pos_integer, Queue.t()) :: t
  def new(types, queue \\ %Queue{}),
    do: %__MODULE__{caches: Map.new(0..(types - 1), &{&1, Cache.new()}), queue: queue}

  @doc "All keys of a type, as they stand."
  @spec listed(t, type, [Item.t()]) :: t
  def listed(feed, type, items) do
    feed = queue(feed, type, Cache.relist(Map.fetch!(feed.caches, type), items))
    now_listed(%{feed | listed: MapSet.put(feed.listed, type)})
  end

  @doc "What changed since then, in its order."
  @spec changed(t, type, [change]) :: t
  def changed(feed, type, changes) do
    Enum.reduce(changes, feed, fn change, feed ->
      cache = Map.fetch!(feed.caches, type)

      case change do
        {:put, item} -> queue(feed, type, Cache.put(cache, item))
        {:delete, key} -> queue(feed, type, Cache.delete(cache, key))
      end
    end)
  end

  @doc "A type could not be listed, or there is no quorum: what the consumer has may be old."
  @spec lost(t, type) :: t
  def lost(feed, type) do
    feed = %{feed | listed: MapSet.delete(feed.listed, type)}
    if feed.status == :in_sync, do: %{feed | status: :resync_in_progress, barrier: nil}, else: feed
  end

  @doc "Drops what waits; all that the consumer has is to be deleted, and then comes the end."
  @spec stop(t) :: t
  def stop(feed) do
    waiting = Queue.waiting(feed.queue)
    settled = for {_type, cache} <- feed.caches, {key, _revision} <- cache, not is_map_key(waiting, key), do: key
    changing = for {key, type} <- waiting, type != :new, do: key
    queue = Enum.reduce(settled ++ changing, %Queue{}, &Queue.add(&2, {Cache.deleted(&1), nil}))
    caches = Map.new(feed.caches, fn {type, _cache} -> {type, Cache.new()} end)
    %{feed | queue: queue, caches: caches, stopping?: true}
  end

  @doc "What the consumer is to be told next; `:nothing` for now, or `:done` for ever."
  @spec next(t) :: {out | :nothing | :done, t}
  def next(%{stopping?: true} = feed) do
    with {:nothing, feed} <- take(feed, nil), do: {:done, feed}
  end

  def next(%{reported: same, status: same} = feed), do: take(feed, nil)
  def next(%{reported: nil} = feed), do: report(feed, :wait_for_datastore)
  def next(%{reported: :wait_for_datastore} = feed), do: report(feed, :resync_in_progress)
  def next(%{status: :resync_in_progress} = feed), do: report(feed, :resync_in_progress)

  def next(%{status: :in_sync, barrier: barrier} = feed) do
    if Queue.past?(feed.queue, barrier), do: report(feed, :in_sync), else: take(feed, barrier)
  end

  defp now_listed(feed) do
    cond do
      feed.status == :in_sync -> feed
      MapSet.size(feed.listed) < map_size(feed.caches) -> %{feed | status: :resync_in_progress}
      true -> %{feed | status: :in_sync, barrier: Queue.end_of(feed.queue)}
    end
  end

  defp queue(feed, type, {updates, cache}) do
    %{feed | queue: Enum.reduce(updates, feed.queue, &Queue.add(&2, &1)), caches: %{feed.caches | type => cache}}
  end

  defp report(feed, status), do: {{:status, status}, %{feed | reported: status}}

  defp take(feed, barrier) do
    {out, queue} = Queue.take(feed.queue, barrier)
    {out, %{feed | queue: queue}}
  end
end
