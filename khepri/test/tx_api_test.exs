defmodule Khepri.TxApiTest do
  # Each function within a transaction, and which calls are refused.
  use Khepri.StoreCase, async: true

  defp run(s, fun, mode \\ :auto) do
    {:ok, result} = :khepri.transaction(s, fun, mode)
    result
  end

  test "each function of khepri_tx", %{store: s} do
    fun = fn ->
      true = :khepri_tx.is_empty()
      :ok = :khepri_tx.put([:a], 1)
      :ok = :khepri_tx.create([:b], 2)
      {:error, {:khepri, :mismatching_node, _info}} = :khepri_tx.create([:b], 3)
      :ok = :khepri_tx.update([:b], 3)
      {:error, {:khepri, :node_not_found, _info}} = :khepri_tx.update([:c], 3)
      :ok = :khepri_tx.compare_and_swap([:b], 3, 4)
      {:error, {:khepri, :mismatching_node, _info}} = :khepri_tx.compare_and_swap([:b], 3, 5)
      {:ok, 4} = :khepri_tx.get([:b])
      {:error, {:khepri, :node_not_found, _info}} = :khepri_tx.get([:c])
      {:ok, 9} = :khepri_tx.get_or([:c], 9)
      {:ok, %{[:a] => 1, [:b] => 4}} = :khepri_tx.get_many("*")
      :ok = :khepri_tx.put([:p], fn -> :ok end)

      {:ok, %{[:e] => 0}} =
        with(:ok <- :khepri_tx.put([:e], :khepri_payload.none()), do: :khepri_tx.get_many_or("/:e", 0))

      [true, false, true, false, true] = [
        :khepri_tx.exists([:a]),
        :khepri_tx.exists([:z]),
        :khepri_tx.has_data([:a]),
        :khepri_tx.has_data([:p]),
        :khepri_tx.is_sproc([:p])
      ]

      {:ok, 4} = :khepri_tx.count("**")
      {:ok, 5} = :khepri_tx.fold("**", fn _path, props, sum -> Map.get(props, :data, 0) + sum end, 0)
      :ok = :khepri_tx.foreach("**", fn path, props when is_list(path) and is_map(props) -> :ok end)
      {:ok, %{[:a] => [:a]}} = :khepri_tx.map("/:a", fn path, _props -> path end)
      {:ok, %{[:b] => 4}} = :khepri_tx.filter("**", fn path, _props -> path == [:b] end)
      :ok = :khepri_tx.put_many("*", 7)
      {:ok, 7} = :khepri_tx.get([:p])
      :ok = :khepri_tx.clear_payload([:a])
      false = :khepri_tx.has_data([:a])
      :ok = :khepri_tx.clear_many_payloads("*")
      :ok = :khepri_tx.delete([:a])
      :ok = :khepri_tx.delete_many("*")
      :khepri_tx.is_empty()
    end

    assert run(s, fun)
    assert :khepri.is_empty(s)
  end

  test "each function of khepri_tx_adv answers as khepri_adv", %{store: s} do
    fun = fn ->
      {:ok, %{[:a] => %{payload_version: 1}}} = :khepri_tx_adv.put([:a], 1)
      {:ok, %{[:b] => %{payload_version: 1}}} = :khepri_tx_adv.create([:b], 1)
      {:ok, %{[:b] => %{data: 1, payload_version: 2}}} = :khepri_tx_adv.update([:b], 2)
      {:ok, %{[:b] => %{data: 2, payload_version: 3}}} = :khepri_tx_adv.compare_and_swap([:b], 2, 3)
      {:ok, %{[:b] => %{data: 3, payload_version: 3}}} = :khepri_tx_adv.get([:b])
      {:ok, %{[:a] => %{data: 1}, [:b] => %{data: 3}}} = :khepri_tx_adv.get_many("*")
      {:ok, %{[:a] => %{data: 1, payload_version: 2}, [:b] => %{data: 3}}} = :khepri_tx_adv.put_many("*", 4)
      {:ok, %{[:a] => %{data: 4, payload_version: 3}}} = :khepri_tx_adv.clear_payload([:a])
      {:ok, %{[:a] => _, [:b] => %{data: 4}}} = :khepri_tx_adv.clear_many_payloads("*")
      {:ok, %{[:a] => %{delete_reason: :explicit}}} = :khepri_tx_adv.delete([:a])
      {:ok, %{[:b] => %{payload_version: 5}}} = :khepri_tx_adv.delete_many("*")
      {:ok, %{}} = :khepri_tx_adv.delete([:a], %{props_to_return: [:payload]})
    end

    assert run(s, fun) == {:ok, %{}}
  end

  test "behaviours that applications ask for", %{store: _s} do
    for name <-
          [:dedup_protection, :delete_reason_in_node_props, :indirect_deletes_in_ret] ++
            [:uniform_write_ret, :multi_table_projections],
        do: assert(:khepri_tx.does_api_comply_with(name))

    refute :khepri_tx.does_api_comply_with(:unknown)
    assert :khepri_tx_adv.should_process_function(:lists, :map, 2, :me) == false
  end

  test "every form of the arguments", %{store: s} do
    zero = fn -> :ok end
    one = fn n -> n end

    for mode <- [:ro, :rw, :auto], opts <- [%{}, %{timeout: 5_000}] do
      assert :khepri.transaction(s, zero, mode) == {:ok, :ok}
      assert :khepri.transaction(s, zero, mode, opts) == {:ok, :ok}
      assert :khepri.transaction(s, zero, opts) == {:ok, :ok}
      assert :khepri.transaction(s, one, [1], mode) == {:ok, 1}
      assert :khepri.transaction(s, one, [1], opts) == {:ok, 1}
      assert :khepri.transaction(s, one, [1], mode, opts) == {:ok, 1}
    end

    # Of the default store, which does not run.
    noproc = {:ok, {:error, :noproc}}
    assert :khepri.transaction(zero) == noproc and :khepri.transaction(one, [1]) == noproc
    assert :khepri.transaction(zero, :ro) == noproc and :khepri.transaction(zero, %{}) == noproc
    assert :khepri.transaction(one, [1], :rw) == noproc and :khepri.transaction(one, [1], %{}) == noproc
    assert :khepri.transaction(zero, :rw, %{}) == noproc and :khepri.transaction(one, [1], :rw, %{}) == noproc
    assert catch_error(:khepri.transaction(s, 1, [], :ro, %{})) == :function_clause
  end

  test "all functions raise outside of a transaction", %{store: _s} do
    outside = {:khepri_ex, :invalid_use_of_khepri_tx_outside_transaction, %{}}

    for call <- [
          fn -> :khepri_tx.get([:a]) end,
          fn -> :khepri_tx.put([:a], 1) end,
          fn -> :khepri_tx.delete([:a]) end,
          fn -> :khepri_tx.count("*") end,
          fn -> :khepri_tx.abort(:reason) end,
          fn -> :khepri_tx_adv.get([:a]) end,
          fn -> :khepri_tx_adv.put_many([:a], 1) end
        ],
        do: assert(catch_error(call.()) == outside)
  end

  test "a read-only transaction writes nothing", %{store: s} do
    denied = {:khepri_ex, :denied_update_in_readonly_tx, %{}}
    :ok = :khepri.put(s, [:writer], fn -> :khepri_tx.put([:a], 1) end)

    for call <- [
          fn -> :khepri_tx.put([:a], 1) end,
          fn -> :khepri_tx.create([:a], 1) end,
          fn -> :khepri_tx.delete([:a]) end,
          fn -> :khepri_tx.clear_payload([:writer]) end,
          fn -> :khepri_tx_adv.delete_many("*") end
        ],
        do: assert(catch_error(:khepri.transaction(s, call, :ro)) == denied)

    assert catch_error(:khepri.transaction(s, [:writer], :ro)) == denied

    assert :khepri.transaction(s, [:writer], [1]) ==
             {:error, {:khepri, :sproc_invalid_as_tx_fun, %{path: [:writer]}}}

    assert :khepri.transaction(s, [:writer]) == {:ok, :ok}
  end

  test "invalid paths raise as they do outside", %{store: s} do
    invalid = {:khepri_ex, :invalid_path, %{path: 7}}
    assert catch_error(:khepri.get(s, 7)) == invalid
    assert catch_error(:khepri.transaction(s, fn -> :khepri_tx.get(7) end)) == invalid
    component = {:khepri_ex, :invalid_path, %{path: [:a, 7], component: 7}}
    assert catch_error(:khepri.put(s, [:a, 7], 1)) == component
    assert catch_error(:khepri.transaction(s, fn -> :khepri_tx.put([:a, 7], 1) end)) == component
  end

  test "an exception keeps its class, its reason and where it was raised", %{store: s} do
    raised =
      try do
        :khepri.transaction(s, fn -> :erlang.raise(:exit, :reason, [{:somewhere, :else, 0, []}]) end)
      catch
        class, reason -> {class, reason, __STACKTRACE__}
      end

    assert {:exit, :reason, [{:somewhere, :else, 0, []} | _]} = raised
  end

  test "one that returns at once", %{store: s} do
    :ok = :khepri.transaction(s, fn -> :khepri_tx.put([:a], 1) && raise("late") end, :rw, %{async: {7, :low}})
    assert_receive {:ra_event, _from, {:applied, [{7, _exception}]}} = event, 5_000
    assert_raise RuntimeError, "late", fn -> :khepri.handle_async_ret(s, event) end
    assert :khepri.exists(s, [:a]) == false
  end

  test "what is async in other ways", %{store: s} do
    for async <- [true, :normal, :low], do: :ok = :khepri.put(s, [:a], async, %{async: async})
    ref = make_ref()
    :ok = :khepri.put(s, [:a], 1, %{async: {ref, :normal}})
    :ok = :khepri_adv.delete(s, [:a], %{async: 5})
    assert :khepri.exists(s, [:a], %{favor: :consistency}) == false
    assert_receive {:ra_event, from, {:applied, [{^ref, {:ok, %{[:a] => %{}}}}]}}, 5_000
    assert from == {s, node()}
    assert_receive {:ra_event, _from, {:applied, [{5, {:ok, %{[:a] => %{data: 1}}}}]}}, 5_000
    refute_received {:ra_event, _from, _event}
    rejected = {:ra_event, {s, node()}, {:rejected, {:not_leader, {s, :other}, 9}}}
    assert :khepri.handle_async_ret(s, rejected) == [{9, {:error, {:not_leader, {s, :other}}}}]

    for nonsense <- [:often, "x", {1, :high}],
        do: assert(catch_error(:khepri.put(s, [:a], 1, %{async: nonsense})) == :function_clause)
  end
end
