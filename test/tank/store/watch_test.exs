defmodule Tank.Store.WatchTest do
  use ExUnit.Case, async: true
  use Tank.Store.TankCase

  import Tank.Store.Watched

  alias Tank.Store.{Call, Change, Cluster, Entry, Path, Watch}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} = context do
    {:ok, store: start_store(dir, Map.get(context, :options, [])), dir: dir}
  end

  defp put(store, path, value), do: done(Call.write(store, :put, key(path), value, nil, 30_000))
  defp delete(store, path), do: done(Call.delete(store, key(path), nil, 30_000))
  defp done({:ok, revision}), do: revision

  defp key(path) do
    {:ok, key} = Path.to_key(path)
    key
  end

  # Puts many at a time.
  defp put_all(store, paths) do
    paths
    |> Task.async_stream(&put(store, &1, &1), max_concurrency: 100, timeout: 60_000)
    |> Enum.map(fn {:ok, revision} -> revision end)
    |> Enum.max()
  end

  describe "a snapshot" do
    test "is followed by what changes after it, without a gap", %{store: store} do
      put(store, [:a, "x"], 1)
      put(store, [:b], 1)
      put(store, [:a, "y"], %{two: 2})
      {:ok, %Watch{revision: 3} = watch} = Watch.start(store, [:a])

      assert {:snapshot, [%Entry{path: [:a, "x"], value: 1} = x, %Entry{path: [:a, "y"], value: %{two: 2}}], 3} =
               next(watch)

      assert %Entry{revision: 1, create_revision: 1, version: 1, child_count: 0, lease: 0} = x
      assert next(watch) == {:synced, 3}
      put(store, [:b], 2)
      put(store, [:a, "x"], nil)
      put(store, [:a, "z"], 5)

      assert next(watch) ==
               {:changes, 5,
                [%Change{type: :updated, path: [:a, "x"], value: nil, previous: 1, revision: 5, version: 2}]}

      assert next(watch) ==
               {:changes, 6,
                [%Change{type: :created, path: [:a, "z"], value: 5, previous: nil, revision: 6, version: 1}]}
    end

    test "comes in parts when it is large; its entries know their children", %{store: store} do
      put_all(store, for(n <- 1..250, do: [:a, n |> Integer.to_string() |> String.pad_leading(3, "0")]))
      put(store, [:a], :parent)
      {:ok, watch} = Watch.start(store, [:a], snapshot_page_size: 100)
      assert {:snapshot_part, [%Entry{path: [:a], child_count: 250} | _] = first} = next(watch)
      assert {:snapshot_part, second} = next(watch)
      assert {:snapshot, last, 251} = next(watch)
      assert {:synced, 251} = next(watch)
      paths = Enum.map(first ++ second ++ last, & &1.path)
      assert length(paths) == 251 and paths == Enum.sort(paths)
      assert length(first) == 100 and length(second) == 100
    end

    test "is complete when its parts are exactly full", %{store: store} do
      put_all(store, [[:a], [:b]])
      {:ok, watch} = Watch.start(store, [], snapshot_page_size: 2)
      assert watch |> until(2) |> Enum.reduce(%{}, &replay/2) == %{[:a] => [:a], [:b] => [:b]}
    end
  end

  describe "changes" do
    test "a deleted subtree is one message, with each entry that was in it", %{store: store} do
      for {path, value} <- [{[:a], 1}, {[:a, :b, :c], 2}, {[:a, :d], 3}, {[:ab], 4}], do: put(store, path, value)
      {:ok, watch} = Watch.start(store, [], from: :now)
      assert next(watch) == {:synced, 4}
      delete(store, [:a])
      assert {:changes, 5, changes} = next(watch)

      assert changes == [
               %Change{type: :deleted, path: [:a], previous: 1, revision: 5, version: 0},
               %Change{type: :deleted, path: [:a, :b, :c], previous: 2, revision: 5, version: 0},
               %Change{type: :deleted, path: [:a, :d], previous: 3, revision: 5, version: 0}
             ]

      # Nothing to delete: no revision, no message.
      delete(store, [:a])
      put(store, [:c], 1)
      assert {:changes, 6, [%Change{path: [:c]}]} = next(watch)
    end

    test "values of any kind come back as they are, also large maps", %{store: store} do
      {:ok, watch} = Watch.start(store, [], from: :now)
      assert next(watch) == {:synced, 0}
      large = Map.new(1..500, &{{:key, &1}, [&1, 1.5, <<1::3>>]})

      for {value, at} <- Enum.with_index([large, self(), "x", make_ref(), nil, large]) do
        put(store, [:v, "#{at}"], value)
        assert {:changes, _revision, [%Change{value: ^value}]} = next(watch)
      end

      put(store, [:v, "0"], 1)
      assert {:changes, _revision, [%Change{previous: ^large, value: 1}]} = next(watch)
    end

    test "a value of megabytes comes too, from memory and from the disk", %{store: store} do
      big = String.duplicate("x", 3_000_000)
      {:ok, watch} = Watch.start(store, [], from: :now)
      assert next(watch) == {:synced, 0}
      for n <- 1..3, do: put(store, [:big], big <> "#{n}")
      for n <- 1..3, do: assert({:changes, ^n, [%Change{value: <<_::binary-size(3_000_000), _>>}]} = next(watch))
    end
  end

  describe "a pattern" do
    test "delivers what it matches, from the snapshot on", %{store: store} do
      for name <- ["web", "db"], part <- ["spec", "status"], do: put(store, [:pods, name, part], 1)
      put(store, [:pods, "web"], 1)
      {:ok, watch} = Watch.start(store, [:pods, {:name_matches, ~r/^w/}, "status"])
      assert {:snapshot, [%Entry{path: [:pods, "web", "status"]}], 5} = next(watch)
      assert next(watch) == {:synced, 5}
      put(store, [:pods, "web", "spec"], 2)
      put(store, [:pods, "db", "status"], 2)
      put(store, [:pods, "web", "status"], 2)
      delete(store, [:pods])
      assert {:changes, 8, [%Change{type: :updated, path: [:pods, "web", "status"], value: 2}]} = next(watch)
      assert {:changes, 9, [%Change{type: :deleted, path: [:pods, "web", "status"]}]} = next(watch)
      :ok = Watch.cancel(watch)
      {:ok, again} = Watch.start(store, [:pods, {:name_matches, ~r/^w/}, "status"], from: {:after, 4})
      assert for({:changes, revision, [_one]} <- until(again, 9), do: revision) == [8, 9]
    end

    test "of values tells what comes to match, and what ceases to", %{store: store} do
      {:ok, watch} = Watch.start(store, [:jobs, {:data, :ready}], from: :now)
      assert next(watch) == {:synced, 0}
      for value <- [:new, :ready, :done, :old], do: put(store, [:jobs, "1"], value)
      assert {:changes, 2, [%Change{type: :updated, value: :ready, previous: :new}]} = next(watch)
      assert {:changes, 3, [%Change{type: :updated, value: :done, previous: :ready}]} = next(watch)
      put(store, [:jobs, "2"], :ready)
      assert {:changes, 5, [%Change{type: :created, path: [:jobs, "2"], value: :ready}]} = next(watch)
    end

    test "of one node alone leaves out what is below", %{store: store} do
      {:ok, watch} = Watch.start(store, [{:all, [:a]}], from: :now)
      {:ok, below} = Watch.start(store, [{:is, :a}], from: :now)
      assert next(watch) == {:synced, 0} and next(below) == {:synced, 0}
      put(store, [:a, "x"], 1)
      put(store, [:a], 1)
      assert {:changes, 2, [%Change{path: [:a]}]} = next(watch)
      assert {:changes, 1, [%Change{path: [:a, "x"]}]} = next(below)
    end

    test "whose snapshot has few among many gives no empty parts", %{store: store} do
      put_all(store, for(n <- 1..25_000, do: [:a, "#{n}"]))
      put(store, [:a, "zz", "one"], 1)
      {:ok, watch} = Watch.start(store, [:a, :*, :*])
      assert {:snapshot, [%Entry{path: [:a, "zz", "one"]}], 25_001} = next(watch)
    end

    test "that a change does not tell is refused", %{store: store} do
      for pattern <- [[:a, {:child_count, :>, 1}], [:a, :has_data, :b], [:a, {:name_matches, "("}], [:a, {:data}]] do
        assert {:error, {:invalid_pattern, _why}} = Watch.start(store, pattern)
      end
    end
  end

  describe "resuming" do
    test "goes on behind any revision of the history", %{store: store} do
      for n <- 1..20, do: put(store, [if(rem(n, 2) == 0, do: :even, else: :odd)], n)
      {:ok, %Watch{revision: 10} = watch} = Watch.start(store, [:even], from: {:after, 10})
      assert for(_ <- 1..5, do: next(watch) |> plain() |> elem(0)) == [12, 14, 16, 18, 20]
      assert next(watch) == {:synced, 20}
    end

    test "after a revision that is still to come is refused, or waits for it if this member may lag", %{store: store} do
      put(store, [:a], 0)
      assert Watch.start(store, [], from: {:after, 4}) == {:error, {:compacted, 0}}
      {:ok, %{ref: ref} = watch} = Watch.start(store, [], from: {:after, 4}, favor: :low_latency)
      for n <- 2..3, do: put(store, [:a], n)
      # It has looked by then.
      _state = :sys.get_state(watch.pid)
      refute_received {:store_watch, ^ref, _message}
      put(store, [:a], 4)
      assert next(watch) == {:synced, 4}
      for n <- 5..6, do: put(store, [:a], n)
      assert {:changes, 5, [%Change{value: 5, previous: 4}]} = next(watch)
      assert {:changes, 6, _} = next(watch)
    end

    test "goes on after the store was opened anew, from the disk", %{store: store, dir: dir} do
      for n <- 1..300, do: put(store, [:a, "#{rem(n, 10)}"], n)
      {:ok, watch} = Watch.start(store, [])
      assert next(watch) |> elem(0) == :snapshot
      :ok = Cluster.stop(store)
      assert next(watch) == {:synced, 300}
      assert next(watch) == {:cancelled, :store_stopped}
      {:ok, ^store} = Cluster.start(dir, store, 60_000)
      {:ok, watch} = Watch.start(store, [:a, "3"], from: {:after, 100})
      messages = until(watch, 300)
      assert Enum.map(Enum.drop(messages, -1), &(&1 |> plain() |> elem(0))) == Enum.to_list(103..300//10)
      assert List.last(messages) == {:synced, 300}
    end

    @tag options: [history_revisions: 50]
    test "behind a compacted revision is refused, with the first that is not", %{store: store} do
      put_all(store, for(n <- 1..300, do: [:a, "#{n}"]))
      {:error, {:compacted, min}} = eventually("the history to be compacted", fn -> refused(store) end)
      assert min in 1..250
      min = last_min(store, min)
      {:ok, watch} = Watch.start(store, [], from: {:after, min})
      assert {:changes, first, _} = next(watch)
      assert first == min + 1
    end

    defp refused(store) do
      case Watch.start(store, [], from: {:after, 0}) do
        {:error, {:compacted, _min}} = refused -> refused
        {:ok, watch} -> Watch.cancel(watch) && nil
      end
    end

    # It goes in steps.
    defp last_min(store, min) do
      eventually("the history to be within its bounds", fn ->
        {:error, {:compacted, min}} = refused(store)
        if min >= 245, do: min, else: {:not_yet, min}
      end)
      |> max(min)
    end
  end

  describe "flow control" do
    test "a stuck consumer is closed with the revision to resume from, and nothing piles up", %{store: store} do
      test = self()

      stuck =
        spawn_link(fn ->
          {:ok, watch} = Watch.start(store, [], mailbox_max: 50, lag_timeout_ms: 300)
          send(test, {:watch, watch})
          receive do: (:go_on -> :ok)
          send(test, {:heard, Process.info(self(), :messages)})
          {:ok, again} = Watch.start(store, [], from: {:after, resume_revision(watch)})
          send(test, {:rest, until(again, 2_000)})
        end)

      assert_receive {:watch, watch}, 5_000
      monitor = Process.monitor(watch.pid)
      value = String.duplicate("v", 1_000)
      spawn_link(fn -> for n <- 1..2_000, do: put(store, [:a, "#{rem(n, 7)}"], {n, value}) end)
      assert most_memory(watch.pid, monitor, 0) < 20_000_000
      send(stuck, :go_on)
      assert_receive {:heard, {:messages, messages}}, 60_000
      messages = for {:store_watch, _ref, message} <- messages, do: message
      assert length(messages) <= 52
      assert {:cancelled, {:lagged, resume}} = List.last(messages)
      revisions = for {:changes, revision, _changes} <- messages, do: revision
      assert revisions == Enum.to_list(1..resume)
      assert_receive {:rest, rest}, 60_000
      assert for({:changes, revision, _changes} <- rest, do: revision) == Enum.to_list((resume + 1)..2_000)
    end

    defp resume_revision(%Watch{ref: ref}) do
      receive do: ({:store_watch, ^ref, {:cancelled, {:lagged, revision}}} -> revision)
    end

    defp most_memory(pid, monitor, most) do
      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> most
      after
        5 ->
          case Process.info(pid, :memory) do
            {:memory, memory} -> most_memory(pid, monitor, max(most, memory))
            nil -> most
          end
      end
    end

    test "a full mailbox ends no watch that has nothing to say", %{store: store} do
      {:ok, watch} = Watch.start(store, [:quiet], from: :now, mailbox_max: 5, lag_timeout_ms: 50)
      assert next(watch) == {:synced, 0}
      for n <- 1..20, do: send(self(), {:other, n})
      for n <- 1..20, do: put(store, [:loud], n)
      monitor = Process.monitor(watch.pid)
      refute_receive {:DOWN, ^monitor, _, _, _}, 300
      for n <- 1..20, do: assert_received({:other, ^n})
      put(store, [:quiet], 1)
      assert {:changes, 21, _} = next(watch)
    end

    test "a consumer that goes on in time misses nothing", %{store: store} do
      {:ok, watch} = Watch.start(store, [], from: :now, mailbox_max: 10, lag_timeout_ms: 60_000)
      put_all(store, for(n <- 1..500, do: ["#{n}"]))
      assert {:message_queue_len, length} = Process.info(self(), :message_queue_len)
      assert length <= 11
      assert for({:changes, revision, _} <- until(watch, 500), do: revision) == Enum.to_list(1..500)
    end
  end

  describe "ends" do
    test "cancel is idempotent, and takes back what is queued", %{store: store} do
      {:ok, watch} = Watch.start(store, [], from: :now)
      for n <- 1..50, do: put(store, [:a], n)
      assert Watch.cancel(watch) == :ok
      put(store, [:a], :later)
      assert Process.info(self(), :messages) == {:messages, []}
      assert Watch.cancel(watch) == :ok
    end

    test "cancel kills a watch that does not hear of it, and leaves nothing behind", %{store: store} do
      {:ok, watch} = Watch.start(store, [])
      :ok = :sys.suspend(watch.pid)
      assert Watch.cancel(watch) == :ok
      refute Process.alive?(watch.pid)
      refute_received {:store_watch, _ref, _message}
    end

    test "it ends with the process that started it", %{store: store} do
      test = self()

      subscriber =
        spawn(fn ->
          {:ok, watch} = Watch.start(store, [])
          send(test, watch)
          Process.sleep(:infinity)
        end)

      assert_receive %Watch{} = watch, 5_000
      monitor = Process.monitor(watch.pid)
      Process.exit(subscriber, :kill)
      assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, 5_000
    end

    test "the end of the store is told, however it ends", %{store: store} do
      {:ok, one} = Watch.start(store, [], from: :now)
      assert next(one) == {:synced, 0}
      kill_server(store)
      assert next(one) == {:cancelled, :store_stopped}
      {:ok, other} = Watch.start(store, [], from: :now)
      assert next(other) == {:synced, 0}
      :ok = Cluster.stop(store)
      assert next(other) == {:cancelled, :store_stopped}
      assert Watch.start(store, []) == {:error, :noproc}
    end

    test "of one whose process is killed, the subscriber is told, once and last", %{store: store} do
      {:ok, watch} = Watch.start(store, [], from: :now)
      put(store, [:a], 1)
      assert next(watch) == {:synced, 0}
      assert {:changes, 1, _} = next(watch)
      kill(watch.pid)
      assert next(watch) == {:cancelled, :store_stopped}
      # Where it ended, another one goes on.
      put(store, [:a], 2)
      {:ok, again} = Watch.start(store, [], from: {:after, 1})
      assert {:changes, 2, _} = next(again)
      assert Watch.cancel(watch) == :ok and Watch.cancel(again) == :ok
      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "so is one that enumerates", %{store: store} do
      test = self()

      enumerating =
        Task.async(fn ->
          messages = store |> Watch.stream([], from: :now) |> Enum.map(&tap(&1, fn _ -> send(test, :one) end))
          {messages, Process.info(self(), :messages)}
        end)

      assert_receive :one, 5_000

      feed =
        eventually("it to wait for its watch", fn ->
          with {:monitors, [process: feed]} <- Process.info(enumerating.pid, :monitors), do: feed, else: (_ -> nil)
        end)

      kill(feed)
      assert Task.await(enumerating) == {[{:synced, 0}, {:cancelled, :store_stopped}], {:messages, []}}
    end

    test "wrong arguments are refused", %{store: store} do
      assert {:error, {:invalid_path, _}} = Watch.start(store, [7])
      assert {:error, {:too_large, :path_component, 255}} = Watch.start(store, [String.duplicate("x", 256)])
      assert_raise ArgumentError, ~r/:form/, fn -> Watch.start(store, [], form: :now) end
      assert_raise ArgumentError, ~r/:from/, fn -> Watch.start(store, [], from: {:after, -1}) end
      assert_raise ArgumentError, ~r/:mailbox_max/, fn -> Watch.start(store, [], mailbox_max: 0) end
    end
  end

  test "progress is told while nothing else is", %{store: store} do
    {:ok, watch} = Watch.start(store, [:quiet], from: :now, progress_interval_ms: 20)
    assert next(watch) == {:synced, 0}
    for n <- 1..5, do: put(store, [:loud], n)
    assert last_progress(watch, 5) == 5
    # Told once.
    ref = watch.ref
    refute_receive {:store_watch, ^ref, _message}, 100
  end

  defp last_progress(watch, revision) do
    case next(watch) do
      {:progress, ^revision} -> revision
      {:progress, _earlier} -> last_progress(watch, revision)
    end
  end

  test "a stream is the same, and ends its watch", %{store: store} do
    put(store, [:a], 1)
    spawn_link(fn -> for n <- 2..100, do: put(store, [:a], n) end)

    messages = store |> Watch.stream([:a]) |> Enum.take_while(fn message -> not match?({:changes, 100, _}, message) end)

    assert [{:snapshot, [%Entry{path: [:a]}], first}, {:synced, first} | changes] = messages
    revisions = for {:changes, revision, _} <- changes, do: revision
    assert revisions == Enum.to_list((first + 1)..99//1)
    assert Process.info(self(), :messages) == {:messages, []}
    stopping = spawn_link(fn -> receive do: (:stop -> Cluster.stop(store)) end)

    ended =
      store
      |> Watch.stream([], from: :now)
      |> Enum.map(fn message ->
        if match?({:synced, _}, message), do: send(stopping, :stop)
        message
      end)

    assert [{:synced, 100}, {:cancelled, :store_stopped}] = ended
    assert_raise Tank.Store.Error, fn -> store |> Watch.stream([]) |> Enum.take(1) end
  end

  test "watches of the same each get all of it, while others of the same come and go", %{store: store} do
    start = fn what -> elem(Watch.start(store, what, from: :now), 1) end
    watches = for what <- [[:a], [:a], [:a], [:a, :*], [:a, :*], []], do: start.(what)
    large = Map.new(1..1_000, &{&1, :crypto.strong_rand_bytes(100)})

    values =
      for {value, n} <- Enum.with_index([:small, Map.new(1..300, &{&1, "value"}), large, nil, large, "last"], 1) do
        passing = start.([:a])
        assert put(store, [:a, "x"], value) == n
        :ok = Watch.cancel(passing)
        value
      end

    deleted = delete(store, [:a])
    events = for watch <- watches, do: watch |> until(deleted) |> Enum.filter(&match?({:changes, _, _}, &1))
    assert [seen] = Enum.uniq(events)

    [first | updates] = Enum.zip(values, [nil | values])

    updates =
      for {{value, previous}, n} <- Enum.with_index(updates, 2), do: {n, [{:updated, [:a, "x"], value, previous}]}

    created = {1, [{:created, [:a, "x"], elem(first, 0), nil}]}
    assert Enum.map(seen, &plain/1) == [created | updates] ++ [{deleted, [{:deleted, [:a, "x"], nil, "last"}]}]
  end

  @tag options: [history_revisions: 2_000, watch_buffer_bytes_max: 50_000]
  test "twenty watches that come and go see the replay of the log", %{store: store} do
    test = self()
    total = 1_500

    spawn_link(fn -> Enum.reduce_while(Watch.stream(store, [], from: {:after, 0}), [], &record(&1, &2, test)) end)

    watchers = for n <- 1..20, do: Task.async(fn -> watch_at_random(store, n) end)

    writers =
      for n <- 1..5 do
        Task.async(fn -> for i <- 1..div(total, 5), do: write_at_random(store, n * 1_000 + i) end)
      end

    Task.await_many(writers, 120_000)
    last = put(store, [:end], :end)
    assert_receive {:log, log}, 60_000
    streams = Task.await_many(watchers, 120_000)
    assert List.last(log) |> elem(0) == last

    for {prefix, parts} <- streams, {first, upto, seen} <- parts do
      assert seen == filtered(log, prefix, first, upto), "#{inspect(prefix)} behind #{first} up to #{upto}"
    end

    assert streams |> Enum.flat_map(&elem(&1, 1)) |> length() > 20
  end

  defp record({:changes, _revision, [%Change{path: [:end]}]} = message, log, test) do
    send(test, {:log, Enum.reverse([plain(message) | log])})
    {:halt, log}
  end

  defp record({:changes, _revision, _changes} = message, log, _test), do: {:cont, [plain(message) | log]}
  defp record(_other, log, _test), do: {:cont, log}

  defp write_at_random(store, n) do
    path = Enum.random([[:a], [:b], [:a, "x"], [:a, "y"], [:b, "x"], [:b, "x", :z], [:a, "x", :z]])
    if :rand.uniform(5) == 1, do: delete(store, path), else: put(store, path, n)
  end

  # Up to the revision that everybody hears of: each prefix is resumed where it was, or a bit earlier.
  defp watch_at_random(store, n) do
    :rand.seed(:exsss, {n, 2, 3})
    prefix = Enum.random([[], [:a], [:b], [:a, "x"], [:b, "x"]])
    {prefix, watch_parts(store, prefix, 0, [])}
  end

  defp watch_parts(store, prefix, after_revision, parts) do
    {:ok, watch} = Watch.start(store, prefix, from: {:after, after_revision}, progress_interval_ms: 10)
    {upto, seen} = collect(store, watch, :rand.uniform(150), after_revision, [])
    Watch.cancel(watch)
    parts = [{after_revision, upto, Enum.reverse(seen)} | parts]

    if over?(store, upto),
      do: parts,
      else: watch_parts(store, prefix, max(upto - :rand.uniform(20), 0), parts)
  end

  defp collect(_store, _watch, 0, upto, seen), do: {upto, seen}

  defp collect(store, watch, left, upto, seen) do
    case next(watch) do
      # Nothing comes behind the last one.
      {:changes, revision, [%Change{path: [:end]}]} = message ->
        {revision, [plain(message) | seen]}

      {:changes, revision, _changes} = message ->
        collect(store, watch, left - 1, revision, [plain(message) | seen])

      {kind, revision} when kind in [:synced, :progress] ->
        upto = max(revision, upto)
        if over?(store, upto), do: {upto, seen}, else: collect(store, watch, left, upto, seen)
    end
  end

  defp over?(store, upto),
    do:
      Call.get(store, key([:end]), &{:ok, &1}, 5_000) == {:ok, :end} and
        Tank.Store.Since.list(store, [], upto) == :unchanged

  defp filtered(log, prefix, first, upto) do
    for {revision, changes} <- log,
        revision > first,
        revision <= upto,
        changes = below(changes, prefix),
        changes != [] do
      {revision, changes}
    end
  end

  defp below(changes, prefix), do: Enum.filter(changes, fn {_type, path, _v, _p} -> List.starts_with?(path, prefix) end)
end
