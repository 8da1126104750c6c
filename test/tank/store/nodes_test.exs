defmodule Tank.Store.NodesTest do
  # Nodes without a value, conditions that keep nodes, and what a write replaced: Khepri's cases 72 to 89 in our words.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Entry, Error, NodeChange, Tree, Watch}

  setup_all do
    %{store: start_store(module_dir(__MODULE__))}
  end

  setup %{store: s} do
    {:ok, _revision} = Tree.delete(s, [])
    :ok
  end

  defp node!(s, path), do: Tree.get_entry!(s, path, nodes: :all)
  defp numbers(entry), do: {entry.payload_version, entry.child_list_version, entry.child_count}
  defp gone({:ok, _revision, changes}), do: for(%{type: type, path: path} <- changes, do: {type, path})
  defp revision(s), do: s |> Tree.get_many!([]) |> elem(1)

  describe "nodes without a value" do
    test "stay until they are deleted, and are found where all nodes are asked for", %{store: s} do
      Tree.put_node!(s, [:empty])
      Tree.put!(s, [:a, :b], 1)
      assert Tree.exists(s, [:empty]) and not Tree.has_data(s, [:empty])
      assert Tree.get(s, [:empty]) == {:error, :not_found}
      assert Tree.count!(s, [:*]) == 2
      assert Tree.get_many!(s, [:*]) |> elem(0) == %{}
      assert Tree.get_many!(s, [:**], nodes: :all) |> elem(0) == %{[:empty] => nil, [:a] => nil, [:a, :b] => 1}
      {:ok, nodes, _revision} = Tree.list(s, [], nodes: :all, depth: :infinity)
      assert Enum.map(nodes, &{&1.path, &1.version}) == [{[:a], 0}, {[:a, :b], 1}, {[:empty], 0}]
      {:ok, nodes, _revision} = Tree.list(s, [], nodes: :all, reverse: true, limit: 1)
      assert [%Entry{path: [:empty], value: nil, revision: 0}] = nodes
      assert s |> Tree.stream([:*], nodes: :all, page: 1) |> Enum.map(& &1.path) == [[:a], [:empty]]
      Tree.put!(s, [:empty, :x], 1)
      Tree.delete!(s, [:empty, :x])
      assert Tree.exists(s, [:empty])
      Tree.delete!(s, [:empty])
      refute Tree.exists(s, [:empty])
    end

    test "made on the way go with their last child, also if they had a value meanwhile", %{store: s} do
      Tree.put!(s, [:way, :x], 1)
      Tree.put!(s, [:way], 1)
      Tree.clear!(s, [:way], keep_nodes: true)
      assert numbers(node!(s, [:way])) == {3, 1, 1}
      Tree.delete!(s, [:way, :x])
      refute Tree.exists(s, [:way])
    end

    test "that were written stay when they are cleared and should", %{store: s} do
      Tree.put!(s, [:kept], 1)
      Tree.clear!(s, [:kept], keep_nodes: true)
      assert %Entry{value: nil, version: 0, payload_version: 2} = node!(s, [:kept])
      Tree.put!(s, [:kept], 2)
      assert %Entry{value: 2, version: 1, payload_version: 3} = node!(s, [:kept])
      Tree.clear!(s, [:kept])
      refute Tree.exists(s, [:kept])
    end

    test "the version of a value and that of a child list count changes", %{store: s} do
      root = node!(s, [])
      Tree.put!(s, [:v], 1)
      assert numbers(node!(s, [:v])) == {1, 1, 0}
      for child <- ["1", "2"], do: Tree.put!(s, [:v, child], 1)
      assert numbers(node!(s, [:v])) == {1, 3, 2}
      Tree.delete_many!(s, [:v, :*])
      assert numbers(node!(s, [:v])) == {1, 4, 0}
      assert numbers(node!(s, [])) == {root.payload_version, root.child_list_version + 1, 1}
      Tree.delete!(s, [:v])
      Tree.put!(s, [:v, :again], 1)
      assert numbers(node!(s, [:v])) == {1, 1, 1}
    end

    test "an equal value makes no version if it should not", %{store: s} do
      {:ok, revision} = Tree.put(s, [:same], 1, unless_same: true)
      assert Tree.put(s, [:same], 1, unless_same: true) == {:ok, revision}
      assert Tree.put(s, [:same], 1) == {:ok, revision + 1}
      assert %Entry{version: 2, payload_version: 2} = node!(s, [:same])
    end
  end

  describe "return_previous" do
    test "a put tells what it replaced", %{store: s} do
      assert {:ok, _revision, [%NodeChange{type: :created, path: [:p], previous: nil, payload_version: 1}]} =
               Tree.put(s, [:p], %{old: true}, return_previous: true)

      assert {:ok, _revision, [change]} = Tree.put(s, [:p], 2, return_previous: true)
      assert %NodeChange{type: :updated, previous: %Entry{value: %{old: true}, version: 1}, payload_version: 2} = change
      assert {_revision, [%NodeChange{previous: %Entry{value: 2}}]} = Tree.put!(s, [:p], 3, return_previous: true)
    end

    test "a delete tells all that is gone, with a value or without", %{store: s} do
      Tree.put!(s, [:d, :way, :x], 1)
      assert {:ok, _revision, changes} = Tree.delete(s, [:d, :way], return_previous: true)

      assert Enum.map(changes, &{&1.type, &1.path}) == [
               {:not_kept, [:d]},
               {:deleted, [:d, :way]},
               {:deleted, [:d, :way, :x]}
             ]

      assert Enum.map(changes, & &1.previous.value) == [nil, nil, 1]
      assert Enum.map(changes, & &1.previous.child_count) == [0, 1, 0]
      assert {:ok, _revision, []} = Tree.delete(s, [:d], return_previous: true)
    end

    test "so do writes on many, and operations of a transaction", %{store: s} do
      for n <- ["1", "2"], do: Tree.put!(s, [:m, n], n)
      assert {:ok, _revision, [one, two]} = Tree.put_many(s, [:m, :*], 0, return_previous: true)
      assert {one.previous.value, two.previous.value} == {"1", "2"}
      assert {:ok, _revision, [_one, _two]} = Tree.clear(s, [:m, :*], keep_nodes: true, return_previous: true)

      assert [deleted: [:m, "1"], deleted: [:m, "2"], not_kept: [:m]] =
               s |> Tree.delete_many([:m, :*], return_previous: true) |> gone() |> Enum.sort()

      ops = [{:put, [:t], 1, return_previous: true}, {:put_node, [:t, :n]}, {:delete, [:t], return_previous: true}]

      assert {:ok, %{responses: [changed: [%NodeChange{type: :created}], put: 0, changed: [t, n]]}} =
               Tree.txn(s, [], ops, [])

      assert {t.previous.child_count, n.path} == {1, [:t, :n]}
    end
  end

  describe "keep_while" do
    test "is refused where it does not hold, and nothing changes", %{store: s} do
      revision = revision(s)
      assert Tree.put(s, [:k], 1, keep_while: %{[:no] => :*}) == {:error, {:keep_while, [:no], :no_match}}
      Tree.put!(s, [:yes], 1)

      assert Tree.put(s, [:k], 1, keep_while: [{[:yes], :has_data}, {[:yes], {:data, 2}}]) ==
               {:error, {:keep_while, [:yes], :unmet}}

      assert_raise Error, ~r/does not hold/, fn -> Tree.put!(s, [:k], 1, keep_while: %{[:yes] => {:not, :*}}) end
      assert {revision(s), Tree.exists(s, [:k])} == {revision + 1, false}
      assert {:error, {:invalid_pattern, _why}} = Tree.put(s, [:k], 1, keep_while: %{[:yes] => {:data}})
      assert_raise ArgumentError, fn -> Tree.put(s, [:k], 1, keep_while: :yes) end
    end

    test "a new node may have conditions on itself and on what is below", %{store: s} do
      Tree.put!(s, [:self], 1, keep_while: %{[:self, :child] => :*})
      assert Tree.exists(s, [:self])
      Tree.put!(s, [:self, :child], 1)

      assert [deleted: [:self, :child], not_kept: [:self]] =
               s |> Tree.delete([:self, :child], return_previous: true) |> gone() |> Enum.sort()
    end

    test "a node goes in the command that makes its condition false, with what is below and what it kept", %{store: s} do
      Tree.put!(s, [:foo], 1)
      Tree.put!(s, [:baz], 1, keep_while: %{[:foo] => {:child_count, :==, 0}})
      Tree.put!(s, [:baz, :below], 1)
      Tree.put!(s, [:next], 1, keep_while: %{[:baz] => :*})
      {:ok, watch} = Watch.start(s, [], from: :now)
      result = Tree.put(s, [:foo, :bar], 1, return_previous: true)
      {:ok, revision, _changes} = result
      assert gone(result) == [not_kept: [:baz], not_kept: [:baz, :below], created: [:foo, :bar], not_kept: [:next]]
      assert_receive {:store_watch, _ref, {:changes, ^revision, changes}}, 5_000

      assert Enum.map(changes, &{&1.type, &1.path}) == [
               deleted: [:baz],
               deleted: [:baz, :below],
               created: [:foo, :bar],
               deleted: [:next]
             ]

      Watch.cancel(watch)
    end

    test "a write without conditions leaves them, other ones take their place, and none removes them", %{store: s} do
      Tree.put!(s, [:by], 1)
      conditions = %{[:by] => {:any, [:has_data, {:name_matches, "^x"}]}, [:by, :*] => {:not, :*}}
      Tree.put!(s, [:k], 1, keep_while: conditions)
      Tree.put!(s, [:k], 2)
      assert Tree.keep_while!(s, [:k]) == conditions
      Tree.put!(s, [:k], 2, unless_same: true, keep_while: %{[:by] => :*})
      assert Tree.keep_while!(s, [:k]) == %{[:by] => :*}
      Tree.put!(s, [:k], 2, keep_while: %{})
      assert Tree.keep_while!(s, [:k]) == %{}
      Tree.delete!(s, [:by])
      assert Tree.exists(s, [:k])
    end

    test "holds within transactions, whose view shows what goes", %{store: s} do
      Tree.put!(s, [:by], 1)

      assert {:ok, {false, [not_kept: [:k], deleted: [:by]]}} =
               Tree.transaction(s, fn tx ->
                 Tree.put!(tx, [:k], 1, keep_while: %{[:by] => :*})
                 true = Tree.exists(tx, [:k])
                 gone = gone(Tree.delete(tx, [:by], return_previous: true))
                 {Tree.exists(tx, [:k]), Enum.sort(gone, :desc)}
               end)

      assert {Tree.exists(s, [:k]), Tree.exists(s, [:by])} == {false, false}

      assert Tree.transaction(s, fn tx -> Tree.put(tx, [:k], 1, keep_while: %{[:by] => :*}) end) ==
               {:ok, {:error, {:keep_while, [:by], :no_match}}}
    end

    test "a transaction runs again when what its conditions name has changed", %{store: s} do
      Tree.put!(s, [:by], 1)
      runs = :counters.new(1, [])

      result =
        Tree.transaction(s, fn tx ->
          :counters.add(runs, 1, 1)
          kept = Tree.put(tx, [:k], 1, keep_while: %{[:by] => {:data, 1}})
          if :counters.get(runs, 1) == 1, do: Task.await(Task.async(fn -> Tree.put!(s, [:by], 2) end))
          if kept == {:error, {:keep_while, [:by], :unmet}}, do: :too_late, else: elem(kept, 0)
        end)

      assert {result, :counters.get(runs, 1)} == {{:ok, :too_late}, 2}
    end

    @tag :tmp_dir
    test "conditions and nodes without a value are in a backup", %{store: s, tmp_dir: dir} do
      Tree.put!(s, [:by], 1)
      Tree.put!(s, [:k], 1, keep_while: %{[:by] => :*})
      Tree.put_node!(s, [:empty])
      {file, restored, id} = {Path.join(dir, "backup"), Path.join(dir, "restored"), unique_id()}
      {:ok, _about} = Backup.create(s, file)
      {:ok, _about} = Backup.restore(file, restored, store_id: id)
      other = start_store(restored, store_id: id)
      assert Tree.exists(other, [:empty])
      assert Tree.keep_while!(other, [:k]) == %{[:by] => :*}
      Tree.delete!(other, [:by])
      refute Tree.exists(other, [:k])
    end
  end

  @tag :tmp_dir
  test "conditions and nodes without a value are in an export", %{store: s, tmp_dir: dir} do
    Tree.put!(s, [:by], 1)
    Tree.put!(s, [:k, "below"], {:a, self()}, keep_while: %{[:by] => :has_data, [:k, "below"] => :has_data})
    Tree.put_node!(s, [:empty, "node"], keep_while: %{[:by] => :*})
    file = Path.join(dir, "export")
    {:ok, %{entries: 2}} = Backup.export(s, file)
    other = start_store(Path.join(dir, "other"))
    assert {:ok, %{entries: 2}} = Backup.import(other, file)
    assert Tree.get_many!(other, [:**], nodes: :all) |> elem(0) == Tree.get_many!(s, [:**], nodes: :all) |> elem(0)
    assert Tree.keep_while!(other, [:k, "below"]) == Tree.keep_while!(s, [:k, "below"])
    Tree.delete!(other, [:by])
    assert Tree.get_many!(other, [:**], nodes: :all) |> elem(0) == %{}
  end

  @tag :tmp_dir
  test "limits of paths and operations are options of a store", %{store: s, tmp_dir: dir} do
    long = String.duplicate("x", 300)
    ops = for n <- 1..1_025, do: {:put, ["#{n}"], n}
    assert Tree.put(s, [long], 1) == {:error, {:too_large, :path_component, 255}}
    assert Tree.put(s, List.duplicate(String.duplicate("x", 250), 5), 1) == {:error, {:too_large, :path, 1024}}
    assert Tree.txn(s, [], ops, []) == {:error, {:too_large, :transaction, 1024}}
    options = [path_component_bytes_max: 300, path_bytes_max: 65_535, txn_operations_max: 2_000]
    wide = start_store(Path.join(dir, "wide"), options)
    deep = List.duplicate(long, 200)
    assert {:ok, _revision} = Tree.put(wide, deep, 1)
    assert Tree.put(wide, [long <> "x"], 1) == {:error, {:too_large, :path_component, 300}}
    assert {:ok, %{succeeded: true}} = Tree.txn(wide, [], ops, [])
    assert {Tree.get!(wide, deep), Tree.count!(wide, [:*])} == {1, 1_026}
  end

  test "a scan conflicts with what it matches, and with nothing else", %{store: s} do
    for vhost <- ["v1", "v2"], do: Tree.put!(s, [:vhosts, vhost, :exchanges, "x", :bindings, "q"], 1)
    runs = :counters.new(1, [])

    scan = fn interfere ->
      :counters.put(runs, 1, 0)

      {:ok, count} =
        Tree.transaction(s, fn tx ->
          :counters.add(runs, 1, 1)
          {:ok, bindings, _revision} = Tree.get_many(tx, [:vhosts, "v1", :exchanges, :*, :bindings, :*])
          if :counters.get(runs, 1) == 1, do: Task.await(Task.async(interfere))
          Tree.put!(tx, [:seen], map_size(bindings))
          map_size(bindings)
        end)

      {count, :counters.get(runs, 1)}
    end

    assert scan.(fn -> Tree.put!(s, [:vhosts, "v2", :exchanges, "x", :bindings, "other"], 1) end) == {1, 1}
    assert scan.(fn -> Tree.put!(s, [:vhosts, "v1", :queues, "q"], 1) end) == {1, 1}
    assert scan.(fn -> Tree.put!(s, [:vhosts, "v1", :exchanges, "x", :bindings, "other"], 1) end) == {2, 2}
    assert scan.(fn -> Tree.delete!(s, [:vhosts, "v1", :exchanges, "x", :bindings, "other"]) end) == {1, 2}
  end
end
