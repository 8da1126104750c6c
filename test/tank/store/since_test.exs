defmodule Tank.Store.SinceTest do
  use ExUnit.Case, async: true
  use Tank.Store.TankCase

  alias Tank.Store.{Call, Change, Path, Since}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} = context, do: {:ok, store: start_store(dir, Map.get(context, :options, []))}

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

  test "unchanged, or the net changes of the prefix", %{store: store} do
    assert Since.list(store, [:a], 0) == :unchanged
    put(store, [:a, "x"], 1)
    put(store, [:a, "y"], 1)
    base = put(store, [:b], 1)
    assert Since.list(store, [:a], base) == :unchanged
    # Nobody can have come to a revision that there is not. A member that lags cannot tell.
    assert Since.list(store, [:a], base + 7) == {:error, {:compacted, 0}}
    assert Since.list(store, [:a], base + 7, favor: :low_latency) == :unchanged
    put(store, [:a, "x"], 2)
    put(store, [:a, "x"], 3)
    put(store, [:a, "new"], nil)
    put(store, [:a, "brief"], 1)
    delete(store, [:a, "brief"])
    delete(store, [:a, "y"])
    now = put(store, [:b], 2)

    assert Since.list(store, [:a], base) ==
             {:ok,
              [
                %Change{type: :created, path: [:a, "new"], value: nil, previous: nil, revision: base + 3, version: 1},
                %Change{type: :updated, path: [:a, "x"], value: 3, previous: 1, revision: base + 2, version: 3},
                %Change{type: :deleted, path: [:a, "y"], value: nil, previous: 1, revision: base + 6, version: 0}
              ], now}

    assert Since.list(store, [:c], base) == {:ok, [], now}
    assert Since.list(store, [:a], base, favor: :low_latency) == Since.list(store, [:a], base)
    assert Since.list(:never_started, [:a], 0) == {:error, :noproc}
    assert {:error, {:invalid_path, _}} = Since.list(store, [7], 0)
  end

  test "a pattern: what came to match and what ceased to, as it is now", %{store: store} do
    for n <- ["a", "b", "c"], do: put(store, [:jobs, n], :ready)
    put(store, [:jobs, "d"], :new)
    base = put(store, [:other], 1)
    # It matched before, and twice in between.
    for value <- [:running, :ready, :done], do: put(store, [:jobs, "a"], value)
    for value <- [:ready, :new], do: put(store, [:jobs, "d"], value)
    delete(store, [:jobs, "b"])
    now = put(store, [:jobs, "e"], :ready)
    pattern = [:jobs, {:data, :ready}]
    assert {:ok, changes, ^now} = Since.list(store, pattern, base)

    assert Enum.map(changes, &{&1.type, List.last(&1.path), &1.previous, &1.value}) ==
             [{:updated, "a", :ready, :done}, {:deleted, "b", :ready, nil}, {:created, "e", nil, :ready}]

    assert Since.list(store, pattern, now) == :unchanged
    assert {:error, {:invalid_pattern, _}} = Since.list(store, [:jobs, {:child_count, :>, 0}], now)
    assert {:error, {:invalid_pattern, _}} = Since.list(store, [:jobs, {:child_count, :>, 0}], base)
  end

  @tag options: [history_revisions: 20]
  test "what is compacted is said so", %{store: store} do
    for n <- 1..100, do: put(store, [:a], n)

    # It may be compacted further between the two calls.
    {min, change} =
      eventually("the history to be compacted, and a list from there on", fn ->
        with {:error, {:compacted, min}} when min >= 78 <- Since.list(store, [], 0),
             {:ok, [change], 100} <- Since.list(store, [], min),
             do: {min, change},
             else: (last -> {:not_yet, last})
      end)

    assert %Change{type: :updated, previous: ^min, value: 100} = change
  end

  test "an unchanged store answers without a process or a list", %{store: store} do
    put(store, [:a], 1)
    {:reductions, before} = Process.info(self(), :reductions)
    for _ <- 1..1_000, do: :unchanged = Since.list(store, [:a], 1)
    {:reductions, later} = Process.info(self(), :reductions)
    assert later - before < 100_000
  end
end
