defmodule Tank.Store.ReadCacheTest do
  # Values that are read again come from a table, and are never older than what the engine would give.
  # Other members' writes, snapshots and joins: test/cluster/read_cache_test.exs.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Lease, ReadCache, Running, Tree}

  @moduletag :tmp_dir

  @here [favor: :low_latency]

  setup context do
    options = if bound = context[:bound], do: [memory_bytes_max: bound], else: []
    {:ok, store: start_store(context.tmp_dir, options)}
  end

  test "a value that is read a second time is kept, and found by either kind of read", %{store: store} do
    {:ok, _revision} = Tree.put(store, [:a], 1)
    assert {Tree.get(store, [:a]), rows(store)} == {{:ok, 1}, []}
    assert {Tree.get(store, [:a]), rows(store)} == {{:ok, 1}, [{[:a], 1}]}
    # Planted, to see where a read looks.
    plant(store, [:a], :planted)
    assert {Tree.get(store, [:a]), Tree.get(store, [:a], @here)} == {{:ok, :planted}, {:ok, :planted}}
    {:ok, _revision} = Tree.put(store, [:a], 2)
    assert {Tree.get(store, [:a]), Tree.get(store, [:a], @here)} == {{:ok, 2}, {:ok, 2}}
  end

  test "no write is missed: put, delete, delete above, transaction, lease, put_many", %{store: store} do
    path = ["app", :a]

    writes = [
      {&Tree.put(store, path, &1), &{:ok, &1}},
      {fn _n -> Tree.delete(store, path) end, fn _n -> {:error, :not_found} end},
      {&Tree.create(store, path, &1), &{:ok, &1}},
      {fn _n -> Tree.delete(store, ["app"]) end, fn _n -> {:error, :not_found} end},
      {&Tree.put_many(store, ["app", :*], &1), fn _n -> {:error, :not_found} end},
      {&Tree.put(store, path, &1), &{:ok, &1}},
      {&Tree.put_many(store, ["app", :*], &1), &{:ok, &1}},
      {fn n -> Tree.transaction(store, fn tx -> Tree.put!(tx, path, {n, Tree.get(tx, path)}) end) end,
       &{:ok, {&1, {:ok, &1 - 1}}}},
      {&Tree.put(store, path, &1), &{:ok, &1}}
    ]

    for _round <- 1..3, {{write, expected}, n} <- Enum.with_index(writes) do
      result = write.(n)
      refute match?({:error, _reason}, result), "write #{n}: #{inspect(result)}"

      for _read <- 1..3, options <- [[], @here] do
        assert {n, Tree.get(store, path, options)} == {n, expected.(n)}
      end
    end

    {:ok, lease} = Lease.acquire(store, "worker", holder: "holder", ttl: 60_000)
    {:ok, _revision} = Tree.put(store, path, :leased, lease: lease)
    for _read <- 1..3, do: assert(Tree.get(store, path) == {:ok, :leased})
    :ok = Lease.release(lease)
    assert Tree.get(store, path) == {:error, :not_found}
  end

  test "readers beside writers see no value older than one that was acknowledged, or than one seen", %{store: store} do
    keys = 6
    acknowledged = :atomics.new(keys, [])
    for key <- 1..keys, do: {:ok, _revision} = Tree.put(store, [:k, "#{key}"], 0)

    readers =
      for number <- 1..8 do
        options = if rem(number, 2) == 0, do: @here, else: []
        Task.async(fn -> read_on(store, keys, options, acknowledged, Map.new(1..keys, &{&1, 0}), 0) end)
      end

    for n <- 1..1_500, key <- Enum.take_random(1..keys, 2) do
      {:ok, _revision} = Tree.put(store, [:k, "#{key}"], n)
      :atomics.put(acknowledged, key, n)
      # So that some are read often enough between two writes to come from the table.
      if rem(n, 10) == 0, do: for(_read <- 1..20, do: {:ok, ^n} = Tree.get(store, [:k, "#{key}"]))
    end

    Enum.each(readers, &send(&1.pid, :stop))
    assert readers |> Task.await_many(60_000) |> Enum.min() > 1_000
    assert length(rows(store)) == keys
  end

  test "pods, by name, and entries by path have rows of their own", %{tmp_dir: dir} do
    start_tank(Path.join(dir, "tank"))
    [a, b] = for name <- ["web", "\x02k\0"], do: pod(name)
    for pod <- [a, b], do: :ok = Tank.Store.put_pod(pod)
    {:ok, _revision} = Tree.put(:tank, ["k"], :other)

    for _read <- 1..3 do
      assert Tank.Store.get_pod("web") == {:ok, a}
      assert Tank.Store.get_pod("\x02k\0") == {:ok, b}
      assert Tree.get(:tank, ["k"]) == {:ok, :other}
      assert Tree.get(:tank, [:tank, :pods, "web"]) == {:ok, a}
      # A name is no path, and an atom no string.
      assert {:error, {:invalid_path, _why}} = Tree.get(:tank, "web")
      assert {:error, {:invalid_path, _why}} = Tree.get(:tank, :web, @here)
      assert Tank.Store.get_pod(:web) == {:error, :not_found}
    end

    assert length(rows(:tank)) == 4
    :ok = Tank.Store.delete_pod("web")
    assert Tank.Store.get_pod("web") == {:error, :not_found}
    assert Tree.get(:tank, [:tank, :pods, "web"]) == {:error, :not_found}
  end

  test "a large value, and one read once, are not kept; nor is what a name was a part of", %{store: store} do
    {:ok, _revision} = Tree.put(store, [:large], String.duplicate("x", 70_000))
    for _read <- 1..3, do: {:ok, _value} = Tree.get(store, [:large])
    assert rows(store) == []
    name = binary_part(String.duplicate("n", 1_000_000), 7, 100)
    {:ok, _revision} = Tree.put(store, [:a, name], 1)
    for _read <- 1..3, do: {:ok, 1} = Tree.get(store, [:a, name])
    assert [{[:a, kept], 1}] = rows(store)
    assert :binary.referenced_byte_size(kept) == 100
  end

  @tag bound: 100_000_000
  test "a store whose memory has a bound keeps nothing here", %{store: store} do
    {:ok, _revision} = Tree.put(store, [:a], 1)
    for _read <- 1..5, do: assert(Tree.get(store, [:a]) == {:ok, 1})
    assert rows(store) == []
  end

  test "outdated rows are swept away, and count as memory until then", %{store: store} do
    value = Enum.to_list(1..1_000)
    for n <- 1..20, do: {:ok, _revision} = Tree.put(store, ["#{n}"], value)
    before = memory(store)
    for _read <- 1..3, n <- 1..20, do: {:ok, ^value} = Tree.get(store, ["#{n}"])
    assert memory(store) - before > 20 * 1_000 * 2 * 8
    for n <- 1..10, do: {:ok, _revision} = Tree.put(store, ["#{n}"], :changed)
    for n <- 11..15, do: {:ok, _revision} = Tree.delete(store, ["#{n}"])
    assert length(rows(store)) == 20
    # As it does by itself every ten seconds.
    send(server(store), :sweep)
    left = for n <- 16..20, do: {["#{n}"], value}
    eventually("the outdated ones to go", fn -> Enum.sort(rows(store)) == left or {:not_yet, length(rows(store))} end)
    # Nothing has changed since: what is planted now stays.
    plant(store, ["1"], :planted, 0)
    send(server(store), :sweep)
    :sys.get_state(server(store))
    assert length(rows(store)) == 6
  end

  test "many rows are swept, while others are read and kept", %{store: store} do
    :ok = fill(store, 5_000, :old)
    for _read <- 1..2, n <- 1..5_000, do: {:ok, :old} = Tree.get(store, ["#{n}"])
    :ok = fill(store, 5_000, :new)
    reader = Task.async(fn -> for _read <- 1..3, n <- 1..5_000, do: {:ok, :new} = Tree.get(store, ["#{n}"]) end)
    {:ok, native, cache} = Running.fetch_with_cache(store)
    monitor = cache |> ReadCache.sweep(native) |> Process.monitor()
    assert_receive {:DOWN, ^monitor, :process, _pid, reason} when reason in [:normal, :noproc], 30_000
    Task.await(reader, 60_000)
    assert length(rows(store)) == 5_000
    assert Enum.all?(rows(store), fn {_id, value} -> value == :new end)
  end

  test "a store that is closed, killed or opened anew: named errors, and nothing of its former life", %{
    store: store,
    tmp_dir: dir
  } do
    {:ok, _revision} = Tree.put(store, [:a], 1)
    for _read <- 1..3, do: {:ok, 1} = Tree.get(store, [:a])
    reader = Task.async(fn -> read_through(store, []) end)

    for _time <- 1..3 do
      plant(store, [:a], :former)
      kill_server(store)
      eventually("an answer", fn -> Tree.get(store, [:a]) == {:ok, 1} end)
    end

    send(reader.pid, :stop)
    # Between two lives there is no store, or one that is being opened.
    assert Task.await(reader) --
             [{:ok, 1}, {:ok, :former}, {:error, :noproc}, {:error, :engine_failed}] == []

    plant(store, [:a], :former)
    :ok = Cluster.stop(store)
    assert Tree.get(store, [:a]) == {:error, :noproc}
    assert Tree.get(store, [:a], @here) == {:error, :noproc}
    start_store(dir, store_id: store)
    assert Tree.get(store, [:a]) == {:ok, 1}
  end

  test "readers are answered while the store closes, and no table is left behind", %{store: store} do
    {:ok, _revision} = Tree.put(store, [:a], 1)
    for _read <- 1..3, do: {:ok, 1} = Tree.get(store, [:a])
    {:ok, _native, cache} = Running.fetch_with_cache(store)
    readers = for _reader <- 1..4, do: Task.async(fn -> read_through(store, []) end)
    :ok = Cluster.stop(store)
    Enum.each(readers, &send(&1.pid, :stop))
    for seen <- Task.await_many(readers), do: assert(seen -- [{:ok, 1}, {:error, :noproc}, {:error, :closed}] == [])
    eventually("the table to go", fn -> :ets.info(cache) == :undefined end)
  end

  defp read_on(store, keys, options, acknowledged, seen, count) do
    key = :rand.uniform(keys)
    least = max(:atomics.get(acknowledged, key), seen[key])
    {:ok, value} = Tree.get(store, [:k, "#{key}"], options)
    if value < least, do: raise("key #{key}: #{value} after #{least}, #{inspect(options)}")

    receive do
      :stop -> count
    after
      0 -> read_on(store, keys, options, acknowledged, %{seen | key => value}, count + 1)
    end
  end

  # Reads until it is told to stop; gives the different answers.
  defp read_through(store, seen) do
    answer = Tree.get(store, [:a])
    seen = if answer in seen, do: seen, else: [answer | seen]

    receive do
      :stop -> seen
    after
      0 -> read_through(store, seen)
    end
  end

  defp fill(store, count, value) do
    1..count
    |> Task.async_stream(&({:ok, _revision} = Tree.put(store, ["#{&1}"], value)), max_concurrency: 64)
    |> Stream.run()
  end

  defp rows(store) do
    {:ok, _native, cache} = Running.fetch_with_cache(store)
    for {id, value, _slot, _revision} <- :ets.tab2list(cache), do: {id, value}
  end

  # Puts another value in the row of a path, or of one like it.
  defp plant(store, path, value, revision \\ nil) do
    {:ok, _native, cache} = Running.fetch_with_cache(store)

    case :ets.lookup(cache, path) do
      [{_id, _value, slot, kept}] -> :ets.insert(cache, {path, value, slot, revision || kept})
      [] -> :ets.insert(cache, {path, value, 0, revision || 0})
    end
  end

  defp memory(store) do
    {:ok, %{memory_bytes: bytes}} = Cluster.status(store)
    bytes
  end
end
