Code.require_file("property.exs", __DIR__)

defmodule Tank.Store.SyncerFeedTest do
  # Random lists, changes and failures go into a feed whose consumer takes things out now and then. The consumer must
  # be told nothing that does not fit what it has, and in the end have what the store has.
  use ExUnit.Case, async: true

  import :proper_types, only: [frequency: 1, integer: 2, list: 1, oneof: 1]
  import Tank.Store.Property

  alias Tank.Store.KVPair
  alias Tank.Store.Syncer.{Feed, Item, Queue, Update}

  @types 2
  @statuses [:wait_for_datastore, :resync_in_progress, :in_sync]

  test "what a consumer is told fits what it has, and leads to what the store has" do
    check(list(command()), 2_000, [max_size: 120], &sound?(&1, 10_000))
  end

  test "the same, when few updates fit into the queue" do
    check(list(command()), 2_000, [max_size: 120], &sound?(&1, 2))
  end

  @tag :long
  test "the same, with long runs" do
    check(list(command()), 10_000, [max_size: 600], &sound?(&1, 10_000))
    check(list(command()), 10_000, [max_size: 600], &sound?(&1, 3))
  end

  test "a batch has at most 1,000 updates, and the first sync delivers all before :in_sync" do
    items = for n <- 1..2_500, do: item(["k#{n}"], n, 1)
    feed = 1 |> Feed.new() |> Feed.listed(0, items)
    {told, _feed} = drain(feed, [])

    assert [{:status, :wait_for_datastore}, {:status, :resync_in_progress}, {:updates, a}, {:updates, b}, {:updates, c}] =
             Enum.take(told, 5)

    assert Enum.map([a, b, c], &length/1) == [1_000, 1_000, 500]
    assert Enum.map(a ++ b ++ c, & &1.kv) == Enum.map(items, & &1.kv)
    assert Enum.drop(told, 5) == [{:status, :in_sync}]
  end

  test "what changes during the first sync comes after :in_sync, or before, but never in its place" do
    feed = 1 |> Feed.new() |> Feed.listed(0, [item(["a"], 1, 1)]) |> Feed.changed(0, [{:put, item(["b"], 2, 2)}])
    {told, _feed} = drain(feed, [])
    assert [_wait, _resync, {:updates, [%{kv: %{key: ["a"]}}]}, {:status, :in_sync}, {:updates, [b]}] = told
    assert %Update{type: :new, kv: %KVPair{key: ["b"], value: 2, revision: "2"}} = b
  end

  test "a change that was seen already is told once" do
    change = {:put, item(["a"], 1, 7)}
    feed = 1 |> Feed.new() |> Feed.listed(0, [item(["a"], 1, 7)]) |> Feed.changed(0, [change, change])
    {told, _feed} = drain(feed, [])
    assert [[%Update{type: :new}]] = for({:updates, updates} <- told, do: updates)
  end

  test "a value that did not parse is told first, then its update carries nil" do
    bad = %Item{kv: %KVPair{key: ["a"], revision: "2"}, unparsed: {:value, "junk"}}
    feed = 1 |> Feed.new() |> Feed.listed(0, [item(["0"], 1, 1), bad])
    {[_wait, _resync | told], _feed} = drain(feed, [])

    assert [{:updates, [%{kv: %{key: ["0"]}}]}, {:unparsed, ["a"], "junk"}, {:updates, [update]}, {:status, :in_sync}] =
             told

    assert update == %Update{type: :new, kv: %KVPair{key: ["a"], revision: "2"}}
  end

  test "a status that came and went while the consumer was busy is not told" do
    {_told, feed} = 1 |> Feed.new() |> Feed.listed(0, []) |> drain([])
    feed = feed |> Feed.lost(0) |> Feed.listed(0, [])
    assert {:nothing, feed} = Feed.next(feed)
    assert {{:status, :resync_in_progress}, feed} = feed |> Feed.lost(0) |> Feed.next()
    assert {{:status, :in_sync}, _feed} = feed |> Feed.listed(0, []) |> Feed.next()
  end

  test "over the bound, updates of a key become one" do
    put = &{%Update{type: &1, kv: %KVPair{key: ["a"], value: &2}}, nil}
    merged = fn updates -> elem(Queue.take(Enum.reduce(updates, %Queue{bound: 1}, &Queue.add(&2, &1))), 0) end
    assert {:updates, [%{type: :new, kv: %{value: 3}}]} = merged.([put.(:new, 1), put.(:updated, 2), put.(:updated, 3)])
    assert {:updates, [%{type: :updated, kv: %{value: 2}}]} = merged.([put.(:deleted, nil), put.(:new, 2)])
    assert {:updates, [%{type: :deleted}]} = merged.([put.(:updated, 1), put.(:deleted, nil)])
    assert merged.([put.(:new, 1), put.(:deleted, nil)]) == :nothing
  end

  # -- Random runs

  defp command do
    frequency([
      {20, {:write, type(), key(), oneof([:seen, :missed]), integer(1, 20)}},
      {10, {:delete, type(), key(), oneof([:seen, :missed])}},
      # A change that is told again, as a watch that starts anew may do.
      {4, {:repeat, type(), key()}},
      {4, {:list, type()}},
      {2, {:lost, type()}},
      {10, {:take, integer(1, 5)}},
      {1, :drain}
    ])
  end

  defp type, do: integer(0, @types - 1)
  defp key, do: oneof([["a"], ["b"], ["c"], ["a", "b"]])

  defp sound?(commands, bound) do
    state = %{
      feed: Feed.new(@types, %Queue{bound: bound}),
      store: Map.new(0..(@types - 1), &{&1, %{}}),
      listed: MapSet.new(),
      revision: 0,
      mirror: %{},
      statuses: []
    }

    state = commands |> Enum.reduce(state, &step/2) |> take(:all)
    # All is relisted in the end, so that the missed changes are found.
    state = Enum.reduce(0..(@types - 1), state, &step({:list, &1}, &2)) |> take(:all)
    true = state.mirror == for({_type, entries} <- state.store, pair <- entries, into: %{}, do: pair)
    [:in_sync | _before] = state.statuses
    stops_clean?(state)
  end

  defp stops_clean?(state) do
    # With something waiting, too.
    state = step({:write, 0, ["a"], :seen, 1}, step({:write, 1, ["z"], :seen, 1}, state))
    before = state.statuses
    state = take(%{state | feed: Feed.stop(state.feed)}, :all)
    {:done, _feed} = Feed.next(state.feed)
    state.mirror == %{} and state.statuses == before
  end

  # Keys of the two types differ: types do not overlap.
  defp step({:write, type, key, heard, value}, state) do
    key = own(type, key)
    revision = state.revision + 1
    state = %{put_in(state.store[type][key], {value, revision}) | revision: revision}
    hear(state, type, heard, {:put, item(key, value, revision)})
  end

  defp step({:delete, type, key, heard}, state) do
    key = own(type, key)
    state = %{update_in(state.store[type], &Map.delete(&1, key)) | revision: state.revision + 1}
    hear(state, type, heard, {:delete, key})
  end

  defp step({:repeat, type, key}, state) do
    key = own(type, key)

    case state.store[type] do
      %{^key => {value, revision}} -> hear(state, type, :seen, {:put, item(key, value, revision)})
      _missing -> hear(state, type, :seen, {:delete, key})
    end
  end

  defp step({:list, type}, state) do
    items = for {key, {value, revision}} <- state.store[type], do: item(key, value, revision)
    %{state | feed: Feed.listed(state.feed, type, items), listed: MapSet.put(state.listed, type)}
  end

  defp step({:lost, type}, state),
    do: %{state | feed: Feed.lost(state.feed, type), listed: MapSet.delete(state.listed, type)}

  defp step({:take, count}, state), do: take(state, count)
  defp step(:drain, state), do: take(state, :all)

  # There is no watch before the first list.
  defp hear(state, type, heard, change) do
    if heard == :seen and MapSet.member?(state.listed, type),
      do: %{state | feed: Feed.changed(state.feed, type, [change])},
      else: state
  end

  defp own(type, key), do: ["t#{type}" | key]

  defp take(state, 0), do: state

  defp take(state, count) do
    case Feed.next(state.feed) do
      {:nothing, feed} -> %{state | feed: feed}
      {:done, feed} -> %{state | feed: feed}
      {out, feed} -> take(told(%{state | feed: feed}, out), if(count == :all, do: :all, else: count - 1))
    end
  end

  defp told(state, {:status, status}) do
    true = status in @statuses and status != List.first(state.statuses)
    # The first are always the same, and nothing is told before them.
    true = length(state.statuses) > 1 or status == Enum.at(@statuses, length(state.statuses))
    if status == :in_sync, do: true = MapSet.size(state.listed) == @types
    %{state | statuses: [status | state.statuses]}
  end

  defp told(state, {:updates, updates}) do
    true = length(updates) in 1..1_000 and length(state.statuses) > 1
    %{state | mirror: Enum.reduce(updates, state.mirror, &mirror/2)}
  end

  defp mirror(%Update{type: :new, kv: kv}, mirror) when not is_map_key(mirror, kv.key),
    do: Map.put(mirror, kv.key, {kv.value, String.to_integer(kv.revision)})

  defp mirror(%Update{type: :updated, kv: kv}, mirror) when is_map_key(mirror, kv.key) do
    true = mirror[kv.key] != {kv.value, String.to_integer(kv.revision)}
    Map.put(mirror, kv.key, {kv.value, String.to_integer(kv.revision)})
  end

  defp mirror(%Update{type: :deleted, kv: kv}, mirror) when is_map_key(mirror, kv.key) do
    true = kv == %KVPair{key: kv.key}
    Map.delete(mirror, kv.key)
  end

  defp item(key, value, revision),
    do: %Item{kv: %KVPair{key: key, value: value, revision: Integer.to_string(revision)}}

  defp drain(feed, told) do
    case Feed.next(feed) do
      {:nothing, feed} -> {Enum.reverse(told), feed}
      {out, feed} -> drain(feed, [out | told])
    end
  end
end
