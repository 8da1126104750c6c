defmodule Khepri.TxTest do
  use Khepri.StoreCase, async: true

  test "what a transaction returns, and how it ends", %{store: s} do
    assert :khepri.transaction(s, fn -> :khepri_tx.put([:a], 1) end) == {:ok, :ok}
    assert :khepri.transaction(s, fn n -> :khepri_tx.get([:a]) && n end, [5]) == {:ok, 5}

    aborted = fn ->
      :ok = :khepri_tx.put([:a], 2)
      {:ok, 2} = :khepri_tx.get([:a])
      :khepri_tx.abort(:reason)
    end

    assert :khepri.transaction(s, aborted) == {:error, :reason}
    raised = fn -> :khepri_tx.put([:a], 3) && raise("stop") end
    assert_raise RuntimeError, "stop", fn -> :khepri.transaction(s, raised) end
    assert catch_throw(:khepri.transaction(s, fn -> throw(:ball) end)) == :ball
    assert :khepri.get(s, [:a]) == {:ok, 1}
  end

  test "reading and writing one node relies on one thing, and makes no view", %{store: s} do
    :ok = :khepri.put(s, [:a, :b], 1)

    change = fn ->
      {:ok, n} = :khepri_tx.get([:a, :b])
      :ok = :khepri_tx.put([:a, :b], n + 1)
      Tank.Store.Tx.running()
    end

    {:ok, running} = :khepri.transaction(s, change, :rw)
    assert [{:revision, _key, :==, _revision}] = Map.values(running.compare)
    assert running.view == running.base
    assert :khepri.get(s, [:a, :b]) == {:ok, 2}
  end

  test "what is looked at again is looked up once", %{store: s} do
    for n <- 1..3, do: :ok = :khepri.put(s, [:a, "#{n}"], n)

    look = fn ->
      for _ <- 1..3, do: {:ok, _found} = :khepri_tx.get_many([:a, if_name_matches()])
      map_size(Tank.Store.Tx.running().compare)
    end

    assert {:ok, n} = :khepri.transaction(s, look, :rw)
    assert n == 2
  end

  test "a missing node relies on the one above it, and on itself", %{store: s} do
    :ok = :khepri.put(s, [:a, :b], 1)

    read = fn path ->
      fn -> {:khepri_tx.get(path), Map.values(Tank.Store.Tx.running().compare)} end
    end

    {:ok, {missing, compare}} = :khepri.transaction(s, read.([:a, :b, :c, :d, :e]), :rw)
    info = %{node_name: :c, node_path: [:a, :b, :c], node_is_target: false}
    assert missing == {:error, {:khepri, :node_not_found, info}}
    key = &Tank.Khepri.Engine.key/1
    assert {:exists, key.([:a, :b]), :==, 1} in compare and {:exists, key.([:a, :b, :c]), :==, 0} in compare
    assert length(compare) <= 4
    {:ok, {missing, _compare}} = :khepri.transaction(s, read.([:x]), :rw)
    assert {:error, {:khepri, :node_not_found, %{node_path: [:x], node_is_target: true}}} = missing
  end

  test "what conditions refuse is told, though it is found out late", %{store: s} do
    put = fn -> :khepri_tx.put([:a], 1, %{keep_while: %{[:missing] => if_node_exists()}}) end
    refused = {:error, {:khepri, :keep_while_conditions_not_met, %{}}}
    told = fn {:error, {:khepri, name, _info}} -> {:error, {:khepri, name, %{}}} end

    # At the end, and by a read.
    assert {:ok, late} = :khepri.transaction(s, put, :rw)
    assert told.(late) == refused

    read = fn ->
      answer = put.()
      {answer, :khepri_tx.exists([:a])}
    end

    assert {:ok, {late, false}} = :khepri.transaction(s, read, :rw)
    assert told.(late) == refused
    # What it did in vain has no effect, nor has what it raised.
    raising = fn -> if put.() == :ok, do: :khepri_tx.exists([:a]) && raise("in vain"), else: :khepri_tx.put([:b], 1) end
    assert :khepri.transaction(s, raising, :rw) == {:ok, :ok}
    assert :khepri.get_many(s, "**") == {:ok, %{[:b] => 1}}
  end

  test "what is refused", %{store: s} do
    outside = {:khepri_ex, :invalid_use_of_khepri_tx_outside_transaction, %{}}
    assert catch_error(:khepri_tx.get([:a])) == outside
    assert :khepri_tx.is_transaction() == false
    assert :khepri.transaction(s, fn -> :khepri_tx.is_transaction() end) == {:ok, true}
    read_only = {:khepri_ex, :denied_update_in_readonly_tx, %{}}
    assert catch_error(:khepri.transaction(s, fn -> :khepri_tx.put([:a], 1) end, :ro)) == read_only
    fun = fn _one -> :ok end
    arity = {:khepri_ex, :denied_tx_fun_with_invalid_args, %{fun: fun, arity: 1, args: []}}
    assert catch_error(:khepri.transaction(s, fun)) == arity

    assert {:khepri_ex, :denied_tx_fun_with_invalid_args, %{args: [1]}} =
             catch_error(:khepri.transaction(s, fun, [1], :sometimes))

    nested = {:khepri_ex, :denied_nested_call_in_tx, %{store_id: s}}
    assert catch_error(:khepri.transaction(s, fn -> :khepri.put(s, [:a], 1) end)) == nested
    assert catch_error(:khepri.transaction(s, fn -> :khepri.get(s, [:a]) end)) == nested
    assert :khepri_tx.is_transaction() == false
  end

  test "its writes are seen by its reads", %{store: s} do
    fun = fn ->
      {:ok, %{[:a, :b] => _}} = :khepri_tx_adv.put([:a, :b], 1)
      {:ok, 2} = :khepri_tx.count("**")
      {:ok, %{[:a, :b] => %{data: 1, payload_version: 2}}} = :khepri_tx_adv.put([:a, :b], 2)
      {:ok, gone} = :khepri_tx_adv.delete([:a])
      {Map.keys(gone), :khepri_tx.is_empty()}
    end

    assert {:ok, {keys, true}} = :khepri.transaction(s, fun)
    assert Enum.sort(keys) == [[:a], [:a, :b]]
  end

  test "no update is lost", %{store: s} do
    :ok = :khepri.put(s, [:counter], 0)

    count = fn ->
      {:ok, n} = :khepri_tx.get([:counter])
      :ok = :khepri_tx.put([:counter], n + 1)
    end

    1..8
    |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..25, do: {:ok, :ok} = :khepri.transaction(s, count) end) end)
    |> Task.await_many(60_000)

    assert :khepri.get(s, [:counter]) == {:ok, 200}
  end

  test "what was not read does not matter", %{store: s} do
    for v <- ["one", "other"], n <- 1..10, do: :ok = :khepri.put(s, [:vhosts, v, :bindings, "#{n}"], n)
    test = self()

    fun = fn ->
      {:ok, all} = :khepri_tx.get_many([:vhosts, "one", :bindings, if_name_matches()])
      send(test, :ran)
      :ok = :khepri.put(:elsewhere, [:a], 1) |> then(fn _noproc -> :ok end)

      if Process.put(:wrote, true) == nil,
        do: Task.await(Task.async(fn -> :khepri.put(s, [:vhosts, "other", :bindings, "x"], 1) end))

      :khepri_tx.put([:vhosts, "one", :count], map_size(all))
    end

    assert :khepri.transaction(s, fun) == {:ok, :ok}
    assert_received :ran
    refute_received :ran
  end

  test "thousands of writes", %{store: s} do
    assert {:ok, :ok} =
             :khepri.transaction(s, fn -> Enum.each(1..5_000, &(:ok = :khepri_tx.put([:n, "#{&1}"], &1))) end, :rw)

    assert :khepri.count(s, "/:n/*") == {:ok, 5_000}
  end

  test "stored procedures", %{store: s} do
    :ok = :khepri.put(s, [:procedures, :add], &(&1 + &2))
    :ok = :khepri.put(s, [:procedures, :write], fn -> :khepri_tx.put([:written], 1) end)
    assert :khepri.is_sproc(s, [:procedures, :add])
    assert :khepri.run_sproc(s, [:procedures, :add], [1, 2]) == 3
    assert :khepri.transaction(s, [:procedures, :add], [1, 2]) == {:ok, 3}
    assert :khepri.transaction(s, "/:procedures/:write") == {:ok, :ok}
    assert {:error, {:khepri, :no_sproc_at_given_path, %{path: [:written]}}} = :khepri.transaction(s, [:written])
    assert {:error, {:khepri, :node_not_found, _info}} = :khepri.transaction(s, [:nobody])
    assert {:khepri, :failed_to_get_sproc, _info} = catch_throw(:khepri.run_sproc(s, [:nobody], []))
    assert {:khepri_ex, :denied_execution_of_non_sproc_node, _info} = catch_throw(:khepri.run_sproc(s, [:written], []))
  end

  test "one that returns at once", %{store: s} do
    assert :khepri.transaction(s, fn -> :khepri_tx.put([:a], 1) end, :rw, %{async: 1}) == :ok
    assert_receive {:ra_event, _from, {:applied, [{1, :ok}]}}
    assert :khepri.transaction(s, fn -> :khepri_tx.abort(:no) end, :rw, %{async: 2}) == :ok
    assert_receive {:ra_event, _from, {:applied, [{2, {:error, :no}}]}}
  end
end
