defmodule Khepri.ProjectionTest do
  use Khepri.StoreCase, async: true

  require Tank.Khepri.Records

  defp register(s, pattern, fun, options \\ %{}) do
    name = :"table_#{System.unique_integer([:positive])}"
    :ok = :khepri.register_projection(s, pattern, :khepri_projection.new(name, fun, options))
    name
  end

  test "rows are there when a write returns", %{store: s} do
    :ok = :khepri.put(s, [:before, "a"], 0)
    table = register(s, "/*/*", fn path, data -> {path, data} end)
    assert :ets.lookup(table, [:before, "a"]) == [{[:before, "a"], 0}]

    for n <- 1..200 do
      :ok = :khepri.put(s, [:x, "a"], n)
      assert :ets.lookup(table, [:x, "a"]) == [{[:x, "a"], n}]
    end

    {:ok, :ok} = :khepri.transaction(s, fn -> :khepri_tx.delete([:x]) end)
    assert :ets.lookup(table, [:x, "a"]) == []
  end

  test "a write that changes no row is not waited for", %{store: s} do
    _table = register(s, "/*", fn path, data -> {path, data} end)

    # Each of them would wait for half a minute.
    for n <- 1..20 do
      :ok = :khepri.put(s, [:made, "#{n}"], :khepri_payload.none(), %{timeout: 5_000})
      :ok = :khepri.delete(s, [:made, "#{n}"], %{timeout: 5_000})
    end
  end

  test "copies, and a row whose key changes", %{store: s} do
    table = register(s, "/:rows/*", :copy)
    :ok = :khepri.put(s, [:rows, 'a' |> List.to_atom()], {:one, 1})
    assert :ets.tab2list(table) == [{:one, 1}]
    :ok = :khepri.put(s, [:rows, :a], {:two, 1})
    assert :ets.tab2list(table) == [{:two, 1}]
    :ok = :khepri.clear_payload(s, [:rows, :a])
    assert :ets.tab2list(table) == []
  end

  test "functions that change tables themselves, one or several", %{store: s} do
    count = fn table, _path, old, new ->
      step = if(new == %{}, do: 0, else: 1) - if(old == %{}, do: 0, else: 1)
      :ets.update_counter(table, :nodes, step, {:nodes, 0})
    end

    one = register(s, "/:c/*", count)

    split = fn tables, path, _old, new ->
      for {_name, table} <- tables, do: if(new == %{}, do: :ets.delete(table, path), else: :ets.insert(table, {path}))
    end

    [a, b] = for name <- ["a", "b"], do: :"#{s}_#{name}"

    :ok =
      :khepri.register_projection(
        s,
        "/:c/*",
        :khepri_projection.new(:"#{s}_split", split, %{tables: %{a => %{}, b => %{type: :ordered_set}}})
      )

    for n <- 1..10, do: :ok = :khepri.put(s, [:c, "#{n}"], n)
    :ok = :khepri.delete(s, [:c, "3"])
    assert :ets.lookup(one, :nodes) == [nodes: 9]
    assert {:ets.info(a, :size), :ets.info(b, :size), :ets.info(b, :type)} == {9, 9, :ordered_set}
    :ok = :khepri.unregister_projections(s, [:"#{s}_split"])
    assert :ets.info(a) == :undefined and :ets.info(b) == :undefined
  end

  test "a condition on the node above, and the deletion of all of it", %{store: s} do
    topic = if_data_matches(pattern: {:exchange, :"$1"}, conditions: [{:"=:=", :"$1", :topic}])
    pattern = [:exchanges, if_all(conditions: [if_name_matches(), topic]), :bindings, if_name_matches()]
    table = register(s, pattern, fn path, data -> {path, data} end)
    :ok = :khepri.put(s, [:exchanges, "t"], {:exchange, :topic})
    :ok = :khepri.put(s, [:exchanges, "d"], {:exchange, :direct})
    for x <- ["t", "d"], k <- 1..3, do: :ok = :khepri.put(s, [:exchanges, x, :bindings, "#{k}"], k)
    assert :ets.info(table, :size) == 3
    :ok = :khepri.delete(s, [:exchanges, "t"])
    assert :ets.info(table, :size) == 0
  end

  test "registered once", %{store: s} do
    projection = :khepri_projection.new(:"once_#{s}", :copy)
    assert :khepri.register_projection(s, "**", projection) == :ok
    exists = {:error, {:khepri, :projection_already_exists, %{name: :"once_#{s}"}}}
    assert :khepri.register_projection(s, "/*", projection) == exists
    assert :khepri.has_projection(s, :"once_#{s}") and not :khepri.has_projection(s, :other)
    assert {:ok, %{} = gone} = :khepri_adv.unregister_projections(s, :all)
    assert Map.keys(gone) == [:"once_#{s}"]
    assert :ets.info(:"once_#{s}") == :undefined

    assert catch_error(:khepri_projection.new(:x, :copy, %{heir: 1})) ==
             {:khepri_ex, :unexpected_projection_option, %{name: :heir, value: 1}}
  end

  test "they are there again after a restart, and go with the store", %{store: s, dir: dir} do
    :ok = :khepri.put(s, [:a], {:a, 1})
    table = register(s, "/*", :copy)
    :ok = :khepri.stop(s)
    assert :ets.info(table) == :undefined
    {:ok, ^s} = :khepri.start(dir, s)
    assert :ets.tab2list(table) == [{:a, 1}]
  end

  test "a function that raises costs its own row only", %{store: s} do
    table = register(s, "/*", fn path, 1 -> {path} end)
    :ok = :khepri.put(s, [:a], 2)
    :ok = :khepri.put(s, [:b], 1)
    assert :ets.tab2list(table) == [{[:b]}]
  end

  test "nodes without a payload, and child lists", %{store: s} do
    tell = fn table, path, old, new -> :ets.insert(table, {path, old, new}) end
    table = register(s, "/:w/**", tell, %{type: :bag})

    numbers = fn version, list, children ->
      %{payload_version: version, child_list_version: list, child_list_length: children}
    end

    :ok = :khepri.put(s, [:w, :way, "a"], 1)
    assert :ets.lookup(table, [:w, :way]) == [{[:w, :way], %{}, numbers.(1, 1, 1)}]
    assert :ets.lookup(table, [:w, :way, "a"]) == [{[:w, :way, "a"], %{}, Map.put(numbers.(1, 1, 0), :data, 1)}]
    :ok = :khepri.put(s, [:w, :way], :payload)
    [_first, second] = :ets.lookup(table, [:w, :way])
    assert second == {[:w, :way], numbers.(1, 1, 1), Map.put(numbers.(2, 1, 1), :data, :payload)}
    :ok = :khepri.delete(s, [:w])
    assert {[:w, :way], %{data: :payload}, %{}} = table |> :ets.lookup([:w, :way]) |> List.last()
  end

  test "a row that a child list makes, and takes away", %{store: s} do
    condition = Tank.Khepri.Records.if_child_list_length(count: {:ge, 1})
    table = register(s, [:lists, condition], fn path, data -> {path, data} end)
    :ok = :khepri.put(s, [:lists, :one], :data)
    assert :ets.tab2list(table) == []
    :ok = :khepri.put(s, [:lists, :one, :child], 1)
    assert :ets.tab2list(table) == [{[:lists, :one], :data}]
    :ok = :khepri.delete(s, [:lists, :one, :child])
    assert :ets.tab2list(table) == []
  end
end
