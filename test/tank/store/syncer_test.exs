defmodule Tank.Store.SyncerTest do
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backend, Cluster, FlakySource, KVPair, Mirror, Syncer, Tree}
  alias Tank.Store.Backend.ValidationError
  alias Tank.Store.Syncer.Update

  @moduletag :tmp_dir

  defmodule Blocking do
    # Tells the test of each call, and waits for its word.
    @behaviour Syncer

    def test(pid), do: :persistent_term.put(__MODULE__, pid)

    @impl true
    def on_status_updated(status), do: tell({:status, status})
    @impl true
    def on_updates(updates), do: tell({:updates, updates})

    defp tell(what) do
      send(:persistent_term.get(__MODULE__), {:called, self(), what})
      receive do: (:go_on -> :ok)
    end
  end

  setup %{tmp_dir: dir} do
    store = start_store(dir)
    {:ok, client} = Backend.new(store, [:policy])
    %{store: store, client: client, dir: dir}
  end

  test "a populated store: waits, resyncs, gets all as new, and only then is in sync", %{client: client} do
    for n <- 1..50, do: create!(client, ["e", "#{n}"], n)
    syncer = start!(client, types: [[root: ["e"]]])
    assert message(syncer) == {:status, :wait_for_datastore}
    assert message(syncer) == {:status, :resync_in_progress}
    assert {:updates, updates} = message(syncer)
    assert Enum.map(updates, & &1.type) |> Enum.uniq() == [:new]
    {:ok, pairs, _revision} = Backend.list(client, ["e"])
    assert Enum.map(updates, & &1.kv) == pairs
    assert message(syncer) == {:status, :in_sync}
    assert Syncer.start(syncer) == :ok

    created = create!(client, ["e", "new"], 1)
    assert message(syncer) == {:updates, [%Update{type: :new, kv: created}]}
    {:ok, updated} = Backend.update(client, %{created | value: 2})
    assert message(syncer) == {:updates, [%Update{type: :updated, kv: updated}]}
    :ok = Backend.delete(client, ["e", "new"])
    assert message(syncer) == {:updates, [%Update{type: :deleted, kv: %KVPair{key: ["e", "new"]}}]}

    :ok = Backend.delete(client, ["e"])
    gone = collect(syncer, 50, [])
    assert Enum.sort(for %Update{type: :deleted, kv: kv} <- gone, do: kv.key) == Enum.sort(Enum.map(pairs, & &1.key))
  end

  for reason <- [:shutdown, :kill] do
    test "survives the end of a process of the store that it is just calling (#{reason})", %{
      store: store,
      client: client
    } do
      kept = create!(client, ["kept"], 1)
      {mirror, _syncer} = Mirror.start_link(client, retry_ms: 5)
      eventually("the mirror", fn -> match?([:in_sync | _], Mirror.state(mirror).statuses) end)

      [{events, _value}] = Registry.lookup(Tank.Store.Names, {:events, store})
      :ok = :sys.suspend(events)
      # The watch ends, and the follower is about to subscribe again.
      for {_id, watch, _type, _modules} <- DynamicSupervisor.which_children(Tank.Store.Watches), do: kill(watch)
      eventually("its call", fn -> Process.info(events, :message_queue_len) > {:message_queue_len, 0} end)
      Process.exit(events, unquote(reason))

      created =
        eventually("the store to be back", fn ->
          # Whose outcome is unknown is written again.
          with {:error, _} <- Backend.apply(client, %KVPair{key: ["new"], value: 2}), do: nil
        end)

      assert {:ok, created} = created
      expected = Map.new([kept, created], &{&1.key, {&1.value, &1.revision}})
      eventually("the mirror to go on", fn -> Mirror.state(mirror).entries == expected end)
    end
  end

  test "stop gives up on a consumer that takes nothing, and goes on", %{client: client} do
    Blocking.test(self())
    {:ok, syncer} = Backend.syncer(client, Blocking, [])
    :ok = Syncer.start(syncer)
    assert_receive {:called, caller, {:status, :wait_for_datastore}}
    assert Syncer.stop(syncer, 20) == {:error, :timeout}
    send(caller, :go_on)
    assert Syncer.stop(syncer, 5_000) == :ok
    assert Syncer.stop(syncer) == :ok
    assert Syncer.start(syncer) == :ok
  end

  test "stop deletes what the consumer has, and then there is silence", %{client: client} do
    create_many!(client, 1_500)
    {mirror, syncer} = Mirror.start_link(client, [])
    eventually("the mirror", fn -> match?([:in_sync | _], Mirror.state(mirror).statuses) end)
    assert map_size(Mirror.state(mirror).entries) == 1_500
    assert Syncer.stop(syncer) == :ok
    state = Mirror.state(mirror)
    assert state.entries == %{}
    assert Enum.sum(Enum.take(state.sizes, 2)) == 1_500
    create!(client, ["after"], 1)
    assert Syncer.stop(syncer) == :ok
    assert Syncer.start(syncer) == :ok
    refute Process.alive?(syncer.pid)
    assert Mirror.state(mirror) == state
  end

  test "a value that does not parse is told, and its update carries nil", %{client: client} do
    parse = fn value -> if is_integer(value), do: {:ok, value}, else: :error end
    syncer = start!(client, types: [[root: ["e"], parse: parse]])
    for status <- [:wait_for_datastore, :resync_in_progress, :in_sync], do: assert(message(syncer) == {:status, status})
    junk = create!(client, ["e", "a/b"], "junk")
    assert message(syncer) == {:parse_failed, "/e/a%2fb", "junk"}
    assert {:updates, [%Update{type: :new, kv: kv}]} = message(syncer)
    assert kv == %{junk | value: nil}
    {:ok, good} = Backend.update(client, %{junk | value: 7})
    assert message(syncer) == {:updates, [%Update{type: :updated, kv: good}]}
  end

  test "while a callback blocks, updates gather into batches of at most 1,000", %{client: client} do
    Blocking.test(self())
    {:ok, syncer} = Backend.syncer(client, Blocking, [])
    :ok = Backend.start(syncer)
    assert called() == {:status, :wait_for_datastore}
    assert called() == {:status, :resync_in_progress}
    assert called() == {:status, :in_sync}
    create!(client, ["first"], 1)
    assert_receive {:called, caller, {:updates, [%Update{kv: %{key: ["first"]}}]}}, 5_000
    create_many!(client, 2_500)
    # The last change has come to the syncer when another one, which is told later, has.
    {mirror, _syncer} = Mirror.start_link(client, [])
    eventually("all to be seen", fn -> map_size(Mirror.state(mirror).entries) == 2_501 end)
    eventually("the syncer to have it too", fn -> map_size(feed(syncer).queue.items) == 2_500 end)
    refute_received {:called, _pid, _what}
    send(caller, :go_on)
    assert {:updates, one} = called()
    assert {:updates, two} = called()
    assert {:updates, three} = called()
    assert Enum.map([one, two, three], &length/1) == [1_000, 1_000, 500]
    revisions = Enum.map(one ++ two ++ three, &String.to_integer(&1.kv.revision))
    assert revisions == Enum.sort(revisions) and length(Enum.uniq(revisions)) == 2_500
    # A stop waits for the callback that is told of it.
    stopping = Task.async(fn -> Backend.stop(syncer) end)
    assert {:updates, deleted} = called()
    assert length(deleted) == 1_000
    assert {:updates, _more} = called()
    assert {:updates, last} = called()
    assert length(last) == 501
    assert Task.await(stopping) == :ok
  end

  defmodule Reader do
    # Hears of values that do not parse, too.
    @behaviour Syncer

    @impl true
    def on_status_updated(_status), do: :ok
    @impl true
    def on_updates(updates), do: send(:persistent_term.get(__MODULE__), {:updates, self(), updates})
    @impl true
    def parse_failed(key, raw), do: send(:persistent_term.get(__MODULE__), {:parse_failed, self(), key, raw})
  end

  test "callbacks are called by one process, parse_failed ahead of the update; it is optional", %{client: client} do
    :persistent_term.put(Reader, self())
    type = [parse: fn value -> if is_integer(value), do: {:ok, value}, else: :error end]
    {:ok, syncer} = Backend.syncer(client, Reader, types: [type])
    :ok = Backend.start(syncer)
    create!(client, ["a"], 1)
    assert_receive {:updates, caller, [%Update{type: :new, kv: %{value: 1}}]}, 5_000
    create!(client, ["b"], "junk")
    assert_receive {:parse_failed, ^caller, "/b", "junk"}, 5_000
    assert_receive {:updates, ^caller, [%Update{type: :new, kv: %{key: ["b"], value: nil}}]}, 5_000
    :ok = Backend.stop(syncer)

    Blocking.test(self())
    {:ok, syncer} = Backend.syncer(client, Blocking, types: [type])
    :ok = Backend.start(syncer)
    assert for(_n <- 1..2, do: called()) == [status: :wait_for_datastore, status: :resync_in_progress]
    assert called_until(:in_sync) |> Enum.map(& &1.kv.value) |> Enum.sort() == [1, nil]
  end

  test "options are checked", %{client: client} do
    assert {:error, %ValidationError{field: :types}} = Backend.syncer(client, self(), types: [])
    assert {:error, %ValidationError{field: :list_options}} = Backend.syncer(client, self(), types: [[rot: 1]])
    assert {:error, %ValidationError{field: :revision}} = Backend.syncer(client, self(), types: [[revision: "1"]])
  end

  test "the store is stopped, changed and started: the mirror gets the difference", %{client: client} = context do
    for n <- 1..20, do: create!(client, ["#{n}"], n)
    {mirror, _syncer} = Mirror.start_link(client, retry_ms: 20)
    eventually("in sync", fn -> hd(Mirror.state(mirror).statuses ++ [nil]) == :in_sync end)
    :ok = Cluster.stop(context.store)
    eventually("the loss", fn -> hd(Mirror.state(mirror).statuses) == :resync_in_progress end)
    assert map_size(Mirror.state(mirror).entries) == 20
    start_store(context.dir, store_id: context.store)
    :ok = Backend.delete(client, ["1"])
    create!(client, ["21"], 21)
    await_same(mirror, client)
    assert hd(Mirror.state(mirror).statuses) == :in_sync
    # What did not change was not told again.
    assert Enum.sum(Mirror.state(mirror).sizes) == 22
  end

  test "random writers, compactions, failures at every point: the mirror is the store after each quiet moment",
       context do
    storm(context, 4, 300)
  end

  @tag :long
  @tag timeout: :infinity
  test "the same, for longer", context do
    storm(context, 40, 1_000)
  end

  test "a consumer that dies ends its syncer", %{client: client} do
    consumer = spawn(fn -> receive do: (:end -> :ok) end)
    {:ok, syncer} = Backend.syncer(client, consumer, [])
    :ok = Syncer.start(syncer)
    monitor = Process.monitor(syncer.pid)
    send(consumer, :end)
    assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, 5_000
  end

  # -- The storm

  defp storm(%{client: client, store: store, dir: dir}, rounds, writes) do
    on_exit(fn -> FlakySource.rate(0) end)
    types = [[root: ["a"]], [root: ["b"]]]
    {mirror, _syncer} = Mirror.start_link(client, types: types, source: FlakySource, retry_ms: 5)

    for round <- 1..rounds do
      FlakySource.rate(Enum.random([0, 20, 100, 400]))
      writers = for _n <- 1..4, do: Task.async(fn -> for _n <- 1..writes, do: random_write(client) end)
      compactor = Task.async(fn -> for _n <- 1..5, do: compact(store) end)
      Task.await_many([compactor | writers], 120_000)
      if rem(round, 4) == 0, do: restart(store, dir)
      FlakySource.rate(0)
      await_same(mirror, client)
    end
  end

  defp random_write(client) do
    key = [Enum.random(["a", "b", "c"]) | Enum.take_random(["x", "y", "z", "1", "2"], Enum.random(1..3))]

    case Enum.random(1..10) do
      n when n <= 6 -> {:ok, _kv} = Backend.apply(client, %KVPair{key: key, value: n})
      n when n <= 8 -> Backend.delete(client, key)
      9 -> Backend.delete(client, Enum.take(key, 2))
      10 -> {:ok, _kv} = Backend.apply(client, %KVPair{key: key, value: :short, ttl: 1})
    end
  end

  defp compact(store) do
    {:ok, _entries, revision} = Tree.list(store, [], keys_only: true)
    Tree.compact(store, revision)
  end

  defp restart(store, dir) do
    :ok = Cluster.stop(store)
    start_store(dir, store_id: store)
  end

  # Nothing writes any more, but for keys whose time is over.
  defp await_same(mirror, client) do
    eventually(
      "the mirror to be the store",
      fn ->
        {:ok, pairs, _revision} = Backend.list(client, [])
        pairs = Enum.reject(pairs, &match?(["c" | _rest], &1.key))
        expected = Map.new(pairs, &{&1.key, {&1.value, &1.revision}})
        state = Mirror.state(mirror)
        in_sync? = match?([:in_sync | _], state.statuses)

        (in_sync? and state.entries == expected) ||
          {:not_yet,
           {state.statuses |> Enum.take(2), Map.drop(expected, Map.keys(state.entries)), map_size(expected),
            map_size(state.entries)}}
      end,
      30_000
    )
  end

  # -- Helpers

  defp start!(client, opts) do
    {:ok, syncer} = Backend.syncer(client, self(), opts)
    refute_received {:syncer, _ref, _anything}
    :ok = Syncer.start(syncer)
    syncer
  end

  defp message(%{ref: ref}) do
    receive do
      {:syncer, ^ref, message} -> message
    after
      5_000 -> flunk("no message of the syncer")
    end
  end

  defp collect(_syncer, count, updates) when length(updates) >= count, do: updates

  defp collect(syncer, count, updates) do
    {:updates, more} = message(syncer)
    collect(syncer, count, updates ++ more)
  end

  # What the callback was called with; it returns then.
  defp called do
    receive do
      {:called, pid, what} ->
        send(pid, :go_on)
        what
    after
      5_000 -> flunk("no callback was called")
    end
  end

  # The updates until that status.
  defp called_until(status) do
    case called() do
      {:status, ^status} -> []
      {:updates, updates} -> updates ++ called_until(status)
    end
  end

  defp feed(syncer), do: :sys.get_state(syncer.pid).feed

  defp create_many!(client, count) do
    1..count
    |> Task.async_stream(&create!(client, ["#{&1}"], &1), max_concurrency: 50, timeout: 60_000)
    |> Stream.run()
  end

  defp create!(client, key, value) do
    {:ok, kv} = Backend.create(client, %KVPair{key: key, value: value})
    kv
  end
end
