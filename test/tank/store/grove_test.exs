defmodule Tank.Store.GroveTest do
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Grove}
  alias Tank.Store.GroveCounter, as: Counter

  @moduletag :tmp_dir

  @groups [
    {:counter, "views"},
    :atom,
    "string",
    "",
    nil,
    1,
    1.0,
    {1, {2, [3, %{4 => 5}]}},
    %{a: 1},
    [1 | 2],
    Map.new(1..100, &{&1, {:value, &1}})
  ]

  @states [
    nil,
    1.5,
    %Counter{counts: %{a: 1}},
    MapSet.new([1, :two, "three"]),
    %{nested: %{set: MapSet.new([MapSet.new([1])]), list: [a: 1]}},
    <<1::3>>,
    {[1 | 2], 123_456_789_012_345_678_901_234_567_890}
  ]

  describe "with a running store" do
    setup %{tmp_dir: dir} do
      store = start_store(dir)
      {:ok, ref} = Grove.init(store: store)
      %{store: store, ref: ref}
    end

    test "a group of any term keeps its state", %{ref: ref} do
      for {group, number} <- Enum.with_index(@groups) do
        assert Grove.load(ref, group) == {:ok, nil}
        assert Grove.save(ref, group, {:state, number}) == :ok
      end

      for {group, number} <- Enum.with_index(@groups), do: assert(Grove.load(ref, group) == {:ok, {:state, number}})
      {:ok, listed} = Grove.list_groups(ref)
      assert length(listed) == length(@groups)
      for group <- @groups, do: assert(Enum.any?(listed, &(&1 === group)), inspect(group))

      for group <- @groups do
        assert Grove.delete(ref, group) == :ok
        assert Grove.delete(ref, group) == :ok
        assert Grove.load(ref, group) == {:ok, nil}
      end

      assert Grove.list_groups(ref) == {:ok, []}
    end

    test "a state of any term comes back, the last one that was saved", %{ref: ref} do
      for state <- @states do
        assert Grove.save(ref, :group, state) == :ok
        assert Grove.load(ref, :group) == {:ok, state}
      end
    end

    test "a state of 10 MB, and one that is too large", %{ref: ref} do
      large = :crypto.strong_rand_bytes(10_000_000)
      assert Grove.save(ref, :document, [{1, large}]) == :ok
      assert Grove.load(ref, :document) == {:ok, [{1, large}]}
      assert {:error, {:too_large, :value, _limit}} = Grove.save(ref, :document, [large, large])
      assert Grove.load(ref, :document) == {:ok, [{1, large}]}
    end

    test "10,000 groups are listed", %{ref: ref} do
      save = fn number -> :ok = Grove.save(ref, {:counter, number}, number) end
      1..10_000 |> Task.async_stream(save, max_concurrency: 200, timeout: 60_000) |> Stream.run()
      assert {:ok, groups} = Grove.list_groups(ref)
      assert Enum.sort(groups) == for(number <- 1..10_000, do: {:counter, number})
    end

    test "backends share a prefix, and know nothing of another one", %{store: store, ref: ref} do
      {:ok, same} = Grove.init(%{store: store, prefix: [:grove]})
      {:ok, other} = Grove.init(store: store, prefix: [:other, "crdts"])
      :ok = Grove.save(ref, :group, 1)
      assert Grove.load(same, :group) == {:ok, 1}
      assert Grove.load(other, :group) == {:ok, nil}
      assert Grove.list_groups(other) == {:ok, []}
      :ok = Grove.save(other, :group, 2)
      :ok = Grove.delete(other, :group)
      assert Grove.load(same, :group) == {:ok, 1}
    end

    test "a closed one answers so, and the others go on", %{store: store, ref: ref} do
      {:ok, other} = Grove.init(store: store)
      assert Grove.close(ref) == :ok
      assert Grove.close(ref) == :ok
      assert Grove.save(ref, :group, 1) == {:error, :closed}
      assert Grove.load(ref, :group) == {:error, :closed}
      assert Grove.delete(ref, :group) == {:error, :closed}
      assert Grove.list_groups(ref) == {:error, :closed}
      assert Grove.save(other, :group, 1) == :ok
      assert Cluster.is_store_running(store)
    end

    test "saves at the same time end as one of them", %{ref: ref} do
      states = for number <- 1..50, do: List.duplicate(number, 1_000)
      states |> Enum.map(&Task.async(fn -> :ok = Grove.save(ref, :group, &1) end)) |> Task.await_many()
      {:ok, state} = Grove.load(ref, :group)
      assert state in states
    end

    test "with merge no increment is lost, whoever saves", %{store: store} do
      {:ok, ref} = Grove.init(store: store, merge: &Counter.merge/2, timeout: 60_000)

      replica = fn name ->
        Enum.reduce(1..50, %Counter{}, fn _time, state ->
          state = Counter.increment(state, name)
          :ok = Grove.save(ref, {:counter, "views"}, state)
          state
        end)
      end

      1..8 |> Enum.map(&Task.async(fn -> replica.(&1) end)) |> Task.await_many(120_000)
      {:ok, state} = Grove.load(ref, {:counter, "views"})
      assert Counter.value(state) == 8 * 50
      # What is there already is saved.
      assert Grove.save(ref, {:counter, "views"}, %Counter{}) == :ok
      assert Grove.load(ref, {:counter, "views"}) == {:ok, state}
    end

    test "a store that stopped is an error, not an exception", %{store: store, ref: ref} do
      {:ok, merging} = Grove.init(store: store, merge: &Counter.merge/2)
      :ok = Cluster.stop(store)

      for ref <- [ref, merging] do
        assert Grove.save(ref, :group, %Counter{}) == {:error, :noproc}
        assert Grove.load(ref, :group) == {:error, :noproc}
        assert Grove.delete(ref, :group) == {:error, :noproc}
        assert Grove.list_groups(ref) == {:error, :noproc}
      end

      assert Grove.init(store: store) == {:error, :noproc}
    end
  end

  test "a store of its own is shared, stops with the last one, and has its states when it is started anew", %{
    tmp_dir: dir
  } do
    id = unique_id()
    {:ok, one} = Grove.init(data_dir: dir, store: id)
    {:ok, two} = Grove.init(data_dir: dir, store: id)
    :ok = Grove.save(one, {:counter, "views"}, %Counter{counts: %{a: 1}})
    assert Grove.load(two, {:counter, "views"}) == {:ok, %Counter{counts: %{a: 1}}}
    :ok = Grove.close(one)
    :ok = Grove.close(one)
    assert Cluster.is_store_running(id)
    :ok = Grove.close(two)
    refute Cluster.is_store_running(id)

    {:ok, again} = Grove.init(data_dir: dir, store: id)
    assert Grove.load(again, {:counter, "views"}) == {:ok, %Counter{counts: %{a: 1}}}
    assert Grove.list_groups(again) == {:ok, [{:counter, "views"}]}
    assert {:error, {:already_running, ^dir}} = Grove.init(data_dir: dir <> "_other", store: id)
    :ok = Grove.close(again)
    refute Cluster.is_store_running(id)
  end

  test "a store of its own stops when its last user ends, however often that one began again", %{tmp_dir: dir} do
    id = unique_id()

    user = fn ->
      test = self()

      pid =
        spawn(fn ->
          send(test, {:opened, self(), Grove.init(data_dir: dir, store: id)})
          Process.sleep(:infinity)
        end)

      receive do: ({:opened, ^pid, {:ok, ref}} -> {pid, ref})
    end

    {lasting, ref} = user.()
    # Crashed and restarted: each time it opens the backend again.
    for _time <- 1..3 do
      {pid, _ref} = user.()
      kill(pid)
    end

    assert Grove.save(ref, :group, 1) == :ok
    kill(lasting)
    eventually("the store to stop", fn -> not Cluster.is_store_running(id) end)
    assert Grove.load(ref, :group) == {:error, :noproc}
    assert Grove.close(ref) == :ok

    {:ok, again} = Grove.init(data_dir: dir, store: id)
    assert Grove.load(again, :group) == {:ok, 1}
    :ok = Grove.close(again)
    refute Cluster.is_store_running(id)
  end

  test "a store of its own that is stopped by hand can be opened again", %{tmp_dir: dir} do
    id = unique_id()
    {:ok, one} = Grove.init(data_dir: dir, store: id)
    :ok = Cluster.stop(id)
    assert Grove.load(one, :group) == {:error, :noproc}
    {:ok, two} = Grove.init(data_dir: dir, store: id)
    # It counts for the store that it opened, not for this one.
    :ok = Grove.close(one)
    assert Grove.load(two, :group) == {:ok, nil}
    :ok = Grove.close(two)
    refute Cluster.is_store_running(id)
  end

  test "a store that somebody else started in the directory is left running", %{tmp_dir: dir} do
    id = start_store(dir)
    {:ok, ref} = Grove.init(data_dir: dir, store: id)
    :ok = Grove.close(ref)
    assert Cluster.is_store_running(id)
  end

  test "it declares the behaviour of the library Grove where that is there at compile time" do
    source = "lib/tank/store/grove.ex"

    program = """
    defmodule Grove.Storage do
      @callback init(keyword) :: {:ok, term} | {:error, term}
      @callback save(term, term, term) :: :ok | {:error, term}
      @callback load(term, term) :: {:ok, term} | {:error, term}
      @callback delete(term, term) :: :ok | {:error, term}
      @callback list_groups(term) :: {:ok, [term]} | {:error, term}
      @callback close(term) :: :ok
    end
    Code.compiler_options(ignore_module_conflict: true)
    [{module, _beam}] = Code.compile_file(#{inspect(source)})
    IO.inspect(module.module_info(:attributes)[:behaviour])
    """

    # A callback that is missing would be a warning, and printed too.
    ebin = Application.app_dir(:tank_store, "ebin")
    assert {"[Grove.Storage]\n", 0} = System.cmd("elixir", ["-pa", ebin, "-e", program], stderr_to_stdout: true)
    refute Code.ensure_loaded?(Grove.Storage)
  end

  test "options that make no sense are refused" do
    for options <- [
          [],
          [store: nil],
          [store: "a"],
          [data_dir: 1],
          [store: :a, prefix: "a"],
          [store: :a, merge: fn _one -> 1 end],
          [store: :a, timeout: 0],
          [store: :a, unknown: 1]
        ] do
      assert_raise ArgumentError, fn -> Grove.init(options) end
    end
  end
end
