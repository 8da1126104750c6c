defmodule Tank.Store.HistoryTest do
  # What clients know of a store that does not go on from there: it was restored, forced into a new cluster, or replaced.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backend, Backup, Change, Cluster, ForkStorm, KVPair, Lease, Projection, Tree, Watch}

  @moduletag :tmp_dir

  # Forks the past of a store whose clients know more than what is left.
  defp fork(:restore, store, dir) do
    file = Path.join(dir, "backup")
    {:ok, about} = Backup.create(store, file)

    fn ->
      :ok = Cluster.stop(store)
      restored = Path.join(dir, "restored")
      {:ok, ^about} = Backup.restore(file, restored)
      {:ok, ^store} = Cluster.start(restored, store, 60_000)
      about
    end
  end

  defp fork(:replace, store, dir) do
    file = Path.join(dir, "export")
    {:ok, _exported} = Backup.export(store, file)
    fn -> {:ok, _imported} = Backup.import(store, file, replace: true, timeout: 60_000) end
  end

  defp fork(:force, store, _dir), do: fn -> :ok = Cluster.force_new_cluster(store, force: true) end

  defp held(store) do
    {:ok, entries, _revision} = Tree.list(store, [], depth: :infinity)
    Map.new(entries, &{&1.path, &1.value})
  end

  defp next(%Watch{ref: ref}) do
    receive do
      {:store_watch, ^ref, message} -> message
    after
      10_000 -> flunk("no message of the watch came")
    end
  end

  for kind <- [:restore, :force, :replace] do
    describe "after #{kind}" do
      setup %{tmp_dir: dir} do
        store = start_store(Path.join(dir, "store"))
        for n <- 1..20, do: Tree.put!(store, [:a, "#{n}"], n)
        {:ok, lease} = Lease.acquire(store, "lease", holder: :me, ttl: 1_000)
        fork = fork(unquote(kind), store, dir)
        {:ok, history} = Tree.history(store)
        for n <- 1..10, do: Tree.put!(store, [:a, "later #{n}"], n)
        {:ok, last} = Tree.delete(store, [:a, "1"])
        %{store: store, lease: lease, fork: fork, history: history, last: last}
      end

      test "a position of before is compacted, for list_since and for watches", context do
        %{store: store, fork: fork, history: history, last: last} = context
        {:ok, watch} = Watch.start(store, [], from: :now)
        assert watch.history == history
        fork.()
        {:ok, now} = Tree.history(store)
        {:ok, status} = Cluster.status(store)
        assert status.history == now and now != history and now =~ ~r/\A[0-9a-f]{16}\z/

        {:cancelled, _stopped_or_compacted} =
          Enum.find_value(Stream.repeatedly(fn -> next(watch) end), &(match?({:cancelled, _reason}, &1) && &1))

        # The state that is left, all that clients saw, and what none of them can know.
        for revision <- [5, last - 5, last, status.revision + 10], position <- [revision, {history, revision}] do
          assert {:error, {:compacted, min}} = Tree.list_since(store, [], position), inspect(position)
          assert {:error, {:compacted, ^min}} = Watch.start(store, [], from: {:after, position}), inspect(position)
          assert min > last
        end

        assert {:error, {:compacted, _min}} = Tree.list_since(store, [], {history, status.revision})
        assert {:error, {:compacted, _min}} = Tree.get_entry(store, [:a, "2"], revision: last)
        assert {:error, {:compacted, _min}} = Tree.await_revision(store, {history, last})
        # What follows goes on from the new one.
        {:ok, entries, revision} = Tree.list(store, [], depth: :infinity)
        assert Tree.list_since(store, [], {now, revision}) == :unchanged
        {:ok, watch} = Watch.start(store, [:a], from: {:after, {now, revision}})
        written = Tree.put!(store, [:a, "2"], :new)
        assert {:ok, [%Change{previous: 2, value: :new}], ^written} = Tree.list_since(store, [], revision)
        assert {:synced, ^revision} = next(watch)
        assert {:changes, ^written, [%Change{value: :new}]} = next(watch)
        assert map_size(held(store)) == length(entries)
      end

      test "the former holder of a lease is refused, and the next one gets a higher epoch", context do
        %{store: store, fork: fork, lease: lease, last: last} = context
        Tree.put!(store, [:attached], 1, lease: lease)
        guarded = [{:lease, "lease", :epoch, lease.epoch}]
        assert Tree.txn!(store, guarded, [], []).succeeded
        fork.()
        assert Lease.renew(lease) == {:error, :lease_ended}
        refute Tree.txn!(store, guarded, [{:put, [:led], 1}], []).succeeded
        refute Tree.txn!(store, [{:lease, "lease", :epoch, 0}], [{:put, [:led], 1}], []).succeeded
        assert Tree.put(store, [:more], 1, lease: lease) == {:error, :lease_ended}

        other =
          eventually("the lease's time to be over", fn ->
            case Lease.acquire(store, "lease", holder: :other, ttl: 60_000) do
              {:ok, lease} -> lease
              held -> {:not_yet, held}
            end
          end)

        assert other.epoch > last + 1_000_000_000_000
        refute Map.has_key?(held(store), [:attached])
        assert Tree.txn!(store, [{:lease, "lease", :epoch, other.epoch}], [], []).succeeded
        assert Lease.renew(lease) == {:error, :lease_ended}
      end

      test "no read finds a value of before, and a write that relies on one is refused", %{store: store, fork: fork} do
        entry = Tree.get_entry!(store, [:a, "later 1"])
        # Read twice, it is kept at hand.
        for _ <- 1..3, do: assert(Tree.get(store, [:a, "later 1"]) == {:ok, 1})
        fork.()
        held = held(store)

        for path <- [[:a, "1"], [:a, "2"], [:a, "later 1"]] do
          expected = if is_map_key(held, path), do: {:ok, held[path]}, else: {:error, :not_found}
          assert Tree.get(store, path) == expected
          assert Tree.get(store, path, favor: :low_latency) == expected
        end

        if Tree.get(store, [:a, "later 1"]) == {:error, :not_found} do
          Tree.put!(store, [:a, "later 1"], :again)
          assert {:error, {:conflict, _entry}} = Tree.put(store, [:a, "later 1"], 2, if_revision: entry.revision)
        end
      end

      test "a projection and a backend's client go on", %{store: store, fork: fork} do
        table = :"history_#{unquote(kind)}"
        {:ok, projection} = Projection.start_link(store: store, pattern: [:a], table: table)
        {:ok, client} = Backend.new(store, [:a])
        {:ok, pairs, revision} = Backend.list(client, [])
        assert length(pairs) == 29
        {:ok, pair} = Backend.get(client, ["2"], revision: revision)
        fork.()
        assert {:error, %Backend.DatastoreError{reason: :compacted}} = Backend.watch(client, [], revision)
        assert {:error, %Backend.DatastoreError{reason: :compacted}} = Backend.get(client, ["2"], revision: revision)
        {:ok, pairs, revision} = Backend.list(client, [])
        {:ok, watch} = Backend.watch(client, [], revision)
        {:ok, %KVPair{}} = Backend.apply(client, %{pair | value: :again}, cas: false)
        ref = watch.ref
        assert_receive {:backend_watch, ^ref, %{type: :modified, new: %{value: :again}}}, 10_000
        assert :ok = Projection.await(projection, Tree.put!(store, [:a, "2"], :last), 10_000)
        expected = for {[:a, _name] = path, value} <- held(store), do: {path, value}
        assert Enum.sort(:ets.tab2list(table)) == Enum.sort(expected)
        assert length(expected) == length(pairs)
      end
    end
  end

  test "a transaction that began before is run again", %{tmp_dir: dir} do
    store = start_store(Path.join(dir, "store"))
    Tree.put!(store, [:a, "1"], 1)
    fork = fork(:replace, store, dir)
    runs = :counters.new(1, [])

    {:ok, count} =
      Tree.transaction(store, fn tx ->
        {:ok, entries, _revision} = Tree.list(tx, [:a])
        :counters.add(runs, 1, 1)
        if :counters.get(runs, 1) == 1, do: Task.await(Task.async(fork))
        Tree.put!(tx, [:count], length(entries))
        length(entries)
      end)

    assert {count, :counters.get(runs, 1)} == {1, 2}
  end

  test "a restored store has the id that the backup names, unless told otherwise", %{tmp_dir: dir} do
    store = start_store(Path.join(dir, "store"))
    Tree.put!(store, [:a], 1)
    file = Path.join(dir, "backup")
    {:ok, %{store_id: name, history: history}} = Backup.create(store, file)
    assert {name, {:ok, history}} == {Atom.to_string(store), Tree.history(store)}
    :ok = Cluster.stop(store)
    {:ok, _about} = Backup.restore(file, Path.join(dir, "same"))
    assert Cluster.start(Path.join(dir, "same"), store, 60_000) == {:ok, store}
    {:ok, _about} = Backup.restore(file, Path.join(dir, "other"), store_id: :renamed_store)
    assert start_store(Path.join(dir, "other"), store_id: :renamed_store) == :renamed_store
    assert held(:renamed_store) == %{[:a] => 1}
    # Two stores of one backup are in two histories, and neither takes a position of the other.
    {{:ok, one}, {:ok, other}} = {Tree.history(store), Tree.history(:renamed_store)}
    assert one != other
    [{:ok, %{revision: a}}, {:ok, %{revision: b}}] = [Cluster.status(store), Cluster.status(:renamed_store)]
    assert a != b
    assert {:error, {:compacted, _min}} = Tree.list_since(store, [], b)
    assert {:error, {:compacted, _min}} = Tree.list_since(:renamed_store, [], a)
  end

  test "an import that replaces leaves what the file has, and no more", %{tmp_dir: dir} do
    store = start_store(Path.join(dir, "store"))
    for n <- 1..3, do: Tree.put!(store, [:a, "#{n}"], n)
    file = Path.join(dir, "export")
    {:ok, _exported} = Backup.export(store, file)
    before = held(store)
    Tree.put!(store, [:a, "1"], :changed)
    Tree.put!(store, [:b], 1)
    assert Backup.import(store, file, replace: true) == {:ok, %{entries: 3}}
    assert held(store) == before
    # Nothing is deleted for a file that cannot be read.
    File.write!(file, "nonsense")
    assert {:error, {:malformed, 1}} = Backup.import(store, file, replace: true)
    assert held(store) == before
  end

  test "a watch that waits for a revision of before ends as compacted", %{tmp_dir: dir} do
    store = start_store(Path.join(dir, "store"))
    Tree.put!(store, [:a], 1)
    {:ok, watch} = Watch.start(store, [], from: {:after, 100}, favor: :low_latency)
    fork(:replace, store, dir).()
    assert {:cancelled, {:compacted, min}} = next(watch)
    assert min > 1_000_000_000_000
  end

  defp storm(dir, rounds) do
    seed = ExUnit.configuration()[:seed]
    :rand.seed(:exsss, seed)
    store = start_store(Path.join(dir, "0"))
    :ok = ForkStorm.start(store, "one")
    on_exit(fn -> if Process.whereis(ForkStorm), do: ForkStorm.stop() end)

    for round <- 1..rounds do
      kind = Enum.at([:restore, :force, :replace], rem(round, 3))
      somewhat_later(store)
      here = Path.join(dir, "#{round}")
      File.mkdir_p!(here)
      fork = fork(kind, store, here)
      somewhat_later(store)
      fork.()
      {grants, guarded} = ForkStorm.led()
      somewhat_later(store)

      # The former holder's lease ends first.
      eventually("a grant and a guarded write after the fork", fn ->
        {grants_now, guarded_now} = ForkStorm.led()
        (grants_now > grants and guarded_now > guarded) or {:not_yet, {grants_now - grants, guarded_now - guarded}}
      end)

      :ok = ForkStorm.write(false)
      ForkStorm.await_equal(store, "#{kind}, round #{round}, seed #{seed}")
      :ok = ForkStorm.write(true)
    end

    :ok = ForkStorm.write(false)
    figures = ForkStorm.judge(ForkStorm.notes())
    assert figures.writes > 10 * rounds and figures.grants >= rounds and figures.guarded >= rounds, inspect(figures)
    IO.puts("#{rounds} forks on one member: #{inspect(figures)}")
  end

  # Some writes.
  defp somewhat_later(store) do
    {:ok, %{revision: revision}} = Cluster.status(store)
    later = revision + :rand.uniform(60)

    eventually("revision #{later}", fn -> with({:ok, status} <- Cluster.status(store), do: status.revision >= later) end)
  end

  test("all clients go on by themselves, whatever forks the past", %{tmp_dir: dir}, do: storm(dir, 6))

  @tag :long
  @tag timeout: 3_600_000
  test("all clients go on by themselves, whatever forks the past, 100 times", %{tmp_dir: dir}, do: storm(dir, 100))
end
