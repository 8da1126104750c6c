defmodule Tank.Store.Backend.WatchTest do
  # Watches and lists of what is large, foreign, compacted, or given up at any moment.
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Backend, KVPair, Mirror, Tree}
  alias Tank.Store.Backend.{DatastoreError, Event, ValidationError}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    # Few changes in memory, so that a watch that is behind needs the history.
    store = start_store(dir, value_bytes_max: 10_000, watch_buffer_bytes_max: 10_000)
    {:ok, client} = Backend.new(store, [:calico])
    %{store: store, client: client}
  end

  test "5,000 keys are cleaned: a watch tells of each, with what it was", %{client: client} do
    1..5_000
    |> Task.async_stream(&create!(client, ["#{&1}"], &1), max_concurrency: 100, timeout: 60_000)
    |> Stream.run()

    {:ok, pairs, revision} = Backend.list(client, [])
    {:ok, watch} = Backend.watch(client, [], revision)
    :ok = Backend.clean(client)
    events = for _n <- 1..5_000, do: next(watch)
    assert events |> Enum.map(& &1.type) |> Enum.uniq() == [:deleted]
    assert MapSet.new(events, &{&1.old.key, &1.old.value}) == MapSet.new(pairs, &{&1.key, &1.value})
  end

  test "100 watches that end at any moment, while keys come and go", %{client: client} do
    generator = Task.async(fn -> generate(client, 0) end)

    watches =
      for _n <- 1..100 do
        Task.async(fn ->
          {:ok, _pairs, revision} = Backend.list(client, [])
          {:ok, watch} = Backend.watch(client, [], revision)
          told = collect(watch, System.monotonic_time(:millisecond) + Enum.random(5..55), [])
          assert Backend.cancel(watch) == :ok
          # Not a message more.
          refute_received {:backend_watch, _ref, _event}
          refute Process.alive?(watch.pid)
          told
        end)
      end

    events = watches |> Task.await_many(60_000) |> List.flatten()
    send(generator.pid, :stop)
    assert Task.await(generator) > 0
    assert events != []

    for event <- events do
      case event do
        %Event{type: :added, new: %KVPair{value: 1}, old: nil} -> :ok
        %Event{type: :modified, new: %KVPair{value: 2}, old: %KVPair{value: 1}} -> :ok
        %Event{type: :deleted, new: nil, old: %KVPair{value: 2}} -> :ok
      end
    end
  end

  test "from each pair's own revision, or from the list's, it tells what came after that", %{client: client} do
    one = create!(client, ["1"], 1)
    two = create!(client, ["2"], 2)
    {:ok, [^one, ^two], revision} = Backend.list(client, [])
    [after_one, after_two, after_list] = for r <- [one.revision, two.revision, revision], do: watch!(client, r)
    three = create!(client, ["3"], 3)
    assert %Event{type: :added, new: ^two} = next(after_one)
    for watch <- [after_one, after_two, after_list], do: assert(%Event{type: :added, new: ^three} = next(watch))
  end

  test "a watch that is overtaken by a compaction ends with an error, and the rest is as it was", context do
    %{client: client, store: store} = context
    test = self()

    # It reads nothing until it is told, so that its watch is far behind by then.
    consumer =
      Task.async(fn ->
        send(test, {:watching, watch!(client, nil)})
        receive do: (:read -> :ok)
        drain([])
      end)

    assert_receive {:watching, watch}, 10_000
    write = fn n -> {:ok, _kv} = Backend.apply(client, %KVPair{key: ["k"], value: n}) end
    1..5_000 |> Task.async_stream(write, max_concurrency: 100, timeout: 60_000) |> Stream.run()
    {:ok, last} = Backend.get(client, ["k"])
    :ok = Tree.compact(store, String.to_integer(last.revision))
    send(consumer.pid, :read)

    assert [%Event{type: :error, error: %DatastoreError{reason: :compacted}} | told] = Task.await(consumer, 60_000)
    revisions = told |> Enum.reverse() |> Enum.map(&String.to_integer(&1.revision))
    assert revisions == Enum.sort(Enum.uniq(revisions))
    eventually("the watch to end", fn -> not Process.alive?(watch.pid) end)
  end

  test "what others keep below the prefix is no key: it is skipped by all", %{client: client, store: store} do
    # Names that are no strings, and a value at the prefix itself.
    foreign = [[:calico], [:calico, :atom], [:calico, "hosts", :atom], [:calico, "hosts", :atom, "below"]]
    for path <- foreign, do: {:ok, _revision} = Tree.put(store, path, :foreign)
    one = create!(client, ["hosts", "1"], 1)
    assert {:ok, [^one], revision} = Backend.list(client, [])
    assert {:ok, [^one], _revision} = Backend.list(client, root: ["hosts"], name_prefix: "1")
    assert {:ok, [^one], _revision} = Backend.list(client, root: [], fields: [kind: nil, name: nil])

    {mirror, _syncer} = Mirror.start_link(client, [])
    watch = watch!(client, revision)
    for path <- foreign, do: {:ok, _revision} = Tree.put(store, path, :again)
    two = create!(client, ["hosts", "2"], 2)
    assert %Event{type: :added, new: ^two} = next(watch)

    eventually("both in the mirror", fn ->
      Map.keys(Mirror.state(mirror).entries) == [["hosts", "1"], ["hosts", "2"]]
    end)
  end

  test "errors are the backend's own, whatever the store said", %{client: client} do
    assert {:error, %ValidationError{field: :value}} =
             Backend.create(client, %KVPair{key: ["k"], value: String.duplicate("x", 10_001)})

    long = for _n <- 1..300, do: String.duplicate("x", 250)
    assert {:error, %ValidationError{field: :key}} = Backend.create(client, %KVPair{key: long, value: 1})
    assert {:error, %ValidationError{field: :prefix}} = Backend.new(:store, "a")

    # A moment with parts smaller than a second comes back as it was written.
    now = DateTime.utc_now()
    assert create!(client, ["k"], now).value == now
    assert {:ok, %KVPair{value: ^now}} = Backend.get(client, ["k"])
  end

  defp generate(client, n) do
    receive do
      :stop -> n
    after
      0 ->
        kv = create!(client, ["g", "#{n}"], 1)
        {:ok, kv} = Backend.update(client, %{kv | value: 2})
        :ok = Backend.delete(client, kv)
        generate(client, n + 1)
    end
  end

  defp collect(%{ref: ref} = watch, until, events) do
    receive do
      {:backend_watch, ^ref, event} -> collect(watch, until, [event | events])
    after
      max(until - System.monotonic_time(:millisecond), 0) -> events
    end
  end

  defp drain(events) do
    receive do
      {:backend_watch, _ref, %Event{type: :error} = event} -> [event | events]
      {:backend_watch, _ref, event} -> drain([event | events])
    after
      20_000 -> flunk("the watch has not ended, after #{length(events)} events")
    end
  end

  defp create!(client, key, value) do
    {:ok, kv} = Backend.create(client, %KVPair{key: key, value: value})
    kv
  end

  defp watch!(client, revision) do
    {:ok, watch} = Backend.watch(client, [], revision)
    watch
  end

  defp next(%{ref: ref}) do
    receive do
      {:backend_watch, ^ref, event} -> event
    after
      10_000 -> flunk("no event in 10 s")
    end
  end
end
