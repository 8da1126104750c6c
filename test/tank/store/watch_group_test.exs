defmodule Tank.Store.WatchGroupTest do
  use ExUnit.Case, async: true
  use Tank.Store.TankCase

  import Tank.Store.Watched

  alias Tank.Store.{Call, Change, Cluster, Path, Watch}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir}, do: {:ok, store: start_store(dir, [])}

  defp put(store, name, value) do
    {:ok, key} = Path.to_key([:a, name])
    {:ok, revision} = Call.write(store, :put, key, value, nil, 30_000)
    revision
  end

  defp watch(store, opts \\ []) do
    {:ok, watch} = Watch.start(store, [:a], Keyword.put_new(opts, :from, :now))
    watch
  end

  # The groups that feeds of this store's watches are in now.
  defp group(watch), do: :sys.get_state(watch.pid).group

  defp await_group(watch) do
    {group, _monitor} = eventually("the watch to be in a group", fn -> group(watch) end)
    group
  end

  # Two watches in one group: a watch joins when it is idle and there is another one.
  defp pair(store, opts \\ []) do
    watches = [watch(store, opts), watch(store, opts)]
    put(store, "first", 0)
    groups = Enum.map(watches, &await_group/1)
    assert [group] = Enum.uniq(groups)
    {watches, group}
  end

  # The revisions of the changes in this process's mailbox for a watch, up to `last`.
  defp revisions(watch, last), do: for({:changes, revision, _changes} <- until(watch, last), do: revision)

  test "a watch alone has no group, and two of the same have one, which ends with them", %{store: store} do
    alone = watch(store)
    put(store, "x", 1)
    assert revisions(alone, 1) == [1]
    assert group(alone) == nil

    other = watch(store)
    put(store, "x", 2)
    group = await_group(alone)
    assert await_group(other) == group
    monitor = Process.monitor(group)
    assert put(store, "x", 3) == 3
    assert revisions(alone, 3) == [2, 3]
    assert revisions(other, 3) == [2, 3]

    :ok = Watch.cancel(alone)
    :ok = Watch.cancel(other)
    assert_receive {:DOWN, ^monitor, :process, ^group, :normal}, 5_000
    refute_received {:store_watch, _ref, _message}
  end

  test "what a group tells of is what a watch of its own tells of", %{store: store} do
    {watches, _group} = pair(store)
    put(store, "x", %{large: Map.new(1..100, &{&1, "value"})})
    put(store, "x", nil)
    last = put(store, "y", String.duplicate("v", 200_000))
    for watch <- watches, do: assert([1, 2, 3, 4] == revisions(watch, last))
    Enum.each(watches, &await_group/1)
    last = put(store, "y", 1)

    assert [{:changes, ^last, [%Change{type: :updated, value: 1, previous: <<"v", _rest::binary>>, version: 2}]}] =
             Enum.filter(until(hd(watches), last), &match?({:changes, _, _}, &1))
  end

  test "a full mailbox holds back one watch, which gets all of it later; the others go on", %{store: store} do
    test = self()

    slow =
      spawn_link(fn ->
        watch = watch(store, mailbox_max: 3, lag_timeout_ms: :infinity)
        send(test, {:slow, watch})
        receive do: ({:read, last} -> send(test, {:read, revisions(watch, last)}))
      end)

    assert_receive {:slow, slow_watch}, 5_000
    fast = watch(store)
    first = put(store, "x", 0)
    await_group(slow_watch)
    last = Enum.reduce(1..20, first, fn n, _last -> put(store, "x", n) end)
    assert revisions(fast, last) == Enum.to_list(first..last)
    eventually("the slow watch to be on its own", fn -> group(slow_watch) == nil end)
    assert {:message_queue_len, waiting} = Process.info(slow, :message_queue_len)
    assert waiting <= 4
    send(slow, {:read, last})
    assert_receive {:read, revisions}, 30_000
    assert revisions == Enum.to_list(first..last)
  end

  test "a watch in a group reports progress, and says where it is", %{store: store} do
    {[watch | _rest], _group} = pair(store, progress_interval_ms: 50)
    {:ok, other} = Path.to_key([:b])
    {:ok, revision} = Call.write(store, :put, other, 1, nil, 30_000)
    assert List.last(until(watch, revision)) == {:progress, revision}
    told = for %{sent: sent} <- Watch.Feed.list(store), do: sent
    assert Enum.all?(told, &(&1 >= 1)) and length(told) == 2
  end

  test "a watch that joins is told of nothing twice", %{store: store} do
    writer = Task.async(fn -> for n <- 1..500, do: put(store, "x", n) end)
    # They come while it writes, and meet a group that is further or not as far.
    # They share a mailbox.
    watches = for _ <- 1..20, do: watch(store, mailbox_max: 100_000)
    last = List.last(Task.await(writer, 60_000))

    for %{revision: revision} = watch <- watches do
      wanted = if revision < last, do: Enum.to_list((revision + 1)..last), else: []
      assert wanted == [] or revisions(watch, last) == wanted
    end
  end

  test "watches whose mailboxes are always full leave and join, and see each revision once, in order", %{store: store} do
    test = self()

    readers =
      for buffer <- Enum.take(Stream.cycle([1, 2, 3, 1_000]), 40) do
        spawn_link(fn ->
          watch = watch(store, mailbox_max: buffer, lag_timeout_ms: :infinity)
          send(test, {:watching, self(), watch})
          receive do: ({:read, last} -> send(test, {:read, self(), revisions(watch, last)}))
        end)
      end

    for reader <- readers, do: assert_receive({:watching, ^reader, %{revision: 0}}, 5_000)
    # Readers begin at different times, while others write.
    writers = for n <- 1..4, do: Task.async(fn -> for i <- 1..250, do: put(store, "x#{n}", i) end)
    {early, late} = Enum.split(readers, 20)
    for reader <- early, do: send(reader, {:read, 1_000})
    assert writers |> Task.await_many(60_000) |> List.flatten() |> Enum.max() == 1_000
    for reader <- late, do: send(reader, {:read, 1_000})

    for reader <- readers do
      assert_receive {:read, ^reader, revisions}, 60_000
      assert revisions == Enum.to_list(1..1_000)
    end
  end

  test "when the group is killed, its watches end, and say so last", %{store: store} do
    {watches, group} = pair(store)
    for watch <- watches, do: assert(revisions(watch, 1) == [1])
    Process.exit(group, :kill)

    for %{ref: ref} = watch <- watches do
      assert_receive {:store_watch, ^ref, {:cancelled, :store_stopped}}, 5_000
      assert :ok = Watch.cancel(watch)
    end
  end

  test "a feed that is killed ends its watch alone", %{store: store} do
    {[killed, other], group} = pair(store)
    %{ref: ref} = killed
    Process.exit(killed.pid, :kill)
    assert_receive {:store_watch, ^ref, {:cancelled, :store_stopped}}, 5_000
    last = put(store, "x", 1)
    assert revisions(other, last) == [1, last]
    refute_received {:store_watch, ^ref, {:changes, ^last, _changes}}
    assert Process.alive?(group)
  end

  test "all watches of a group are told when the store stops", %{store: store} do
    {watches, _group} = pair(store)
    :ok = Cluster.stop(store)
    for %{ref: ref} <- watches, do: assert_receive({:store_watch, ^ref, {:cancelled, :store_stopped}}, 5_000)
  end
end
