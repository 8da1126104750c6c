defmodule Tank.Store.TreeTest do
  # The general API, line by line, on one store that all tests of this module share.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Entry, Error, Lease, Tree, Watch}

  doctest Tank.Store.Tree

  setup_all do
    %{store: start_store(module_dir(__MODULE__), store_id: :app)}
  end

  setup do
    {:ok, _revision} = Tree.delete(:app, [])
    :ok
  end

  defp put_all(store, paths), do: for(path <- paths, do: Tree.put!(store, path, List.last(path)))
  defp paths(store, pattern), do: store |> Tree.get_many!(pattern) |> elem(0) |> Map.keys() |> Enum.sort()
  defp revision(store), do: store |> Tree.get_many!([]) |> elem(1)

  describe "get and get_entry" do
    test "a stored nil is a value, and a path with something below it has none", %{store: s} do
      Tree.put!(s, [:a, :b], nil)
      assert Tree.get(s, [:a, :b]) == {:ok, nil}
      assert Tree.get(s, [:a]) == {:error, :not_found}
      assert Tree.get(s, [:x]) == {:error, :not_found}
      assert Tree.get(s, [:a, :b], favor: :low_latency) == {:ok, nil}
    end

    test "an atom and a string are different, and the root may have a value", %{store: s} do
      Tree.put!(s, [:a], 1)
      Tree.put!(s, ["a"], 2)
      Tree.put!(s, [], 3)
      assert {Tree.get!(s, [:a]), Tree.get!(s, ["a"]), Tree.get!(s, [])} == {1, 2, 3}
    end

    test "an entry has its revisions, its version and how many children it has", %{store: s} do
      {:ok, first} = Tree.put(s, [:a], 1)
      put_all(s, [[:a, :b], [:a, :c, :d]])
      {:ok, last} = Tree.put(s, [:a], 2)

      assert Tree.get_entry(s, [:a]) ==
               {:ok,
                %Entry{
                  path: [:a],
                  value: 2,
                  revision: last,
                  create_revision: first,
                  version: 2,
                  child_count: 2,
                  lease: 0,
                  payload_version: 2,
                  child_list_version: 3
                }}

      assert last == first + 3
      assert Tree.get_entry(s, [:a, :c]) == {:error, :not_found}
    end

    test "an entry as it was: at each revision, before it was there, and when it was gone", %{store: s} do
      before = revision(s)
      {:ok, r1} = Tree.put(s, [:a], 1)
      {:ok, r2} = Tree.put(s, [:a, :b, :c], 1)
      {:ok, r3} = Tree.put(s, [:a], 2)
      {:ok, r4} = Tree.put(s, [:a, :d], 1)
      {:ok, r5} = Tree.delete(s, [:a])
      {:ok, r6} = Tree.put(s, [:a], 3)

      seen = fn revision ->
        with {:ok, entry} <- Tree.get_entry(s, [:a], revision: revision),
             do: {entry.value, entry.revision, entry.create_revision, entry.version, entry.child_count}
      end

      assert seen.(before) == {:error, :not_found}
      assert seen.(r1) == {1, r1, r1, 1, 0}
      assert seen.(r2) == {1, r1, r1, 1, 1}
      assert seen.(r3) == {2, r3, r1, 2, 1}
      assert seen.(r4) == {2, r3, r1, 2, 2}
      assert seen.(r5) == {:error, :not_found}
      assert seen.(r6) == {3, r6, r6, 1, 0}
      assert seen.(r6 + 1) == {:error, {:future_revision, r6}}
      # What is not there may stand beside what is.
      assert Tree.get_entry(s, [:b], revision: r6) == {:error, :not_found}
    end

    test "what is compacted cannot be read, what is not can, also after a restart", %{store: s} do
      {:ok, r1} = Tree.put(s, [:a], 1)
      {:ok, r2} = Tree.put(s, [:a], 2)
      {:ok, r3} = Tree.put(s, [:a], 3)
      :ok = Tree.compact(s, r2)
      kill_server(s)
      assert Tree.get_entry(s, [:a], revision: r1) == {:error, {:compacted, r2}}
      assert %Entry{value: 2} = Tree.get_entry!(s, [:a], revision: r2)
      assert %Entry{value: 3} = Tree.get_entry!(s, [:a], revision: r3)
      assert_raise Error, "revisions below #{r2} are compacted", fn -> Tree.get_entry!(s, [:a], revision: r1) end
    end

    test "values of all sizes come back, alone and in lists", %{store: s} do
      sizes = [0, 60_000, 70_000, 300_000, 2_000_000]
      for size <- sizes, do: Tree.put!(s, [:l, "#{size}"], :binary.copy("x", size))

      for size <- sizes do
        assert byte_size(Tree.get!(s, [:l, "#{size}"])) == size
        assert byte_size(Tree.get!(s, [:l, "#{size}"], favor: :low_latency)) == size
        assert byte_size(Tree.get_entry!(s, [:l, "#{size}"]).value) == size
      end

      {values, _revision} = Tree.get_many!(s, [:l, :*])
      assert values |> Map.values() |> Enum.map(&byte_size/1) |> Enum.sort() == sizes
    end
  end

  describe "exists, has_data and count" do
    test "a node, an entry, or nothing", %{store: s} do
      Tree.put!(s, [:foo, :bar], 1)
      assert for(p <- [[:foo], [:foo, :bar], [:bar], []], do: Tree.exists(s, p)) == [true, true, false, true]
      assert for(p <- [[:foo], [:foo, :bar], [:bar], []], do: Tree.has_data(s, p)) == [false, true, false, false]
    end

    test "an unavailable store raises, and so does what is no path" do
      for check <- [&Tree.exists/2, &Tree.has_data/2] do
        assert %Error{reason: :noproc} = catch_error(check.(:no_such_store, [:a]))
        assert %Error{reason: {:invalid_path, _why}} = catch_error(check.(:app, [1]))
      end
    end

    test "count counts nodes", %{store: s} do
      put_all(s, [[:foo, :bar], [:baz]])

      for {pattern, count} <- [
            {[:missing], 0},
            {[:foo], 1},
            {[:*, :*], 1},
            {[:*], 2},
            {[:**], 3},
            {[:foo, :**], 1},
            {[{:all, [:**, :has_data]}], 2},
            {[{:not, :has_data}], 1},
            {[], 1}
          ] do
        assert Tree.count(s, pattern) == {:ok, count}, inspect(pattern)
      end
    end
  end

  describe "list" do
    setup %{store: s} do
      put_all(s, [[:l], [:l, :a], [:l, :b, :c], [:l, "a"], [:l, "a", "x"], [:l, "b"], [:m]])
      :ok
    end

    defp listed(store, opts), do: store |> Tree.list!([:l], opts) |> elem(0) |> Enum.map(& &1.path)

    test "the direct children that have a value, or deeper", %{store: s} do
      assert listed(s, []) == [[:l, :a], [:l, "a"], [:l, "b"]]
      assert listed(s, depth: 2) == [[:l, :a], [:l, :b, :c], [:l, "a"], [:l, "a", "x"], [:l, "b"]]
      assert listed(s, depth: :infinity, reverse: true) == Enum.reverse(listed(s, depth: 2))
    end

    test "pages, in either order, give everything once", %{store: s} do
      for reverse <- [false, true], limit <- 1..4 do
        pages =
          Stream.unfold(nil, fn last ->
            page = listed(s, depth: 2, reverse: reverse, limit: limit, after: last)
            if page != [], do: {page, List.last(page)}
          end)

        assert Enum.concat(pages) == listed(s, depth: 2, reverse: reverse)
      end
    end

    test "keys only, and the revision", %{store: s} do
      {:ok, entries, revision} = Tree.list(s, [:l], keys_only: true)
      assert Enum.map(entries, & &1.value) == [nil, nil, nil]
      assert Enum.map(entries, & &1.child_count) == [0, 1, 0]
      assert revision == revision(s)
      assert Tree.list(s, [:none]) == {:ok, [], revision}
    end

    test "many entries", %{store: s} do
      for n <- 1..1_000, do: Tree.put!(s, [:many, "#{n}"], n)
      {entries, _revision} = Tree.list!(s, [:many])
      assert entries |> Enum.map(& &1.value) |> Enum.sort() == Enum.to_list(1..1_000)
      assert Tree.count!(s, [:many, :*]) == 1_000
      assert length(Enum.to_list(Tree.stream(s, [:many, :*], page: 7))) == 1_000
    end
  end

  describe "patterns" do
    setup %{store: s} do
      put_all(s, [[:p], [:p, "web1"], [:p, "web2", :x], [:p, :db], [:p, "WEB"]])
      Tree.put!(s, [:p, :db], :again)
      :ok
    end

    test "conditions", %{store: s} do
      for {condition, found} <- [
            {:*, [[:p, :db], [:p, "WEB"], [:p, "web1"]]},
            {:**, [[:p, :db], [:p, "WEB"], [:p, "web1"], [:p, "web2", :x]]},
            {{:name_matches, ~r/^web/}, [[:p, "web1"]]},
            {{:name_matches, ~r/^web/i}, [[:p, "WEB"], [:p, "web1"]]},
            {{:name_matches, "^db$"}, [[:p, :db]]},
            {{:data, "web1"}, [[:p, "web1"]]},
            {{:version, :>, 1}, [[:p, :db]]},
            {{:all, [:**, {:child_count, :==, 0}, {:not, :db}]}, [[:p, "WEB"], [:p, "web1"], [:p, "web2", :x]]},
            {{:any, [:db, "web1"]}, [[:p, :db], [:p, "web1"]]},
            {{:is, "web1"}, [[:p, "web1"]]},
            {{:all, [{:name_matches, "^w"}, :has_data]}, [[:p, "web1"]]}
          ] do
        assert paths(s, [:p, condition]) == found, inspect(condition)
      end

      assert Tree.count!(s, [:p, {:child_count, :>=, 1}]) == 1
      assert paths(s, [:p, {:name_matches, "2$"}, :*]) == [[:p, "web2", :x]]
    end

    test "equal values are equal, however they were made", %{store: s} do
      maps = for order <- [1..100, 100..1//-1], do: Enum.reduce(order, %{}, &Map.put(&2, {&1}, "#{&1}"))
      Tree.put!(s, [:p, :map], hd(maps))
      for map <- maps, do: assert(paths(s, [:p, {:data, map}]) == [[:p, :map]])
      Tree.put!(s, [:p, :one], 1)
      assert paths(s, [:p, {:data, 1.0}]) == []
    end

    test "of 64 regular expressions that nobody compiled yet, in every function; of more none is taken", %{store: s} do
      since = Tree.put!(s, [:p, "7"], 7)

      calls = [
        &Tree.count/2,
        &Tree.get_many/2,
        &Tree.put_many(&1, &2, 1),
        &Tree.list_since(&1, &2, since),
        &Watch.start/2,
        &Tree.delete_many/2
      ]

      for {call, n} <- Enum.with_index(calls) do
        # Others for each call: none of them was compiled before.
        regexes = fn count -> {:any, for(i <- 1..count, do: {:name_matches, "^(fresh#{n}|#{i})$"})} end
        assert {:ok, _found} = with({:ok, found, _revision} <- call.(s, [:p, regexes.(64)]), do: {:ok, found})
        assert call.(s, [:p, regexes.(65)]) == {:error, {:too_large, :regexes, 64}}
      end

      assert Tree.get(s, [:p, "7"]) == {:error, :not_found}
    end

    test "what makes no sense is refused by every function, and nothing is logged", %{store: s} do
      {:ok, %{log_entries: logged}} = Cluster.status(s)

      for pattern <- [
            [{:name_matches, "("}],
            [{:name_matches, ~S"(a)\1"}],
            [{:name_matches, ~r/é/u}],
            [{:version, :=, 1}],
            [{:version, :==, -1}],
            [1],
            [{:not, :**}],
            [:a | :b],
            :a
          ] do
        for call <- [
              &Tree.count/2,
              &Tree.get_many/2,
              &Tree.delete_many/2,
              &Tree.put_many(&1, &2, 1),
              &Tree.clear/2,
              fn s, pattern -> Tree.transaction!(s, &Tree.count(&1, pattern)) end
            ] do
          assert {:error, {:invalid_pattern, why}} = call.(s, pattern)
          assert is_binary(why)
        end

        assert %Error{reason: {:invalid_pattern, _why}} = catch_error(Tree.stream(s, pattern))
      end

      assert {:error, {:too_large, :pattern, 63}} = Tree.count(s, List.duplicate(:*, 64))
      assert {:error, {:too_large, :regex, 1_024}} = Tree.count(s, [{:name_matches, String.duplicate("a", 2_000)}])
      assert {:ok, %{log_entries: ^logged}} = Cluster.status(s)
    end
  end

  describe "writing" do
    test "create and update look first", %{store: s} do
      assert Tree.update(s, [:a], 1) == {:error, :not_found}
      {:ok, revision} = Tree.create(s, [:a], 1)
      assert {:error, {:exists, %Entry{path: [:a], value: 1, revision: ^revision}}} = Tree.create(s, [:a], 2)
      assert {:ok, _revision} = Tree.update(s, [:a], 2)
      assert Tree.get!(s, [:a]) == 2
    end

    test "unless_same: an equal value makes no revision, and no change", %{store: s} do
      {:ok, revision} = Tree.put(s, [:same], %{a: 1}, unless_same: true)
      {:ok, watch} = Tank.Store.Watch.start(s, [:same], from: :now)
      assert Tree.put(s, [:same], %{a: 1}, unless_same: true) == {:ok, revision}
      assert %{version: 1, revision: ^revision} = Tree.get_entry!(s, [:same])
      {:ok, lease} = Tank.Store.Lease.acquire(s, "of_same", holder: 1, ttl: 60_000)
      {:ok, second} = Tree.put(s, [:same], %{a: 1}, unless_same: true, lease: lease)
      assert Tree.put(s, [:same], %{a: 1}, unless_same: true, lease: lease) == {:ok, second}
      {:ok, third} = Tree.put(s, [:same], %{a: 1.0}, unless_same: true, lease: lease)
      assert %{version: 3, revision: ^third} = Tree.get_entry!(s, [:same])
      ref = watch.ref
      for revision <- [second, third], do: assert_receive({:store_watch, ^ref, {:changes, ^revision, [_change]}})
      Tank.Store.Watch.cancel(watch)
      Tank.Store.Lease.release(lease)

      assert_raise ArgumentError, ~r/together/, fn -> Tree.put(s, [:same], 1, unless_same: true, if_revision: 1) end
      assert_raise ArgumentError, ~r/true or false/, fn -> Tree.put(s, [:same], 1, unless_same: 1) end
    end

    test "a pattern in the place of a path is refused by each function of one node", %{store: s} do
      Tree.put!(s, [:users, "ann"], 1)

      for part <- [:*, :**, :has_data, {:name_matches, ~r/a/}, {:is, "ann"}], path = [:users, part] do
        for call <- [
              &Tree.get(s, &1),
              &Tree.get(s, &1, favor: :low_latency),
              &Tree.get_entry(s, &1),
              &Tree.get_entry(s, &1, revision: 1),
              &Tree.list(s, &1),
              &Tree.put(s, &1, 2),
              &Tree.create(s, &1, 2),
              &Tree.update(s, &1, 2),
              &Tree.compare_and_swap(s, &1, 1, 2),
              &Tree.delete(s, &1),
              &Tree.txn(s, [], [{:delete, &1}], []),
              &Tree.txn(s, [{:exists, &1, :==, true}], [], [])
            ] do
          assert {:error, {:invalid_path, why}} = call.(path)
          assert why =~ "delete_many"
        end

        assert_raise Error, ~r/delete_many/, fn -> Tree.exists(s, path) end
      end

      assert Tree.get_many!(s, [:users, :**]) |> elem(0) == %{[:users, "ann"] => 1}
    end

    test "a condition on the revision", %{store: s} do
      {:ok, r1} = Tree.put(s, [:a], 1, if_revision: 0)
      assert {:error, {:conflict, %Entry{value: 1}}} = Tree.put(s, [:a], 2, if_revision: 0)
      {:ok, r2} = Tree.put(s, [:a], 2, if_revision: r1)
      assert {:error, {:conflict, %Entry{revision: ^r2}}} = Tree.delete(s, [:a], if_revision: r1)
      assert {:error, {:conflict, nil}} = Tree.put(s, [:b], 1, if_revision: r1)
      assert {:error, {:conflict, _entry}} = Tree.update(s, [:a], 3, if_revision: r1)
      assert {:ok, _revision} = Tree.delete(s, [:a], if_revision: r2)
    end

    test "compare and swap, also of a large map", %{store: s} do
      map = Map.new(1..500, &{&1, &1})
      assert Tree.compare_and_swap(s, [:a], 1, 2) == {:error, {:conflict, nil}}
      Tree.put!(s, [:a], map)
      assert {:error, {:conflict, %Entry{value: ^map}}} = Tree.compare_and_swap(s, [:a], %{}, 2)
      assert {:ok, _revision} = Tree.compare_and_swap(s, [:a], Map.new(Enum.shuffle(map)), 2)
      assert Tree.get!(s, [:a]) == 2
    end

    test "deleting takes the subtree, and parents go with their last child", %{store: s} do
      put_all(s, [[:a, :b, :c], [:a, :b, :d], [:e]])
      {:ok, revision} = Tree.delete(s, [:a, :b])
      refute Tree.exists(s, [:a])
      assert Tree.delete(s, [:a]) == {:ok, revision}
      assert paths(s, [:**]) == [[:e]]
    end

    test "many at a time, at one revision", %{store: s} do
      put_all(s, [[:a, "x"], [:a, "y", "z"], [:b]])
      before = revision(s)
      assert Tree.put_many(s, [:*, :*], 0) == {:ok, before + 1}
      assert Tree.get_entry!(s, [:a, "y"]).revision == before + 1
      assert Tree.clear(s, [:a, "y"]) == {:ok, before + 2}
      assert paths(s, [:**]) == [[:a, "x"], [:a, "y", "z"], [:b]]
      assert Tree.delete_many(s, [:a, :**]) == {:ok, before + 3}
      assert paths(s, [:**]) == [[:b]]
      assert Tree.put_many(s, [:nobody, :*], 1) == {:ok, before + 3}
      assert Tree.delete_many(s, [:**]) == {:ok, before + 4}
      refute Tree.exists(s, [])
    end

    test "put_many of too much is refused as a whole", %{store: s} do
      for n <- 1..70, do: Tree.put!(s, [:t, "#{n}"], n)
      megabyte = :binary.copy("x", 1024 * 1024)
      assert Tree.put_many(s, [:t, :*], megabyte) == {:error, {:too_large, :matches, 64 * 1024 * 1024}}
      assert Tree.get!(s, [:t, "1"]) == 1
    end

    test "limits; what is over them is not logged", %{store: s} do
      {:ok, %{log_entries: logged}} = Cluster.status(s)
      name = String.duplicate("x", 256)
      assert Tree.put(s, [name], 1) == {:error, {:too_large, :path_component, 255}}
      assert Tree.put(s, List.duplicate(String.duplicate("x", 205), 5), 1) == {:error, {:too_large, :path, 1024}}
      assert Tree.put(s, [:a], :binary.copy("x", 16_777_216)) == {:error, {:too_large, :value, 16_777_216}}
      assert {:error, {:invalid_path, _why}} = Tree.put(s, [:a, 1], 1)
      ops = for n <- 1..1_025, do: {:put, ["#{n}"], n}
      assert Tree.txn(s, [], ops, []) == {:error, {:too_large, :transaction, 1_024}}
      assert {:ok, %{log_entries: ^logged}} = Cluster.status(s)
      assert {:ok, %{succeeded: true}} = Tree.txn(s, [], tl(ops), [])
    end

    test "a lease that is not held", %{store: s} do
      assert Tree.put(s, [:a], 1, lease: 999_999) == {:error, :lease_ended}
      assert Tree.create(s, [:a], 1, lease: %{epoch: 999_999}) == {:error, :lease_ended}
      assert Tree.txn(s, [], [{:put, [:a], 1, lease: 999_999}], []) == {:error, :lease_ended}
      assert_raise ArgumentError, fn -> Tree.put(s, [:a], 1, lease: :none) end
    end
  end

  describe "txn" do
    test "every comparison, both ways", %{store: s} do
      {:ok, r1} = Tree.put(s, [:a], 1)
      {:ok, r2} = Tree.put(s, [:a], 2)
      put_all(s, [[:a, :b], [:a, :c]])
      now = revision(s)

      for {compare, holds?} <- [
            {{:value, [:a], :==, 2}, true},
            {{:value, [:a], :==, 1}, false},
            {{:value, [:a], :!=, 1}, true},
            {{:value, [:none], :==, nil}, false},
            {{:version, [:a], :==, 2}, true},
            {{:version, [:none], :==, 0}, true},
            {{:revision, [:a], :==, r2}, true},
            {{:create_revision, [:a], :<, r2}, true},
            {{:create_revision, [:a], :!=, r1}, false},
            {{:exists, [:a], :==, true}, true},
            {{:exists, [:none], :==, true}, false},
            {{:exists, [:none], :!=, true}, true},
            {{:child_count, [:a], :>=, 2}, true},
            {{:child_count, [:a], :>, 2}, false},
            {{:lease_epoch, [:a], :==, 0}, true},
            {{:lease, "none", :epoch, 0}, true},
            {{:lease, "none", :epoch, 1}, false},
            {{:revision, {:prefix, [:a]}, :<=, now}, true},
            {{:revision, {:prefix, [:a]}, :<, now}, false}
          ] do
        assert {:ok, %{succeeded: ^holds?, revision: ^now}} = Tree.txn(s, [compare], [], []), inspect(compare)
      end
    end

    test "a lease's epoch guards what its holder writes", %{store: s} do
      for name <- ["job", :job, [:jobs, "nightly"]] do
        {:ok, lease} = Lease.acquire(s, name, holder: self(), ttl: 60_000)

        guarded = fn ->
          Tree.txn!(s, [{:lease, name, :epoch, lease.epoch}], [{:put, [:guarded], name}], []).succeeded
        end

        assert guarded.()
        refute Tree.txn!(s, [{:lease, name, :epoch, 0}], [], []).succeeded
        assert {:ok, _safe_ms} = Lease.renew(lease)
        assert guarded.()
        :ok = Lease.release(lease)
        refute guarded.()
        assert Tree.txn!(s, [{:lease, name, :epoch, 0}], [], []).succeeded
        {:ok, other} = Lease.acquire(s, name, holder: :other, ttl: 60_000)
        refute guarded.()
        :ok = Lease.release(other)
      end

      assert {:error, {:invalid_path, _why}} = Tree.txn(s, [{:lease, [7], :epoch, 1}], [], [])
    end

    test "operations see those before, and share one revision", %{store: s} do
      before = revision(s)

      {:ok, result} =
        Tree.txn(s, [], [{:put, [:a], 1}, {:put, [:a], 2}, {:put, [:b, :c], %{}}, {:get, [:a]}, {:list, []}], [])

      assert %{succeeded: true, revision: revision} = result
      assert revision == before + 1

      assert [{:put, 1}, {:put, 2}, {:put, 1}, {:get, %Entry{value: 2, version: 2}}, {:list, [%Entry{path: [:a]}]}] =
               result.responses

      assert {:ok, %{responses: [{:delete, 1}, {:delete, 1}, {:get, nil}]}} =
               Tree.txn(s, [], [{:delete, [:b]}, {:clear, [:a]}, {:get, [:a]}], [])
    end

    test "what is no comparison or no operation raises", %{store: s} do
      assert_raise ArgumentError, "values are compared by :== and :!= only, got: :<", fn ->
        Tree.txn(s, [{:value, [:a], :<, 1}], [], [])
      end

      for bad <- [{:revision, [:a], :==, -1}, {:revision, [:a], :=, 1}, {:nothing, [:a], :==, 1}, :a] do
        assert_raise ArgumentError, ~r/not a comparison/, fn -> Tree.txn(s, [bad], [], []) end
      end

      assert_raise ArgumentError, ~r/not an operation/, fn -> Tree.txn(s, [], [{:drop, [:a]}], []) end
      assert {:error, {:invalid_path, _why}} = Tree.txn(s, [], [{:get, :a}], [])
    end
  end

  describe "calls" do
    test "an unknown store, an unknown option, a wrong one", %{store: s} do
      for call <- [
            &Tree.get(&1, [:a]),
            &Tree.get_entry(&1, [:a]),
            &Tree.get_entry(&1, [:a], revision: 1),
            &Tree.get_many(&1, [:a]),
            &Tree.list(&1, [:a]),
            &Tree.count(&1, [:a]),
            &Tree.put(&1, [:a], 1),
            &Tree.delete(&1, [:a]),
            &Tree.delete_many(&1, [:a]),
            &Tree.txn(&1, [], [], []),
            &Tree.transaction(&1, fn _tx -> :ok end),
            &Tree.fence/1,
            &Tree.await_revision(&1, 1),
            &Tree.compact(&1, 1)
          ] do
        assert call.(:no_such_store) == {:error, :noproc}
      end

      assert_raise ArgumentError, fn -> Tree.get(s, [:a], tiemout: 1) end
      assert_raise ArgumentError, fn -> Tree.get(s, [:a], favor: :speed) end
      assert_raise ArgumentError, fn -> Tree.list(s, [:a], depth: 0) end
      assert_raise ArgumentError, fn -> Tree.put(s, [:a], 1, if_revision: :any) end
      assert {:ok, _revision} = Tree.put(s, [:a], 1, timeout: :infinity)
      assert Tree.get(s, [:a], timeout: 60_000) == {:ok, 1}
    end

    test "the forms with a bang raise the same errors", %{store: s} do
      assert %Error{reason: :not_found} = catch_error(Tree.get!(s, [:none]))
      assert %Error{reason: :not_found} = catch_error(Tree.update!(s, [:none], 1))
      Tree.create!(s, [:a], 1)
      assert %Error{reason: {:exists, %Entry{}}} = error = catch_error(Tree.create!(s, [:a], 1))
      assert Exception.message(error) == "there is a value at [:a]"
      assert %Error{reason: {:conflict, nil}} = catch_error(Tree.put!(s, [:b], 1, if_revision: 7))
      assert %Error{reason: :noproc} = catch_error(Tree.fence!(:no_such_store))
      assert Tree.fence!(s) == :ok
      assert {[%Entry{}], _revision} = Tree.list!(s, [])
    end

    test "await_revision returns when a later write comes", %{store: s} do
      next = revision(s) + 3
      waiting = Task.async(fn -> Tree.await_revision(s, next, timeout: 60_000) end)
      for n <- 1..3, do: Tree.put!(s, [:a], n)
      assert Task.await(waiting, 60_000) == :ok
    end
  end
end
