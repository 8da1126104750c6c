defmodule Tank.Store.TransactionTest do
  # `Tank.Store.Tree.transaction/3`: what it reads holds when it is committed, or it runs again.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Entry, Error, Tree, Tx}

  setup_all do
    %{store: start_store(module_dir(__MODULE__))}
  end

  setup %{store: s} do
    {:ok, _revision} = Tree.delete(s, [])
    :ok
  end

  defp log_entries(s) do
    {:ok, status} = Cluster.status(s)
    status.log_entries
  end

  # Calls `interfere` in the first run of a transaction, after `read`, and gives how often it ran, and its result.
  defp interfered(s, read, interfere, opts \\ []) do
    runs = :counters.new(1, [])

    result =
      Tree.transaction(
        s,
        fn tx ->
          :counters.add(runs, 1, 1)
          seen = read.(tx)
          if :counters.get(runs, 1) == 1, do: Task.await(Task.async(interfere))
          Tree.put!(tx, [:result], seen)
          seen
        end,
        opts
      )

    {:counters.get(runs, 1), result}
  end

  test "100 transactions at a time on 10 counters end at the exact sum", %{store: s} do
    for n <- 0..9, do: Tree.put!(s, [:counters, "#{n}"], 0)

    1..100
    |> Task.async_stream(
      fn i ->
        for j <- 0..4, path = [:counters, "#{rem(i + j, 10)}"] do
          add = fn tx -> Tree.put!(tx, path, Tree.get!(tx, path) + 1) end
          {:ok, _revision} = Tree.transaction(s, add, retries: 10_000, timeout: 120_000)
        end
      end,
      max_concurrency: 100,
      timeout: 120_000
    )
    |> Stream.run()

    {counters, _revision} = Tree.get_many!(s, [:counters, :*])
    assert Enum.sort(Map.values(counters)) == List.duplicate(50, 10)
  end

  test "own writes are seen by own reads, by nobody else, and are committed at one revision", %{store: s} do
    for path <- [[:a, :x], [:a, :y], [:b]], do: Tree.put!(s, path, List.last(path))
    before = s |> Tree.list!([]) |> elem(1)

    {:ok, :done} =
      Tree.transaction(s, fn tx ->
        assert Tree.put(tx, [:c, "1"], 1) == {:ok, before}
        assert Tree.get(tx, [:c, "1"]) == {:ok, 1}
        assert Tree.get(s, [:c, "1"]) == {:error, :not_found}
        assert {:error, {:exists, %Entry{value: 1}}} = Tree.create(tx, [:c, "1"], 2)
        assert {:ok, _revision} = Tree.compare_and_swap(tx, [:c, "1"], 1, 3)
        assert {:error, {:conflict, %Entry{value: 3}}} = Tree.compare_and_swap(tx, [:c, "1"], 1, 4)
        assert Tree.update(tx, [:d], 1) == {:error, :not_found}
        assert Tree.exists(tx, [:c]) and not Tree.has_data(tx, [:c])
        assert {:ok, 1} = Tree.count(tx, [:c, :*])
        assert {:ok, _revision} = Tree.delete(tx, [:a, :x])
        assert {:ok, [%Entry{path: [:a, :y]}], ^before} = Tree.list(tx, [:a])
        assert {:ok, _revision} = Tree.put_many(tx, [:a, :*], :z)
        assert {:ok, %{[:a, :y] => :z}, ^before} = Tree.get_many(tx, [:a, :*])
        assert {:ok, _revision} = Tree.clear(tx, [:b])
        assert {:ok, _revision} = Tree.delete_many(tx, [:nobody, :**])
        assert [%Entry{value: 3}] = Enum.to_list(Tree.stream(tx, [:c, :*]))
        assert %Entry{version: 2, child_count: 0} = Tree.get_entry!(tx, [:c, "1"])
        :done
      end)

    assert {%{[:a, :y] => :z, [:c, "1"] => 3}, revision} = Tree.get_many!(s, [:**])
    assert revision == before + 1
    assert Tree.get_entry!(s, [:a, :y]).revision == revision
  end

  test "a transaction that only reads, or is rolled back, or raises, logs nothing", %{store: s} do
    Tree.put!(s, [:a], 1)
    logged = log_entries(s)
    assert Tree.transaction(s, &Tree.get!(&1, [:a])) == {:ok, 1}

    roll_back = fn tx ->
      Tree.put!(tx, [:a], 2)
      Tree.rollback({:because, 7})
    end

    assert Tree.transaction(s, roll_back) == {:error, {:because, 7}}

    assert_raise RuntimeError, "boom", fn ->
      Tree.transaction(s, fn tx ->
        Tree.put!(tx, [:a], 2)
        raise "boom"
      end)
    end

    assert catch_throw(Tree.transaction(s, fn _tx -> throw(:ball) end)) == :ball
    assert catch_exit(Tree.transaction(s, fn _tx -> exit(:over) end)) == :over
    assert {Tree.get!(s, [:a]), log_entries(s)} == {1, logged}
    # Nothing is left of them.
    assert Tree.transaction(s, fn tx -> Tree.put!(tx, [:a], 3) end) |> elem(0) == :ok
  end

  test "what it reads is of one revision, whatever is written meanwhile", %{store: s} do
    Tree.put!(s, [:a], 1)
    Tree.put!(s, [:b], 1)

    assert {:ok, {1, 1}} =
             Tree.transaction(s, fn tx ->
               a = Tree.get!(tx, [:a])
               Task.await(Task.async(fn -> Tree.txn!(s, [], [{:put, [:a], 2}, {:put, [:b], 2}], []) end))
               {a, Tree.get!(tx, [:b])}
             end)
  end

  test "each kind of read is compared when it is committed", %{store: s} do
    reads = [
      {&Tree.get(&1, [:p, :a]), [:p, :a]},
      {&Tree.get(&1, [:p, :none]), [:p, :none]},
      {&Tree.get_entry!(&1, [:p, :a]), [:p, :a, :child]},
      {&Tree.exists(&1, [:q]), [:q, :child]},
      {&Tree.has_data(&1, [:q]), [:q]},
      {&Tree.list!(&1, [:p]), [:p, :new]},
      {&Tree.list!(&1, [:p]), [:p, :a]},
      {&Tree.count!(&1, [:p, :*]), [:p, :new]},
      {&Tree.get_many!(&1, [:p, {:data, 5}]), [:p, :new]},
      {&Enum.to_list(Tree.stream(&1, [:p, :**])), [:p, :a, :deep]},
      {&Tree.put_many!(&1, [:p, :*], 0), [:p, :new]},
      {&Tree.create(&1, [:q], 1), [:q]}
    ]

    for {{read, changed}, at} <- Enum.with_index(reads) do
      Tree.delete!(s, [])
      for name <- [:a, :b], do: Tree.put!(s, [:p, name], 1)
      assert {2, {:ok, _seen}} = interfered(s, read, fn -> Tree.put!(s, changed, 5) end), "read #{at}"
    end

    Tree.delete!(s, [])
    for name <- [:a, :b], do: Tree.put!(s, [:p, name], 1)
    # One that goes while another one comes is no less a change.
    swap = fn -> Tree.txn!(s, [], [{:delete, [:p, :a]}, {:put, [:p, :c], 1}], []) end
    assert {2, {:ok, {entries, _revision}}} = interfered(s, &Tree.list!(&1, [:p]), swap)
    assert Enum.map(entries, & &1.path) == [[:p, :b], [:p, :c]]
  end

  test "what it did not read is none of its business", %{store: s} do
    Tree.put!(s, [:p, :a], 1)
    assert {1, {:ok, 1}} = interfered(s, &Tree.get!(&1, [:p, :a]), fn -> Tree.put!(s, [:p, :b], 1) end)
    assert {1, {:ok, _list}} = interfered(s, &Tree.list!(&1, [:p]), fn -> Tree.put!(s, [:q], 1) end)
    assert {1, {:ok, _revision}} = interfered(s, &Tree.put!(&1, [:q], 1), fn -> Tree.put!(s, [:q], 2) end)
  end

  test "write skew is refused: of two that rely on each other, one runs again", %{store: s} do
    for name <- [:ann, :bob], do: Tree.put!(s, [:on_call, name], true)

    leave = fn tx, name ->
      {on_call, _revision} = Tree.get_many!(tx, [:on_call, {:data, true}])
      if map_size(on_call) < 2, do: Tree.rollback(:nobody_left)
      Tree.put!(tx, [:on_call, name], false)
    end

    runs = :counters.new(1, [])

    result =
      Tree.transaction(s, fn tx ->
        :counters.add(runs, 1, 1)
        leave.(tx, :ann)

        if :counters.get(runs, 1) == 1 do
          {:ok, _revision} = Task.await(Task.async(fn -> Tree.transaction(s, &leave.(&1, :bob)) end))
        end
      end)

    assert result == {:error, :nobody_left}
    assert {Tree.get!(s, [:on_call, :ann]), Tree.get!(s, [:on_call, :bob])} == {true, false}
  end

  test "the function may do anything: send, read clocks, call processes, be made at run time", %{store: s} do
    Tree.put!(s, [:a], 1)
    {:ok, agent} = Agent.start_link(fn -> 41 end)
    {added, _binding} = Code.eval_string("fn a, b -> a + b end")

    result =
      Tree.transaction(s, fn tx ->
        send(self(), {:at, System.os_time(:millisecond), node(), make_ref()})
        Process.sleep(1)
        File.write!(Path.join(System.tmp_dir!(), "transaction_test_#{System.pid()}"), inspect(tx))
        Tree.put!(tx, [:a], added.(Agent.get(agent, & &1), Tree.get!(tx, [:a])))
        :ets.info(:no_table)
      end)

    assert result == {:ok, :undefined}
    assert Tree.get!(s, [:a]) == 42
    assert_received {:at, _time, _node, _ref}
    File.rm!(Path.join(System.tmp_dir!(), "transaction_test_#{System.pid()}"))
  end

  test "retries are bounded", %{store: s} do
    Tree.put!(s, [:a], 0)
    runs = :counters.new(1, [])

    always = fn tx ->
      :counters.add(runs, 1, 1)
      a = Tree.get!(tx, [:a])
      Task.await(Task.async(fn -> Tree.put!(s, [:a], a + 1) end))
      Tree.put!(tx, [:b], a)
    end

    assert Tree.transaction(s, always, retries: 3) == {:error, :too_many_conflicts}
    assert :counters.get(runs, 1) == 4
    assert %Error{reason: :too_many_conflicts} = catch_error(Tree.transaction!(s, always, retries: 0))
    refute Tree.exists(s, [:b])
  end

  test "they do not nest, and end with their function and their process", %{store: s} do
    assert_raise ArgumentError, ~r/do not nest/, fn ->
      Tree.transaction(s, fn _tx -> Tree.transaction(s, fn _tx -> :ok end) end)
    end

    assert_raise ArgumentError, ~r/do not nest/, fn ->
      Tree.transaction(s, fn tx -> Tree.transaction(tx, fn _tx -> :ok end) end)
    end

    {:ok, %Tx{} = tx} = Tree.transaction(s, & &1)
    assert_raise ArgumentError, ~r/is over/, fn -> Tree.get(tx, [:a]) end
    assert_raise ArgumentError, ~r/no transaction/, fn -> Tree.rollback(:no) end

    elsewhere = fn tx -> Task.await(Task.async(fn -> catch_error(Tree.put(tx, [:a], 1)) end)) end
    assert {:ok, %ArgumentError{}} = Tree.transaction(s, elsewhere)

    assert_raise ArgumentError, ~r/past/, fn ->
      Tree.transaction(s, &Tree.get_entry(&1, [:a], revision: 1))
    end
  end

  test "a write by the store's id in it is refused: it would be no part of it", %{store: s} do
    {:ok, lease} = Tank.Store.Lease.acquire(s, "held", holder: 1, ttl: 60_000)

    for write <- [
          fn -> Tree.put(s, [:outside], 1) end,
          fn -> Tree.create(s, [:outside], 1) end,
          fn -> Tree.delete(s, [:outside]) end,
          fn -> Tree.put_many(s, [:*], 1) end,
          fn -> Tree.txn(s, [], [{:put, [:outside], 1}], []) end,
          fn -> Tree.compact(s, 1) end,
          fn -> Tank.Store.Lease.acquire(s, "other", holder: 1, ttl: 60_000) end,
          fn -> Tank.Store.Lease.renew(lease) end,
          fn -> Tank.Store.Lease.release(lease) end
        ] do
      error = assert_raise ArgumentError, fn -> Tree.transaction(s, fn _tx -> write.() end) end
      assert error.message =~ "transaction (tx)"
    end

    refute Tree.exists(s, [:outside])
    # Reads of the store are no part of it either, and do no harm; nor do writes after it.
    assert Tree.transaction(s, fn _tx -> Tree.exists(s, [:outside]) end) == {:ok, false}
    assert {:ok, _revision} = Tree.put(s, [:outside], 1)
    assert Tank.Store.Lease.release(lease) == :ok
  end

  test "unless_same in it writes only what is another value", %{store: s} do
    {:ok, revision} = Tree.put(s, [:same], 1)
    assert {:ok, _} = Tree.transaction(s, &Tree.put!(&1, [:same], 1, unless_same: true))
    assert Tree.get_entry!(s, [:same]).revision == revision
    assert {:ok, _} = Tree.transaction(s, &Tree.put!(&1, [:same], 1.0, unless_same: true))
    assert {:ok, _} = Tree.transaction(s, &Tree.put!(&1, [:new], nil, unless_same: true))
    assert {Tree.get!(s, [:same]), Tree.get!(s, [:new])} == {1.0, nil}
  end

  test "too many reads or writes", %{store: s} do
    writes = fn tx -> for n <- 1..1_025, do: Tree.put!(tx, ["#{n}"], n) end
    assert Tree.transaction(s, writes) == {:error, {:too_large, :transaction, 1_024}}

    reads = fn tx ->
      for n <- 1..1_025, do: Tree.get(tx, ["#{n}"])
      Tree.put!(tx, [:a], 1)
    end

    assert Tree.transaction(s, reads) == {:error, {:too_large, :transaction, 1_024}}
    refute Tree.exists(s, [])
  end
end
