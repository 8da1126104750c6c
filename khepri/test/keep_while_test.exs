defmodule Khepri.KeepWhileTest do
  use Khepri.StoreCase, async: true

  defp put(s, path, conditions), do: :khepri.put(s, path, List.last(path), %{keep_while: conditions})

  test "a condition that does not hold refuses the put", %{store: s} do
    :ok = :khepri.put(s, [:foo], 1)
    on_bar = %{[:foo, :bar] => if_has_data()}
    info = %{node_name: :baz, node_path: [:baz], keep_while_reason: {:pattern_matches_no_nodes, [:foo, :bar]}}
    assert put(s, [:baz], on_bar) == {:error, {:khepri, :keep_while_conditions_not_met, info}}
    no_children = if_child_list_length(count: 1)
    reason = %{info | keep_while_reason: no_children}
    assert put(s, [:baz], %{[:foo] => no_children}) == {:error, {:khepri, :keep_while_conditions_not_met, reason}}
    assert :khepri.exists(s, [:baz]) == false
    assert put(s, [:baz], %{[:gone] => if_node_exists(exists: false)}) == :ok
  end

  test "conditions on a new node itself, and below it, are not looked at", %{store: s} do
    assert put(s, [:foo], %{[?.] => if_child_list_length(count: 3)}) == :ok
    assert put(s, [:bar], %{[?., :child] => if_has_data()}) == :ok
  end

  test "a node goes when its condition does not hold any more, and what follows from it", %{store: s} do
    :ok = :khepri.put(s, [:foo], 1)
    :ok = put(s, [:baz], %{[:foo] => if_child_list_length(count: 0)})
    :ok = put(s, [:after_baz, :x], %{"/:baz" => if_node_exists()})
    {:ok, answer} = :khepri_adv.put(s, [:foo, :bar], 1)
    assert %{[:baz] => %{data: :baz, delete_reason: :keep_while}} = answer
    assert %{[:after_baz, :x] => %{delete_reason: :keep_while}, [:after_baz] => %{delete_reason: :keep_while}} = answer
    assert :khepri.count(s, "**") == {:ok, 2}
    refute Map.has_key?(elem(:khepri_adv.put(s, [:foo, :bar], 2, %{return_indirect_deletes: false}), 1), [:baz])
  end

  test "as RabbitMQ has it: an exchange goes with its last binding", %{store: s} do
    exchange = [:vhosts, "/", :exchanges, "x"]
    :ok = :khepri.put(s, exchange ++ [:bindings, :queue, "q", "key"], 1)
    star = if_name_matches()
    :ok = put(s, exchange, %{(exchange ++ [:bindings, star, star, star]) => if_has_data()})
    {:ok, gone} = :khepri_adv.delete(s, exchange ++ [:bindings, :queue, "q", "key"])
    assert gone[exchange].delete_reason == :keep_while
    assert gone[exchange ++ [:bindings, :queue, "q", "key"]].delete_reason == :explicit
    assert :khepri.is_empty(s)
  end

  test "a transaction sees what goes, and may be refused", %{store: s} do
    :ok = :khepri.put(s, [:foo], 1)
    :ok = put(s, [:bar], %{[:foo] => if_node_exists()})

    fun = fn ->
      :ok = :khepri_tx.delete([:foo])
      refused = :khepri_tx.put([:new], 1, %{keep_while: %{[:foo] => if_has_data()}})
      {:khepri_tx.exists([:bar]), refused}
    end

    assert {:ok, {false, {:error, {:khepri, :keep_while_conditions_not_met, _info}}}} = :khepri.transaction(s, fun)
    assert :khepri.is_empty(s)
  end

  test "a node that its own conditions let go at once is told with its last properties", %{store: s} do
    missing = %{[?.] => if_node_exists(exists: false)}
    gone = %{data: :foo, payload_version: 1, delete_reason: :keep_while}
    assert :khepri_adv.put(s, [:foo], :foo, %{keep_while: missing}) == {:ok, %{[:foo] => gone}}
    assert :khepri.exists(s, [:foo]) == false
  end

  test "2,500 nodes that depend on one go in less than a second", %{store: s} do
    :ok = :khepri.put(s, [:owner], 1)

    keep = %{keep_while: %{[:owner] => if_node_exists()}}
    for n <- 1..2_500, do: :ok = :khepri.put(s, [:of, "#{n}"], n, Map.put(keep, :async, true))
    :ok = :khepri.fence(s, 60_000)
    {microseconds, {:ok, gone}} = :timer.tc(fn -> :khepri_adv.delete(s, [:owner]) end)
    assert map_size(gone) == 2_502
    assert microseconds < 1_000_000
  end

  @tag timeout: 120_000
  test "a chain of 10,000 goes", %{store: s} do
    :ok = :khepri.put(s, [:n, "0"], 1)
    on_the_last = fn n -> %{keep_while: %{[:n, "#{n - 1}"] => if_node_exists()}, async: true} end
    for n <- 1..10_000, do: :ok = :khepri.put(s, [:n, "#{n}"], n, on_the_last.(n))
    assert {:ok, gone} = :khepri_adv.delete(s, [:n, "0"], %{timeout: 60_000})
    assert map_size(gone) == 10_002
  end

  test "a condition that members cannot evaluate alike is refused by name", %{store: s} do
    :ok = :khepri.put(s, [:foo], 1)
    guarded = if_data_matches(pattern: :"$1", conditions: [{:>, :"$1", 0}])

    assert catch_error(put(s, [:bar], %{[:foo] => guarded})) ==
             {:khepri_ex, :unsupported_keep_while_condition, %{condition: guarded}}

    assert put(s, [:bar], %{[:foo] => if_data_matches(pattern: 1)}) == :ok
    :ok = :khepri.put(s, [:foo], 2)
    assert :khepri.exists(s, [:bar]) == false
  end
end
