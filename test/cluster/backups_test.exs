defmodule Tank.Store.Cluster.BackupsTest do
  # Members write backups and exports into one file, as on a directory that they share (faults 51 and 52).
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.Backup

  @moduletag :tmp_dir
  @times 4
  @value_bytes 3_000_000

  test "all members back up and export into the same files at once: each file is whole", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    for n <- 1..4, do: {:ok, _} = put(hd(peers), "large-#{n}", :rand.bytes(@value_bytes), 30_000)
    for n <- 1..500, do: {:ok, _} = put(hd(peers), "small-#{n}", n)
    await_agreement(peers)
    expected = list(hd(peers))
    [backup, export] = for name <- ["backup", "export"], do: Path.join(dir, name)

    results =
      for(
        peer <- peers,
        _time <- 1..@times,
        {function, file} <- [create: backup, export: export],
        do: {peer, function, file}
      )
      |> Task.async_stream(fn {peer, function, file} -> call(peer, Backup, function, [store(), file]) end,
        max_concurrency: 100,
        timeout: 120_000
      )
      |> Enum.map(fn {:ok, result} -> result end)

    for result <- results, do: assert({:ok, %{entries: 504}} = result)
    assert Path.wildcard(Path.join(dir, "{backup,export}*")) == [backup, export]

    [restored, imported] = start_blank(dir, backup)
    {:ok, %{entries: 504}} = call(imported, Backup, :import, [store(), export])
    assert list(restored) == expected
    assert list(imported) == expected
  end

  # A node with a store that is restored from the backup, and one with an empty store.
  defp start_blank(dir, backup) do
    [restored, _imported] = nodes = start_nodes(Path.join(dir, "later"), 2)
    :ok = cluster(restored, :stop, [store()])
    File.rm_rf!(restored.dir)
    {:ok, _about} = call(restored, Backup, :restore, [backup, restored.dir, [store_id: store()]])
    {:ok, _} = cluster(restored, :start, [restored.dir, store(), 30_000])
    nodes
  end
end
