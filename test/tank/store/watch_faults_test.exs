defmodule Tank.Store.WatchFaultsTest do
  # Fault points are the whole VM's.
  use ExUnit.Case, async: false
  use Tank.Store.TankCase

  alias Tank.Store.{Call, Cluster, Path, Watch, WatchCollector, Watched}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir}, do: {:ok, store: start_store(dir), dir: dir}

  defp put(store, value) do
    {:ok, key} = Path.to_key([:a])
    {:ok, revision} = Call.write(store, :put, key, value, nil, 30_000)
    revision
  end

  # What a watch saw of `writes`, and the same from the history on the disk.
  defp seen_and_written(store, dir, writes) do
    {:ok, watch} = Watch.start(store, [], from: :now, progress_interval_ms: 10)
    writes.()
    last = put(store, :last)
    seen = for {:changes, _revision, _changes} = message <- Watched.until(watch, last), do: Watched.plain(message)
    :ok = Cluster.stop(store)
    {:ok, ^store} = Cluster.start(dir, store, 60_000)
    {seen, WatchCollector.history(store, 0, last)}
  end

  test "what a watch saw is what the disk holds; a dropped revision would be noticed", %{store: store, dir: dir} do
    {seen, written} = seen_and_written(store, dir, fn -> for n <- 1..10, do: put(store, n) end)
    assert length(seen) == 11 and seen == written
    arm("watch_drop", "1*return")
    {seen, written} = seen_and_written(store, dir, fn -> for n <- 1..10, do: put(store, n) end)
    assert length(seen) == 10 and length(written) == 22
    refute seen == WatchCollector.filtered(written, [], 11, 22)
  end

  test "a panic in the hub fails the store, not the VM; watches are told, and resume", %{store: store} do
    {:ok, watch} = Watch.start(store, [], from: :now)
    assert Watched.next(watch) == {:synced, 0}
    old = server(store)
    arm("watch_hub", "1*panic")
    revision = put(store, 1)
    assert until_cancelled(watch) == {:cancelled, :store_stopped}
    await_server(store, old)
    {:ok, watch} = Watch.start(store, [], from: {:after, 0})
    assert {:changes, ^revision, [%{value: 1}]} = Watched.next(watch)
  end

  # It may tell of the write before it is told of the end.
  defp until_cancelled(watch) do
    with {:changes, _revision, _changes} <- Watched.next(watch), do: until_cancelled(watch)
  end
end
