defmodule Tank.Store.BackendTest do
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Backend, KVPair, Tree}

  alias Tank.Store.Backend.{AlreadyExists, DatastoreError, DoesNotExist, InsufficientIdentifiers}
  alias Tank.Store.Backend.{Event, Key, ListOptions, UpdateConflict, ValidationError}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    store = start_store(dir)
    {:ok, client} = Backend.new(store, [:calico, "v1"])
    %{store: store, client: client}
  end

  describe "one key" do
    test "create, get, and create again", %{client: client} do
      {:ok, created} = Backend.create(client, kv(["k"], 1))
      assert {created.key, created.value} == {["k"], 1}
      assert is_binary(created.revision)
      assert Backend.get(client, ["k"]) == {:ok, created}
      assert {:error, %AlreadyExists{key: ["k"], existing: ^created}} = Backend.create(client, kv(["k"], 2))
      assert Backend.get(client, ["k"]) == {:ok, created}
      assert {:error, %ValidationError{field: :revision}} = Backend.create(client, created)
    end

    test "update needs one, and with a revision the current one", %{client: client} do
      assert {:error, %DoesNotExist{key: ["k"]} = error} = Backend.update(client, kv(["k"], 1))
      assert Exception.message(error) =~ ~s(["k"])
      {:ok, first} = Backend.create(client, kv(["k"], 1))
      {:ok, second} = Backend.update(client, %{first | value: 2})
      assert Backend.get(client, ["k"]) == {:ok, second}
      assert second.revision != first.revision
      assert {:error, %UpdateConflict{key: ["k"], current: ^second}} = Backend.update(client, %{first | value: 3})
      {:ok, third} = Backend.update(client, kv(["k"], 3))
      assert Backend.get(client, ["k"]) == {:ok, third}
      :ok = Backend.delete(client, ["k"])
      assert {:error, %DoesNotExist{}} = Backend.update(client, %{third | value: 4})
    end

    test "apply creates, replaces, and compares revisions unless told otherwise", %{client: client} do
      {:ok, first} = Backend.apply(client, kv(["k"], 1))
      {:ok, second} = Backend.apply(client, kv(["k"], 2))
      assert Backend.get(client, ["k"]) == {:ok, second}
      assert {:error, %UpdateConflict{current: ^second}} = Backend.apply(client, %{first | value: 3})
      assert {:ok, third} = Backend.apply(client, %{first | value: 3}, cas: false)
      assert {:ok, fourth} = Backend.apply(client, %{third | value: 4})
      assert Backend.get(client, ["k"]) == {:ok, fourth}
      assert {:ok, _fifth} = Backend.apply(client, %KVPair{key: ["k"], value: 5, revision: "bogus"}, cas: false)
      assert {:error, %UpdateConflict{current: nil}} = Backend.apply(client, %{fourth | key: ["none"]})
    end

    test "delete", %{client: client} do
      assert {:error, %DoesNotExist{key: ["k"]}} = Backend.delete(client, ["k"])
      assert {:error, %DoesNotExist{}} = Backend.delete(client, %KVPair{key: ["k"], revision: "1"})
      {:ok, first} = Backend.create(client, kv(["k"], 1))
      {:ok, second} = Backend.update(client, %{first | value: 2})
      assert {:error, %UpdateConflict{current: ^second}} = Backend.delete(client, first)
      assert Backend.delete(client, second) == :ok
      assert {:error, %DoesNotExist{}} = Backend.get(client, ["k"])
    end

    test "what makes no sense is refused by name, and nothing is written", %{client: client, store: store} do
      for write <- [&Backend.update/2, &Backend.apply/2, &Backend.delete/2] do
        for revision <- ["abc", "1x", "-1", "", " 1", 7, "99999999999999999999"] do
          assert {:error, %ValidationError{field: :revision} = error} =
                   write.(client, %{kv(["k"], 1) | revision: revision})

          assert Exception.message(error) =~ "revision"
        end
      end

      assert {:error, %ValidationError{field: :revision}} = Backend.get(client, ["k"], revision: "abc")
      assert {:error, %ValidationError{field: :value}} = Backend.create(client, kv(["k"], nil))

      for ttl <- [0, -1, 1.5, "1"],
          do: assert({:error, %ValidationError{field: :ttl}} = Backend.create(client, %{kv(["k"], 1) | ttl: ttl}))

      assert {:error, %ValidationError{field: :key}} = Backend.create(client, kv([:a], 1))
      assert {:error, %ValidationError{field: :key}} = Backend.create(client, kv(["a" | "b"], 1))
      assert {:error, %ValidationError{field: :key}} = Backend.create(client, kv([String.duplicate("a", 256)], 1))

      for {key, part} <- [{[], 1}, {["a", nil], 2}, {["", "b"], 1}, {"/", 1}, {"/a//b", 2}] do
        assert {:error, %InsufficientIdentifiers{part: ^part}} = Backend.create(client, kv(key, 1))
        assert {:error, %InsufficientIdentifiers{part: ^part}} = Backend.get(client, key)
        assert {:error, %InsufficientIdentifiers{part: ^part}} = Backend.delete(client, key)
      end

      assert Tree.count(store, [:**]) == {:ok, 0}
    end

    test "the past, until it is compacted", %{client: client, store: store} do
      {:ok, first} = Backend.create(client, kv(["k"], 1))
      {:ok, second} = Backend.update(client, %{first | value: 2})
      assert Backend.get(client, ["k"], revision: first.revision) == {:ok, first}
      assert {:error, %DoesNotExist{}} = Backend.get(client, ["other"], revision: first.revision)
      :ok = Tree.compact(store, String.to_integer(second.revision))
      assert {:error, %DatastoreError{reason: :compacted}} = Backend.get(client, ["k"], revision: first.revision)
      assert {:error, %DatastoreError{reason: :compacted}} = Backend.list(client, revision: first.revision)
      assert {:error, %DatastoreError{reason: :compacted}} = Backend.watch(client, [], first.revision)
    end

    test "a store that does not run is a datastore error" do
      {:ok, client} = Backend.new(:no_such_store, [])

      for call <- [
            fn -> Backend.create(client, kv(["k"], 1)) end,
            fn -> Backend.apply(client, %{kv(["k"], 1) | ttl: 1}) end,
            fn -> Backend.delete(client, ["k"]) end,
            fn -> Backend.get(client, ["k"]) end,
            fn -> Backend.list(client, []) end,
            fn -> Backend.watch(client, [], nil) end,
            fn -> Backend.ensure_initialized(client) end
          ] do
        assert {:error, %DatastoreError{reason: :unavailable} = error} = call.()
        assert Exception.message(error) =~ "not running"
      end
    end

    test "the ready flag, and cleaning", %{client: client} do
      assert Backend.clean?(client) == {:ok, true}
      assert Backend.ensure_initialized(client) == :ok
      {:ok, flag} = Backend.get(client, ["ready"])
      assert Backend.ensure_initialized(client) == :ok
      assert Backend.get(client, ["ready"]) == {:ok, flag}
      assert flag.value == true
      assert Backend.clean?(client) == {:ok, false}
      assert Backend.clean(client) == :ok
      assert Backend.clean?(client) == {:ok, true}
    end

    test "keys are paths and back, whatever they hold", %{client: client} do
      for key <- [["a/b", "c%d", "%2f", "%252F"], ["é", <<0, 255>>], [":a", "..", " "]] do
        assert key |> Key.to_path() |> Key.from_path() == key
        {:ok, created} = Backend.create(client, kv(Key.to_path(key), key))
        assert {:ok, %KVPair{key: ^key, value: ^key}} = Backend.get(client, key)
        assert {:ok, [%KVPair{key: ^key}], _revision} = Backend.list(client, key)
        :ok = Backend.delete(client, created)
      end
    end
  end

  describe "list" do
    test "what there is, with revisions", %{client: client} do
      assert {:ok, [], _revision} = Backend.list(client, ["a"])
      {:ok, one} = Backend.create(client, kv(["a", "1"], 1))
      {:ok, two} = Backend.create(client, kv(["a", "2"], 2))
      {:ok, _other} = Backend.create(client, kv(["ab"], 3))
      {:ok, _other} = Backend.create(client, kv(["b", "1"], 3))
      assert {:ok, [^one, ^two], revision} = Backend.list(client, ["a"])
      assert {:ok, [^one, ^two], ^revision} = Backend.list(client, "/a")
      assert {:ok, [^one], _revision} = Backend.list(client, "/a/1")
      assert {of_list, "-" <> _history} = Integer.parse(revision)
      assert of_list >= String.to_integer(two.revision)
    end

    test "by fields, by a name's beginning, and by kind", %{client: client} do
      for host <- ["h1", "h2"], name <- ["eth0", "eth1", "lo"], do: create!(client, ["e", host, name], {host, name})
      create!(client, ["e", "h1"], :host)
      create!(client, ["e", "h1", "eth0", "stats"], :stats)
      values = fn options -> elem(Backend.list(client, [root: ["e"]] ++ options), 1) |> Enum.map(& &1.value) end
      assert values.(fields: [host: "h1", name: nil]) == [{"h1", "eth0"}, {"h1", "eth1"}, {"h1", "lo"}]
      assert values.(fields: [host: nil, name: "lo"]) == [{"h1", "lo"}, {"h2", "lo"}]
      assert values.(fields: [host: "h2", name: "lo"]) == [{"h2", "lo"}]
      assert values.(fields: [host: "h2", name: nil], name_prefix: "eth") == [{"h2", "eth0"}, {"h2", "eth1"}]
      assert values.(fields: [host: nil]) == [:host]
      assert length(values.([])) == 8
      assert {:error, %ValidationError{field: :list_options}} = Backend.list(client, roots: ["e"])
      assert {:error, %ValidationError{field: :parse}} = Backend.list(client, parse: 1)
      assert {:error, %ValidationError{field: :fields}} = Backend.list(client, fields: [host: 1])
    end

    test "as of a revision", %{client: client} do
      {:ok, a} = Backend.create(client, kv(["x", "a"], 1))
      {:ok, b} = Backend.create(client, kv(["x", "b"], 1))
      {:ok, _a} = Backend.update(client, %{a | value: 2})
      :ok = Backend.delete(client, b)
      create!(client, ["x", "c"], 1)
      assert Backend.list(client, root: ["x"], revision: b.revision) == {:ok, [a, b], b.revision}
      assert Backend.list(client, root: ["x"], revision: a.revision) == {:ok, [a], a.revision}
      assert {:error, %DatastoreError{reason: :future}} = Backend.list(client, root: ["x"], revision: "1000000")
      assert {:error, %DatastoreError{reason: :future}} = Backend.get(client, ["x", "a"], revision: "1000000")
    end

    test "what does not parse is left out; other kinds are ignored", %{client: client} do
      create!(client, ["x", "1"], 1)
      create!(client, ["x", "junk"], "?")
      create!(client, ["x", "sub", "key"], 2)

      parse = fn
        [_x, _name], value when is_integer(value) -> {:ok, value * 10}
        [_x, _name], _junk -> raise "junk"
        _other, _value -> :ignore
      end

      assert {:ok, [%{key: ["x", "1"], value: 10}], _revision} = Backend.list(client, root: ["x"], parse: parse)
    end
  end

  describe "parents" do
    test "a recursive delete takes all leaves; the last child takes its parents", %{client: client, store: store} do
      for leaf <- ["1", "2", "3"], do: create!(client, ["w", "h", leaf], leaf)
      assert Backend.delete(client, ["w", "h", "1"]) == :ok
      assert {:ok, [_, _], _revision} = Backend.list(client, ["w"])
      assert Backend.delete(client, ["w"]) == :ok
      assert {:ok, [], _revision} = Backend.list(client, ["w"])
      create!(client, ["w", "h", "1"], 1)
      assert Backend.delete(client, ["w", "h", "1"]) == :ok
      refute Tree.exists(store, client.prefix ++ ["w"])
      assert {:error, %DoesNotExist{}} = Backend.delete(client, ["w"])
    end

    test "a sibling created while its parents go is never lost: 1,000 races", %{client: client} do
      race = fn n ->
        workload = ["w", "#{n}"]
        create!(client, workload ++ ["a"], :a)
        deleting = Task.async(fn -> Backend.delete(client, workload ++ ["a"]) end)
        {:ok, sibling} = Backend.create(client, kv(workload ++ ["b"], :b))
        :ok = Task.await(deleting)
        {:ok, left, _revision} = Backend.list(client, workload)
        left == [sibling]
      end

      races = Task.async_stream(1..1_000, race, max_concurrency: 20, timeout: 60_000)
      assert Enum.count(races, &(&1 == {:ok, true})) == 1_000
    end
  end

  describe "ttl" do
    test "a key goes when its time is over, and watchers are told", %{client: client} do
      {:ok, _revision, watch} = watch(client, ["t"])
      {:ok, created} = Backend.create(client, %{kv(["t", "c"], 1) | ttl: 1})
      {:ok, _applied} = Backend.apply(client, %{kv(["t", "a"], 2) | ttl: 1})
      create!(client, ["t", "u"], 3)
      {:ok, _updated} = Backend.update(client, %{kv(["t", "u"], 4) | ttl: 1})
      assert {:ok, %{value: 1, ttl: nil}} = Backend.get(client, ["t", "c"])
      assert created.ttl == 1
      events = for _n <- 1..7, do: next(watch, 20_000)
      gone = for %Event{type: :deleted, old: old, new: nil} <- events, do: {old.key, old.value}
      assert Enum.sort(gone) == [{["t", "a"], 2}, {["t", "c"], 1}, {["t", "u"], 4}]
      assert {:ok, [], _revision} = Backend.list(client, ["t"])
    end

    test "a later write without one clears it", %{client: client} do
      {:ok, _revision, watch} = watch(client, ["t"])
      {:ok, _created} = Backend.create(client, %{kv(["t", "kept"], 1) | ttl: 1})
      {:ok, kept} = Backend.apply(client, kv(["t", "kept"], 2))
      {:ok, _created} = Backend.create(client, %{kv(["t", "later"], 1) | ttl: 2})
      assert [:added, :modified, :added, :deleted] = for(_n <- 1..4, do: next(watch, 20_000).type)
      assert {:ok, [^kept], _revision} = Backend.list(client, ["t"])
    end
  end

  describe "watch" do
    test "added, modified, deleted, behind a list", %{client: client} do
      create!(client, ["w", "before"], 0)
      {:ok, _revision, watch} = watch(client, ["w"])
      {:ok, first} = Backend.create(client, kv(["w", "k"], 1))
      {:ok, second} = Backend.update(client, %{first | value: 2})
      create!(client, ["x"], 9)
      :ok = Backend.delete(client, second)
      revision = first.revision
      assert %Event{type: :added, new: ^first, old: nil, revision: ^revision} = next(watch)
      assert %Event{type: :modified, new: ^second, old: %KVPair{key: ["w", "k"], value: 1}} = next(watch)
      assert %Event{type: :deleted, new: nil, old: %KVPair{key: ["w", "k"], value: 2}} = next(watch)
      assert Backend.cancel(watch) == :ok
      assert Backend.cancel(watch) == :ok
      refute Process.alive?(watch.pid)
    end

    test "from nothing: what there is comes as added", %{client: client} do
      one = create!(client, ["w", "1"], 1)
      {:ok, watch} = Backend.watch(client, ["w"], nil)
      assert %Event{type: :added, new: ^one} = next(watch)
      two = create!(client, ["w", "2"], 2)
      assert %Event{type: :added, new: ^two} = next(watch)
    end

    test "a recursive delete tells of each leaf, at one revision", %{client: client} do
      for n <- 1..50, do: create!(client, ["w", "#{n}"], n)
      {:ok, _revision, watch} = watch(client, ["w"])
      :ok = Backend.delete(client, ["w"])
      events = for _n <- 1..50, do: next(watch)
      assert Enum.map(events, & &1.old.value) |> Enum.sort() == Enum.to_list(1..50)
      assert [_one] = events |> Enum.map(& &1.revision) |> Enum.uniq()
    end

    test "a bad value is an error, and the good ones after it come", %{client: client} do
      {:ok, [], revision} = Backend.list(client, ["w"])
      {:ok, watch} = Backend.watch(client, %ListOptions{root: ["w"], parse: &parse_integer/1}, revision)
      create!(client, ["w", "bad"], "?")
      create!(client, ["w", "good"], 1)
      assert %Event{type: :error, error: %DatastoreError{reason: :unparsed, key: ["w", "bad"]}} = next(watch)
      assert %Event{type: :added, new: %{value: 1}} = next(watch)
    end

    test "a consumer that does not read loses nothing", %{client: client} do
      {:ok, _revision, watch} = watch(client, ["w"])
      write = &create!(client, ["w", "#{&1}"], &1)
      1..3_000 |> Task.async_stream(write, max_concurrency: 50, timeout: 60_000) |> Stream.run()
      {:message_queue_len, waiting} = Process.info(self(), :message_queue_len)
      assert waiting <= 1_001
      told = for _n <- 1..3_000, do: next(watch)
      assert told |> Enum.map(& &1.new.value) |> Enum.sort() == Enum.to_list(1..3_000)
      revisions = Enum.map(told, &String.to_integer(&1.revision))
      assert revisions == Enum.sort(revisions)
    end

    test "ends with an error when the store stops", %{client: client, store: store} do
      {:ok, _revision, watch} = watch(client, ["w"])
      :ok = Tank.Store.Cluster.stop(store)
      assert %Event{type: :error, error: %DatastoreError{reason: :unavailable}} = next(watch)
      eventually("the watch to end", fn -> not Process.alive?(watch.pid) end)
    end

    test "from a revision that is still to come, or of another history, it is refused", %{client: client} do
      {:ok, [], revision} = Backend.list(client, ["w"])
      {number, "-" <> history} = Integer.parse(revision)

      for other <- ["#{number + 1}", "#{number + 1}-#{history}", "#{number}-0123456789abcdef"] do
        assert {:error, %DatastoreError{reason: :compacted}} = Backend.watch(client, ["w"], other)
      end
    end

    test "ends with its process", %{client: client} do
      {:ok, watch} = Task.async(fn -> Backend.watch(client, [], nil) end) |> Task.await()
      eventually("the watch to end", fn -> not Process.alive?(watch.pid) end)
    end
  end

  test "100 allocators never hand out an address twice", %{client: client} do
    # Ten blocks of sixteen addresses: a block is created by the first who comes, and changed only if still current.
    allocated =
      1..100
      |> Task.async_stream(fn n -> allocate(client, n, 0) end, max_concurrency: 100, timeout: 60_000)
      |> Enum.map(fn {:ok, address} -> address end)

    assert length(Enum.uniq(allocated)) == 100
    {:ok, blocks, _revision} = Backend.list(client, ["blocks"])
    stored = for %{key: ["blocks", block], value: owners} <- blocks, {slot, owner} <- owners, do: {owner, {block, slot}}
    assert Enum.sort(stored) == Enum.sort(Enum.zip(1..100, allocated))
  end

  defp allocate(client, owner, block) do
    key = ["blocks", "#{block}"]

    result =
      case Backend.get(client, key) do
        {:ok, %KVPair{value: owners}} when map_size(owners) == 16 ->
          :full

        {:ok, %KVPair{value: owners} = kv} ->
          Backend.update(client, %{kv | value: Map.put(owners, map_size(owners), owner)})

        {:error, %DoesNotExist{}} ->
          Backend.create(client, kv(key, %{0 => owner}))
      end

    case result do
      {:ok, %KVPair{value: owners}} -> {"#{block}", map_size(owners) - 1}
      :full -> allocate(client, owner, block + 1)
      {:error, %kind{}} when kind in [UpdateConflict, AlreadyExists] -> allocate(client, owner, block)
    end
  end

  defp kv(key, value), do: %KVPair{key: key, value: value}

  defp create!(client, key, value) do
    {:ok, kv} = Backend.create(client, kv(key, value))
    kv
  end

  defp parse_integer(value), do: if(is_integer(value), do: {:ok, value}, else: :error)

  defp watch(client, options) do
    {:ok, _pairs, revision} = Backend.list(client, options)
    {:ok, watch} = Backend.watch(client, options, revision)
    {:ok, revision, watch}
  end

  defp next(%{ref: ref}, timeout \\ 5_000) do
    receive do
      {:backend_watch, ^ref, event} -> event
    after
      timeout -> flunk("no event in #{timeout} ms")
    end
  end
end
