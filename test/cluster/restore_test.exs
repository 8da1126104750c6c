defmodule Tank.Store.Cluster.RestoreTest do
  # A backup is restored and others join: every member has everything, also when the first one is lost.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.Backup

  @moduletag :tmp_dir

  test("restore, join, kill the leader: every member has everything, 5 rounds", %{tmp_dir: dir}, do: rounds(dir, 5))

  @tag :long
  @tag timeout: :infinity
  test("restore, join, kill the leader: every member has everything, 50 rounds", %{tmp_dir: dir}, do: rounds(dir, 50))

  # guides/operations.md, "Restore a cluster from a backup"
  test "the guide step by step: all members have what the backup has", %{tmp_dir: dir} do
    [a, b, c] = peers = start_cluster(dir, 3)
    for number <- 1..50, do: {:ok, _} = put(a, "k#{number}", number)
    backup = Path.join(dir, "tank.backup")
    {:ok, %{entries: 50}} = call(b, Backup, :create, [store(), backup])
    {:ok, _} = put(a, "a mistake", 1)
    {:ok, %{cluster_id: old_cluster}} = cluster(a, :status, [store()])

    # 1 and 2. Stop the store on all nodes, and move the old directories away.
    for peer <- peers do
      :ok = cluster(peer, :stop, [store()])
      File.rename!(peer.dir, peer.dir <> ".old")
    end

    # 3. Restore on one node.
    {:ok, about} = call(a, Backup, :restore, [backup, a.dir, [store_id: store()]])
    assert about.entries == 50 and is_integer(about.time_ms)
    assert {:ok, _} = cluster(a, :start, [a.dir, store(), 30_000])

    # 4. Join the others to it.
    for peer <- [b, c] do
      assert {:ok, _} = cluster(peer, :start, [peer.dir, store(), 30_000])
      assert cluster(peer, :join, [store(), a.node, 30_000]) == :ok
    end

    # 5. Check.
    await_agreement(peers)

    for peer <- peers do
      {:ok, status} = cluster(peer, :status, [store()])
      assert {length(status.members), status.entries, status.alarms} == {3, 50, []}
      assert status.cluster_id != old_cluster
      assert list(peer) == Map.new(1..50, &{"k#{&1}", &1})
    end
  end

  # The guide says to stop the store on all nodes. Its former cluster cannot take leave of a member that cannot be outvoted.
  test "a member of the former cluster that joins the restored one is told whom that lacks", %{tmp_dir: dir} do
    [a, b, c] = peers = start_cluster(dir, 3)
    {:ok, _} = put(a, "k", 1)
    backup = Path.join(dir, "tank.backup")
    {:ok, _about} = call(a, Backup, :create, [store(), backup])
    await_agreement(peers)
    :ok = cluster(a, :stop, [store()])
    File.rename!(a.dir, a.dir <> ".old")
    {:ok, _about} = call(a, Backup, :restore, [backup, a.dir, [store_id: store()]])
    {:ok, _} = cluster(a, :start, [a.dir, store(), 30_000])

    eventually("the others to lead without it", fn -> match?({:ok, _}, put(b, "k", 2, 1_000)) end, 30_000)
    missing = {:error, {:tank, :members_missing, %{store_id: store(), nodes: [a.node]}}}
    assert cluster(c, :join, [store(), a.node, 8_000]) == missing
    # Nothing has changed.
    assert {get(c, "k"), get(a, "k")} == {{:ok, 2}, {:ok, 1}}

    # As the guide says.
    for peer <- [b, c] do
      :ok = cluster(peer, :stop, [store()])
      File.rename!(peer.dir, peer.dir <> ".old")
      {:ok, _} = cluster(peer, :start, [peer.dir, store(), 30_000])
      assert cluster(peer, :join, [store(), a.node, 30_000]) == :ok
    end

    await_agreement(peers)
    assert get(c, "k") == {:ok, 1}
  end

  # Booting a VM takes longer than all that a round does with stores: the nodes are booted once.
  defp rounds(dir, count) do
    nodes = start_nodes(dir, 4, store: false)

    Enum.reduce(1..count, nodes, fn round, nodes ->
      round_dir = Path.join(dir, "round#{round}")
      nodes = for node <- nodes, do: %{node | dir: Path.join(round_dir, Path.basename(node.dir))}
      nodes = round(round, round_dir, nodes)
      File.rm_rf!(round_dir)
      nodes
    end)
  end

  defp round(round, round_dir, [origin, a, b, c]) do
    # Small: the log is purged between the restore and the joins in some rounds.
    config = [snapshot_interval_entries: 50, log_retention_entries: 20, purge_batch: 10]
    file = Path.join(round_dir, "backup")
    expected = back_up(origin, file, config)
    :ok = cluster(origin, :stop, [store()])

    {:ok, %{entries: entries}} = call(a, Backup, :restore, [file, a.dir, [store_id: store()]])
    assert entries == map_size(expected)
    for peer <- [a, b, c], do: open_store(peer, config)
    expected = write_more(a, expected, config)
    for peer <- [b, c], do: assert(cluster(peer, :join, [store(), a.node, 30_000]) == :ok)
    if chance(), do: {:ok, _} = put(b, "joined", round)
    expected = if chance(), do: write(b, expected, 20), else: expected

    peers = [a, b, c]
    await_agreement(peers)
    leader = await_leader(peers)
    rest = peers -- [leader]
    back = lose(leader, round)

    eventually(
      "a write without the old leader",
      fn -> match?({:ok, _}, put(hd(rest), "later", round, 2_000)) end,
      30_000
    )

    await_agreement(rest)

    for peer <- rest do
      assert get(peer, "later") == {:ok, round}
      assert Map.drop(list(peer), ["later", "joined"]) == expected, "round #{round}, #{peer.node}"
      assert {:ok, %{alarms: []}} = cluster(peer, :status, [store()])
    end

    for peer <- rest, do: :ok = cluster(peer, :stop, [store()])
    leader = back.()
    Enum.map([origin, a, b, c], &if(&1.name == leader.name, do: leader, else: &1))
  end

  # Each fifth one dies; the others stop answering, as a node does whose machine hangs. Gives how to get it back without a
  # store.
  defp lose(leader, round) when rem(round, 5) == 1 do
    kill_node(leader)
    fn -> boot_again(leader) end
  end

  defp lose(leader, _round) do
    signal(leader, "STOP")

    fn ->
      signal(leader, "CONT")
      :ok = cluster(leader, :stop, [store()])
      leader
    end
  end

  defp back_up(origin, file, config) do
    open_store(origin, config)
    expected = write(origin, %{}, :rand.uniform(400))
    deleted = expected |> Map.keys() |> Enum.take_random(:rand.uniform(50))
    for name <- deleted, do: {:ok, _} = delete(origin, name)
    {:ok, _about} = call(origin, Backup, :create, [store(), file])
    # Written after the backup: not restored.
    {:ok, _} = put(origin, "too late", 1)
    Map.drop(expected, deleted)
  end

  defp write_more(peer, expected, config) do
    expected = if chance(), do: write(peer, expected, :rand.uniform(200)), else: expected

    if chance() do
      :ok = cluster(peer, :stop, [store()])
      open_store(peer, config)
    end

    expected
  end

  defp write(peer, expected, count) do
    for _number <- 1..count, into: expected do
      {name, value} = {"k#{:rand.uniform(500)}", :rand.bytes(:rand.uniform(2_000))}
      {:ok, _} = put(peer, name, value)
      {name, value}
    end
  end

  defp delete(peer, name), do: call(peer, Tank.Store.Tree, :delete, [store(), [:test, name]])

  defp open_store(peer, config),
    do: {:ok, _} = cluster(peer, :start, [peer.dir, Map.new([{:cluster_name, store()} | config]), 30_000])

  defp chance, do: :rand.uniform(2) == 1
end
