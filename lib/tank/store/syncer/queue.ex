defmodule Tank.Store.Syncer.Queue do
  @moduledoc false
  # Updates that wait for the consumer, in their order.
  #
  # As long as there are few, each is delivered. Over the bound an update takes the place of the one that waits for the
  # same key, so that a consumer that blocks for ever costs as much memory as there are keys, not changes.

  alias Tank.Store.Syncer.Update

  @batch_max 1_000
  @bound 10_000

  defstruct first: 0, next: 0, items: %{}, last: %{}, bound: @bound

  @type t :: %__MODULE__{
          first: non_neg_integer,
          next: non_neg_integer,
          items: %{optional(non_neg_integer) => Tank.Store.Syncer.Cache.update()},
          last: map,
          bound: non_neg_integer
        }

  @spec add(t, Tank.Store.Syncer.Cache.update()) :: t
  def add(queue, {%Update{kv: %{key: key}} = new, unparsed} = update) do
    with true <- map_size(queue.items) >= queue.bound,
         {:ok, place} <- Map.fetch(queue.last, key) do
      {old, _unparsed} = Map.fetch!(queue.items, place)
      replace(queue, place, key, merge(old.type, new), unparsed)
    else
      _room -> append(queue, key, update)
    end
  end

  @doc "Whether all that was added before a place, which `end_of/1` gave, has left."
  @spec past?(t, non_neg_integer) :: boolean
  def past?(queue, place), do: skip_holes(queue).first >= place

  @spec end_of(t) :: non_neg_integer
  def end_of(%__MODULE__{next: next}), do: next

  @doc """
  What comes next: a value that did not parse, which is told ahead of its update; or a batch of updates, at most 1,000
  and none from `barrier` on, unless it is nil.
  """
  @spec take(t, non_neg_integer | nil) :: {{:updates, [Update.t()]} | {:unparsed, term, term} | :nothing, t}
  def take(queue, barrier \\ nil) do
    queue = skip_holes(queue)
    limit = min(barrier || queue.next, queue.next)

    case queue.first < limit and Map.fetch!(queue.items, queue.first) do
      false -> {:nothing, queue}
      {update, {:value, raw}} -> {{:unparsed, update.kv.key, raw}, put_in(queue.items[queue.first], {update, nil})}
      _parsed -> take_batch(queue, limit, [], 0)
    end
  end

  @doc "The keys that have updates waiting, each with the type of the first of them."
  @spec waiting(t) :: %{optional(term) => Update.type()}
  def waiting(queue) do
    for {_place, {update, _unparsed}} <- Enum.sort(queue.items), reduce: %{} do
      first -> Map.put_new(first, update.kv.key, update.type)
    end
  end

  # What two updates of a key come to.
  defp merge(:new, %Update{type: :deleted}), do: nil
  defp merge(:new, new), do: %{new | type: :new}
  defp merge(:deleted, new), do: %{new | type: :updated}
  defp merge(:updated, new), do: new

  defp replace(queue, place, key, nil, _unparsed) do
    %{queue | items: Map.delete(queue.items, place), last: forget_last(queue.last, key, place)}
  end

  defp replace(queue, place, _key, update, unparsed),
    do: %{queue | items: Map.put(queue.items, place, {update, unparsed})}

  defp append(%{next: next} = queue, key, update) do
    %{queue | next: next + 1, items: Map.put(queue.items, next, update), last: Map.put(queue.last, key, next)}
  end

  defp take_batch(%{first: first} = queue, limit, batch, count) when first < limit and count < @batch_max do
    case queue.items do
      %{^first => {update, nil}} -> take_batch(drop_first(queue, update), limit, [update | batch], count + 1)
      # Its turn is the next one: first the value that did not parse is told.
      %{^first => _unparsed} -> {{:updates, Enum.reverse(batch)}, queue}
      _hole -> take_batch(%{queue | first: first + 1}, limit, batch, count)
    end
  end

  defp take_batch(queue, _limit, batch, _count), do: {{:updates, Enum.reverse(batch)}, queue}

  defp drop_first(%{first: first} = queue, update) do
    last = forget_last(queue.last, update.kv.key, first)
    %{queue | first: first + 1, items: Map.delete(queue.items, first), last: last}
  end

  defp forget_last(last, key, place), do: if(last[key] == place, do: Map.delete(last, key), else: last)

  defp skip_holes(%{first: first, next: next, items: items} = queue) when first < next and not is_map_key(items, first),
    do: skip_holes(%{queue | first: first + 1})

  defp skip_holes(queue), do: queue
end
