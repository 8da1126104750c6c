defmodule Tank.Store.ProjectionTest do
  use ExUnit.Case, async: true
  use Tank.Store.TankCase

  alias Tank.Store.{Call, Cluster, Path, Projection}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} = context do
    table = :"table_#{System.unique_integer([:positive])}"
    {:ok, store: start_store(dir, Map.get(context, :options, [])), dir: dir, table: table}
  end

  defp put(store, path, value) do
    {:ok, key} = Path.to_key(path)
    {:ok, revision} = Call.write(store, :put, key, value, nil, 30_000)
    revision
  end

  defp delete(store, path) do
    {:ok, key} = Path.to_key(path)
    {:ok, revision} = Call.delete(store, key, nil, 30_000)
    revision
  end

  defp project(store, table, opts \\ []) do
    start_supervised!({Projection, Keyword.merge([store: store, pattern: [:a], table: table], opts)})
  end

  defp rows(table), do: table |> :ets.tab2list() |> Enum.sort()

  test "is filled when it has started, and follows", %{store: store, table: table} do
    put(store, [:a, "x"], 1)
    put(store, [:b], 1)
    projection = project(store, table)
    assert rows(table) == [{[:a, "x"], 1}]
    put(store, [:a, "y"], 2)
    put(store, [:a, "x"], 3)
    assert Projection.await(projection, put(store, [:b], 2)) == :ok
    assert rows(table) == [{[:a, "x"], 3}, {[:a, "y"], 2}]
    assert Projection.await(projection, delete(store, [:a])) == :ok
    assert rows(table) == []
    assert Projection.await(projection, 1_000, 50) == {:error, :timeout}
  end

  test "of a pattern holds what matches, and nothing that has ceased to", %{store: store, table: table} do
    for {name, value} <- [{"x", :ready}, {"y", :new}], do: put(store, [:a, name], value)
    projection = project(store, table, pattern: [:a, {:data, :ready}], key: &List.last(&1.path))
    assert rows(table) == [{"x", :ready}]
    put(store, [:a, "y"], :ready)
    put(store, [:a, "z"], :new)
    Projection.await(projection, put(store, [:a, "x"], :done))
    assert rows(table) == [{"y", :ready}]
    Projection.await(projection, delete(store, [:a]))
    assert rows(table) == []
  end

  test "of a pattern that a change does not tell does not start", %{store: store, table: table} do
    Process.flag(:trap_exit, true)
    opts = [store: store, pattern: [:a, {:child_count, :>, 1}], table: table]
    assert {:error, {:invalid_pattern, _why}} = Projection.start_link(opts)
  end

  test "any functions make the rows; a key may move to another entry", %{store: store, table: table} do
    secret = make_ref()
    key = fn entry -> entry.value.id end
    projection = project(store, table, key: key, value: &{List.last(&1.path), secret, &1.version}, ets: [:ordered_set])
    put(store, [:a, "x"], %{id: 1})
    put(store, [:a, "y"], %{id: 2})
    Projection.await(projection, put(store, [:a, "x"], %{id: 3}))
    assert rows(table) == [{2, {"y", secret, 1}}, {3, {"x", secret, 2}}]
    put(store, [:a, "x"], %{id: 4})
    Projection.await(projection, put(store, [:a, "y"], %{id: 3}))
    assert rows(table) == [{3, {"y", secret, 2}}, {4, {"x", secret, 3}}]
  end

  test "survives the store: the table stays, and is then brought up to date", %{store: store, dir: dir, table: table} do
    for n <- 1..100, do: put(store, [:a, "#{n}"], n)
    projection = project(store, table)
    assert length(rows(table)) == 100
    watcher = watch_size(table)
    :ok = Cluster.stop(store)
    assert length(rows(table)) == 100
    {:ok, ^store} = Cluster.start(dir, store, 60_000)
    delete(store, [:a, "1"])
    last = put(store, [:a, "2"], :new)
    assert Projection.await(projection, last, 10_000) == :ok
    kill_server(store)
    last = put(store, [:a, "1"], :back)
    assert Projection.await(projection, last, 10_000) == :ok
    assert {[:a, "2"], :new} in rows(table) and {[:a, "1"], :back} in rows(table)
    assert stop_watching(watcher) >= 99
    assert Process.alive?(projection)
  end

  test "a watch that is killed is begun anew", %{store: store, table: table} do
    projection = project(store, table)
    put(store, [:a], 1)
    kill(:sys.get_state(projection).watch.pid)
    assert Projection.await(projection, put(store, [:a], 2)) == :ok
    assert rows(table) == [{[:a], 2}]
  end

  test "one that lags resumes, and loses nothing", %{store: store, table: table} do
    projection = project(store, table)
    :ok = :sys.suspend(projection)
    %{watch: watch} = :sys.get_state(projection)
    # As if it had been patient for long enough.
    monitor = Process.monitor(watch.pid)
    send(projection, {:store_watch, watch.ref, {:cancelled, {:lagged, 0}}})
    send(watch.pid, {:cancel, watch.ref})
    assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
    for n <- 1..50, do: put(store, [:a, "#{n}"], n)
    :ok = :sys.resume(projection)
    assert Projection.await(projection, 50) == :ok
    assert length(rows(table)) == 50
  end

  @tag options: [history_revisions: 20]
  test "what was compacted meanwhile is made up for by the difference", %{store: store, table: table} do
    for n <- 1..10, do: put(store, [:a, "#{n}"], n)
    projection = project(store, table)
    :ok = :sys.suspend(projection)
    %{watch: watch} = :sys.get_state(projection)
    monitor = Process.monitor(watch.pid)
    send(projection, {:store_watch, watch.ref, {:cancelled, {:lagged, 10}}})
    send(watch.pid, {:cancel, watch.ref})
    assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
    delete(store, [:a, "1"])
    for n <- 1..200, do: put(store, [:b], n)

    eventually("the history to be compacted", fn ->
      match?({:error, {:compacted, _}}, Tank.Store.Since.list(store, [], 10))
    end)

    watcher = watch_size(table)
    :ok = :sys.resume(projection)
    assert Projection.await(projection, 211) == :ok
    assert rows(table) == Enum.sort(for n <- 2..10, do: {[:a, "#{n}"], n})
    assert stop_watching(watcher) >= 9
  end

  test "starts before its store, empty, and is filled when that comes", %{store: store, dir: dir, table: table} do
    put(store, [:a], 1)
    :ok = Cluster.stop(store)
    projection = project(store, table, timeout: 30)
    assert rows(table) == []
    {:ok, ^store} = Cluster.start(dir, store, 60_000)
    assert Projection.await(projection, 1, 10_000) == :ok
    assert rows(table) == [{[:a], 1}]
  end

  describe "a function that fails for an entry" do
    @describetag :capture_log

    defp picky(%{value: :raise}), do: raise("no")
    defp picky(%{value: :throw}), do: throw(:no)
    defp picky(%{value: :exit}), do: exit(:no)
    defp picky(%{value: value}), do: value

    test "costs the row of that entry alone, in a snapshot and in changes", %{store: store, table: table} do
      for {name, value} <- [a: :raise, b: 1, c: :throw], do: put(store, [:a, name], value)
      projection = project(store, table, value: &picky/1)
      assert rows(table) == [{[:a, :b], 1}]
      assert Projection.skipped(projection) == {:ok, 2}

      # What had a row has none any more, and gets it back.
      put(store, [:a, :d], 4)
      put(store, [:a, :b], :exit)
      assert Projection.await(projection, put(store, [:a, :a], 0)) == :ok
      assert rows(table) == [{[:a, :a], 0}, {[:a, :d], 4}]
      assert Projection.skipped(projection) == {:ok, 2}
      assert Projection.await(projection, put(store, [:a, :b], 2)) == :ok
      assert rows(table) == [{[:a, :a], 0}, {[:a, :b], 2}, {[:a, :d], 4}]
      assert Projection.await(projection, delete(store, [:a])) == :ok
      assert {rows(table), Projection.skipped(projection)} == {[], {:ok, 0}}
    end

    test "of :key too, and the table outlives the store's reopening", %{store: store, table: table} do
      put(store, [:a, "x"], 1)
      put(store, [:a, "y"], :raise)
      projection = project(store, table, key: &picky/1, value: & &1.path)
      kill_server(store)
      assert Projection.await(projection, put(store, [:a, "z"], 3)) == :ok
      assert rows(table) == [{1, [:a, "x"]}, {3, [:a, "z"]}]
      assert Projection.skipped(projection) == {:ok, 1}
    end
  end

  test "tables that would hold several rows of a key, or that nobody reads, are refused", %{store: store} do
    for option <- [:bag, :duplicate_bag, :private, {:keypos, 2}] do
      assert_raise ArgumentError, ~r/option :ets/, fn ->
        Projection.start_link(store: store, table: :t, ets: [option])
      end
    end
  end

  test "wrong options are refused", %{store: store} do
    assert_raise ArgumentError, ~r/:store_id/, fn -> Projection.start_link(store_id: "s", table: :t) end
    assert_raise ArgumentError, ~r/:table/, fn -> Projection.start_link(store: store) end
    assert_raise ArgumentError, ~r/:tabel/, fn -> Projection.start_link(store: store, tabel: :t) end
    assert_raise ArgumentError, ~r/:pattern/, fn -> Projection.start_link(store: store, table: :t, pattern: [7]) end
  end

  # The smallest size that the table ever had.
  defp watch_size(table), do: spawn_link(fn -> look_at_size(table, :infinity) end)

  defp look_at_size(table, least) do
    least = min(least, :ets.info(table, :size))

    receive do
      {:stop, pid} -> send(pid, {:least, least})
    after
      0 -> look_at_size(table, least)
    end
  end

  defp stop_watching(pid) do
    send(pid, {:stop, self()})
    receive do: ({:least, least} -> least)
  end
end
