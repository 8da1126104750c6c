defmodule Khepri.ApiTest do
  use Khepri.StoreCase, async: true

  defp not_found(path, more \\ %{}) do
    info = %{node_name: List.last(path), node_path: path, node_is_target: true}
    {:error, {:khepri, :node_not_found, Map.merge(info, more)}}
  end

  test "put, create, update, swap", %{store: s} do
    assert :khepri.put(s, [:foo], 1) == :ok
    assert :khepri.get(s, "/:foo") == {:ok, 1}
    create = if_node_exists(exists: false)
    there = %{node_props: %{data: 1, payload_version: 1}, condition: create}
    info = Map.merge(%{node_name: :foo, node_path: [:foo], node_is_target: true}, there)
    assert :khepri.create(s, [:foo], 2) == {:error, {:khepri, :mismatching_node, info}}
    assert :khepri.create(s, [:new], 2) == :ok
    assert {:error, {:khepri, :node_not_found, %{condition: {:if_all, _}}}} = :khepri.update(s, [:bar], 2)
    assert :khepri.update(s, [:foo], 2) == :ok
    assert {:error, {:khepri, :mismatching_node, %{condition: condition}}} = :khepri.compare_and_swap(s, [:foo], 1, 3)
    assert if_data_matches(pattern: 1) = condition
    assert :khepri.compare_and_swap(s, [:foo], :_, 3) == :ok
    assert :khepri.get(s, [:foo]) == {:ok, 3}
  end

  test "versions, and what a write answers", %{store: s} do
    all = %{props_to_return: [:payload, :payload_version, :child_list_version, :child_list_length]}
    assert :khepri_adv.put(s, [:foo], 1) == {:ok, %{[:foo] => %{payload_version: 1}}}
    assert :khepri_adv.put(s, [:foo], 1) == {:ok, %{[:foo] => %{data: 1, payload_version: 1}}}
    assert :khepri_adv.put(s, [:foo], 2) == {:ok, %{[:foo] => %{data: 1, payload_version: 2}}}
    assert :khepri_adv.put(s, [:foo, :bar], 1) == {:ok, %{[:foo, :bar] => %{payload_version: 1}}}
    props = %{data: 2, payload_version: 2, child_list_version: 2, child_list_length: 1}
    assert :khepri_adv.get(s, [:foo], all) == {:ok, %{[:foo] => props}}
    assert :khepri_adv.clear_payload(s, [:foo]) == {:ok, %{[:foo] => %{data: 2, payload_version: 3}}}
    assert :khepri.get(s, [:foo]) == {:ok, :undefined}
    gone = %{[:foo, :bar] => %{data: 1, payload_version: 1, delete_reason: :explicit}}
    assert :khepri_adv.delete(s, [:foo, :bar]) == {:ok, gone}
    # It was cleared, not made on the way to another one: it stays.
    assert :khepri.exists(s, [:foo])
    assert :khepri_adv.delete(s, [:foo, :bar]) == {:ok, %{}}
  end

  test "reads of one node", %{store: s} do
    :ok = :khepri.put(s, [:foo, "bar"], 1)
    assert :khepri.get(s, [:baz]) == not_found([:baz])
    assert :khepri.get(s, [:foo]) == {:ok, :undefined}
    assert :khepri.get_or(s, [:foo], :default) == {:ok, :default}
    assert :khepri.get_or(s, [:baz], :default) == {:ok, :default}
    assert {:khepri.exists(s, [:foo]), :khepri.has_data(s, [:foo]), :khepri.is_sproc(s, [:foo])} == {true, false, false}

    assert {:khepri.exists(s, [:x]), :khepri.has_data(s, [:x]), :khepri.has_data(s, [:foo, "bar"])} ==
             {false, false, true}

    assert :khepri.is_empty(s) == false
    many = {:khepri_ex, :possibly_matching_many_nodes_denied, %{path: [if_name_matches()]}}
    assert catch_error(:khepri.get(s, "*")) == many
    assert catch_error(:khepri.put(s, "*", 1)) == many
    assert catch_error(:khepri.delete(s, "*")) == many
  end

  test "reads of many nodes", %{store: s} do
    for path <- [[:a], [:b], [:b, :c], ["d"]], do: :ok = :khepri.put(s, path, path)
    :ok = :khepri.put(s, [:e, :f], 1)
    assert :khepri.count(s, "**") == {:ok, 6}
    assert :khepri.count(s, "/*") == {:ok, 4}
    assert :khepri.count(s, [:nobody]) == {:ok, 0}
    expected = %{[:a] => [:a], [:b] => [:b], ["d"] => ["d"], [:e] => :undefined}
    assert :khepri.get_many(s, "/*") == {:ok, expected}
    assert {:ok, %{[:e] => :none}} = :khepri.get_many_or(s, "/*", :none)
    assert :khepri.get_many(s, [if_name_matches(regex: "^[ab]$")]) == {:ok, Map.take(expected, [[:a], [:b]])}
    big = if_data_matches(pattern: :"$1", conditions: [{:is_integer, :"$1"}])
    assert :khepri.get_many(s, [if_all(conditions: [if_path_matches(), big])]) == {:ok, %{[:e, :f] => 1}}
    {:ok, paths} = :khepri.fold(s, "**", fn path, _props, acc -> [path | acc] end, [])
    assert length(paths) == 6
    assert {:ok, %{[:a] => [:a]}} = :khepri.map(s, "/:a", fn path, _props -> path end)
    assert {:ok, %{[:b, :c] => [:b, :c]}} = :khepri.filter(s, "**", fn path, _props -> path == [:b, :c] end)
    assert catch_throw(:khepri.foreach(s, "**", fn _path, _props -> throw(:stop) end)) == :stop
    assert {:ok, %{[] => :undefined}} = :khepri.get_many(s, "**", %{include_root_props: true})
  end

  test "the root", %{store: s} do
    wanted = %{props_to_return: [:payload_version, :child_list_version, :child_list_length, :child_names]}
    root = %{payload_version: 1, child_list_version: 1, child_list_length: 0, child_names: []}
    assert :khepri_adv.get(s, [], wanted) == {:ok, %{[] => root}}
    :ok = :khepri.put(s, [], :top)
    :ok = :khepri.put(s, [:a, :b], 1)
    assert :khepri.get(s, "..") == {:ok, :top}
    assert {:ok, gone} = :khepri_adv.delete(s, [])
    assert Enum.sort(Map.keys(gone)) == [[], [:a], [:a, :b]]
    assert gone[[]].data == :top
    assert :khepri.is_empty(s) and :khepri.get(s, []) == {:ok, :undefined}
    assert catch_error(:khepri.create(s, [], 1)) == {:badmatch, []}
  end

  test "what this application keeps for itself is not shown, and stays", %{store: s} do
    :ok = :khepri.register_projection(s, "/*", :khepri_projection.new(:"kept_#{s}", :copy))
    assert :khepri.is_empty(s) and :khepri.count(s, "**") == {:ok, 0}
    assert {:ok, %{[] => %{child_names: []}}} = :khepri_adv.get(s, [], %{props_to_return: [:child_names]})
    assert :khepri.exists(s, [:"$khepri"]) == false
    :ok = :khepri.put(s, [:a], 1)
    :ok = :khepri.delete_many(s, "**")
    :ok = :khepri.delete(s, [])
    assert :khepri.has_projection(s, :"kept_#{s}")
  end

  test "the same tree through both APIs", %{store: s} do
    alias Tank.Store.Tree
    {:ok, _revision} = Tree.put(s, [:pods, "web"], %{image: "nginx"})
    assert :khepri.get(s, [:pods, "web"]) == {:ok, %{image: "nginx"}}
    :ok = :khepri.put(s, [:pods, "db"], 1)
    assert Tree.get(s, [:pods, "db"]) == {:ok, 1}
    assert {:ok, %{[:pods, "db"] => 1}, _revision} = Tree.get_many(s, [:pods, :*])
    :ok = :khepri.delete(s, [:pods])
    assert Tree.exists(s, [:pods]) == false
  end

  test "any term is data, and any name a component", %{store: s} do
    for {data, n} <- Enum.with_index([nil, :undefined, 1.5, {:p_data}, [], "", self(), make_ref(), :sets.new()]) do
      path = [:*, :has_data, "", n |> Integer.to_string() |> String.duplicate(300)]
      :ok = :khepri.put(s, path, data)
      assert :khepri.get(s, path) == {:ok, data}
    end

    long = for n <- 1..4, do: String.duplicate("#{n}", 255)
    :ok = :khepri.put(s, [:vhosts, :x | long], 1)
    assert :khepri.get(s, [:vhosts, :x | long]) == {:ok, 1}
  end

  test "many at once", %{store: s} do
    for name <- [:a, :b, :c], do: :ok = :khepri.put(s, [:many, name], name)
    assert :khepri.put_many(s, [:many, if_name_matches(), :status], 1) == :ok
    assert {:ok, 3} = :khepri.count(s, [:many, if_name_matches(), :status])
    assert :khepri_adv.put_many(s, [:nobody, if_name_matches()], 1) == {:ok, %{}}
    assert :khepri.clear_many_payloads(s, [:many, if_name_matches()]) == :ok

    assert :khepri.get_many(s, [:many, if_name_matches(regex: "a|b")]) ==
             {:ok, %{[:many, :a] => :undefined, [:many, :b] => :undefined}}

    assert :khepri.delete_many(s, [:many, if_name_matches(regex: "a|b")]) == :ok
    assert :khepri.count(s, [:many, if_name_matches()]) == {:ok, 1}
  end

  test "commands that return at once", %{store: s} do
    for n <- 1..20, do: :ok = :khepri.put(s, [:async, "#{n}"], n, %{async: n})
    assert :khepri.get(s, [:async, "20"], %{favor: :consistency}) == {:ok, 20}

    for n <- 1..20 do
      assert_receive {:ra_event, {^s, node}, {:applied, [{^n, _result}]}} = event when node == node()
      assert :khepri.handle_async_ret(s, event) == [{n, {:ok, %{[:async, "#{n}"] => %{}}}}]
    end

    :ok = :khepri.update(s, [:missing], 1, %{async: {99, :low}})
    assert_receive {:ra_event, _from, {:applied, [{99, {:error, {:khepri, :node_not_found, _info}}}]}}
    :ok = :khepri.put(s, [:last], 1, %{async: true})
    assert :khepri.fence(s) == :ok
    assert :khepri.get(s, [:last]) == {:ok, 1}
  end

  # What the store was asked to write.
  defp writes(s), do: Tank.Store.Counters.read(s).write.results |> Keyword.values() |> Enum.sum()

  test "commands that return at once share log entries, and each has its own answer", %{store: s} do
    :ok = :khepri.put(s, [:there], 0)
    before = writes(s)

    for n <- 1..1_000 do
      :ok = :khepri_adv.put(s, [:many, "#{n}"], n, %{async: n})
      # It is refused: those that it is with are done all the same.
      if rem(n, 100) == 0, do: :ok = :khepri_adv.create(s, [:there], n, %{async: -n})
    end

    :ok = :khepri.fence(s)
    assert writes(s) - before < 500
    assert :khepri.count(s, [:many, if_name_matches()]) == {:ok, 1_000}

    for n <- 1..1_000 do
      assert_received {:ra_event, _from, {:applied, [{^n, {:ok, props}}]}}
      assert props == %{[:many, "#{n}"] => %{payload_version: 1}}
    end

    for n <- 100..1_000//100 do
      refused = -n
      assert_received {:ra_event, _from, {:applied, [{^refused, {:error, {:khepri, :mismatching_node, _info}}}]}}
    end
  end

  test "commands that have to do with each other keep their order", %{store: s} do
    for n <- 1..100 do
      :ok = :khepri_adv.put(s, [:a], n, %{async: n})
      :ok = :khepri_adv.put(s, [:a, :b, "#{n}"], n, %{async: true})
      :ok = :khepri_adv.delete(s, [:a, :b], %{async: :low})
    end

    :ok = :khepri.fence(s)
    assert :khepri.get_many(s, "**") == {:ok, %{[:a] => 100}}

    for n <- 2..100 do
      assert_received {:ra_event, _from, {:applied, [{^n, {:ok, answer}}]}}
      assert answer == %{[:a] => %{data: n - 1, payload_version: n}}
    end
  end

  test "an option that a function does not have is refused", %{store: s} do
    for {call, option} <- [{&:khepri.get(s, [:a], &1), :async}, {&:khepri.delete(s, [:a], &1), :keep_while}] do
      assert catch_error(call.(%{option => true})) == :function_clause
    end
  end

  test "the forms that raise", %{store: s} do
    assert :khepri.put!(s, [:a], 1) == :ok
    assert :khepri.get!(s, [:a]) == 1
    assert :khepri.count!(s, "**") == 1
    assert {:khepri, :node_not_found, _info} = catch_error(:khepri.get!(s, [:b]))
  end

  @tag :without_store
  test "a store that does not run", %{store: s} do
    noproc = {:error, :noproc}
    assert :khepri.get(s, [:a]) == noproc
    assert :khepri.put(s, [:a], 1) == noproc
    assert :khepri.delete(s, "/**") == noproc or true
    assert :khepri.exists(s, [:a]) == noproc
    assert :khepri.is_empty(s) == noproc
    assert :khepri.fence(s) == noproc
    assert :khepri.transaction(s, fn -> :khepri_tx.get([:a]) end) == {:ok, noproc}
    assert :khepri_cluster.members(s) == noproc
    assert :khepri.stop(s) == :ok
    assert {:error, {:khepri, :not_a_khepri_store, %{store_id: ^s}}} = :khepri.reset(s)
  end

  test "stopped and started again, it has its data", %{store: s, dir: dir} do
    :ok = :khepri.put(s, [:a], 1)
    assert {:ok, ^s} = :khepri.start(dir, s)
    assert Process.whereis(s) |> is_pid() and s in :khepri.get_store_ids()
    :ok = :khepri.stop(s)
    assert Process.whereis(s) == nil and s not in :khepri.get_store_ids()
    {:ok, ^s} = :khepri.start(dir, %{cluster_name: s, friendly_name: "x", machine_config: %{snapshot_interval: 5}})
    assert :khepri.get(s, [:a]) == {:ok, 1}
    assert :khepri_cluster.members(s) == {:ok, [{s, node()}]}
    assert :khepri_cluster.wait_for_leader(s, 1_000) == :ok
    assert :khepri_cluster.wait_for_effective_machine_version(s, 3) == :ok
    assert :khepri.reset(s, 10_000) == :ok
    {:ok, ^s} = :khepri.start(dir, s)
    assert :khepri.is_empty(s)
  end

  @tag :without_store
  test "the directory of another Khepri is refused", %{store: s, dir: dir} do
    File.mkdir_p!(Path.join(dir, "UID1"))
    File.write!(Path.join(dir, "UID1/config"), "\#{cluster_name => #{s},machine => {module,khepri_machine,\#{}}}.\n")
    assert {:error, {:khepri, :data_of_another_khepri, %{advice: advice}}} = :khepri.start(dir, s)
    assert advice =~ "export"
  end
end
