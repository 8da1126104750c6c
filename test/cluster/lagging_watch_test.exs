defmodule Tank.Store.Cluster.LaggingWatchTest do
  # Watches, `list_since` and projections on a member that was held up while the others wrote more than their log keeps:
  # its state is replaced under them by a snapshot.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Storm, Tree, Watch, WatchCollector}

  @moduletag :tmp_dir

  @about [[], [:storm, "a"], [:storm, :*, "x"]]

  setup %{tmp_dir: dir} do
    peers = start_cluster(dir, 3, config: [snapshot_interval_entries: 200, log_retention_entries: 50, purge_batch: 50])
    leader = await_leader(peers)
    [lagging, _other] = peers -- [leader]
    write(leader, 200)
    await_agreement(peers)
    {:ok, peers: peers, leader: leader, lagging: lagging, before: status(lagging).revision}
  end

  test "go on without a gap, since a snapshot brings the history", %{lagging: lagging, before: before} = cluster do
    for {about, n} <- Enum.with_index(@about),
        do: :ok = call(lagging, WatchCollector, :start, [:"lagging_#{n}", store(), about, before])

    :ok = call(lagging, WatchCollector, :follow, [:lagging, store(), before])
    held_up(cluster, fn -> write(cluster.leader, 1_000) end)
    {:ok, last} = put(cluster.leader, "last", 1)
    await_agreement(cluster.peers)
    # From the beginning: a collector also resumes some revisions before the one where it started.
    log = call(cluster.leader, WatchCollector, :history, [store(), 0, last])
    assert length(log) == last

    for {about, n} <- Enum.with_index(@about),
        {first, upto, seen} <- call(lagging, WatchCollector, :stop, [:"lagging_#{n}", last]),
        do: assert(seen == WatchCollector.filtered(log, about, first, upto))

    told = WatchCollector.filtered(log, [], before, last)

    eventually("the watch to come to the end", fn ->
      call(lagging, WatchCollector, :followed, [:lagging]) == {told, nil}
    end)

    changes = tree(cluster.leader, :list_since, [[], before])
    assert {:ok, [_ | _], ^last} = changes
    assert tree(lagging, :list_since, [[], before, [favor: :low_latency]]) == changes
    assert tree(lagging, :list_since, [[], last]) == :unchanged
    assert_projection(cluster)
  end

  test "say so when that was compacted", %{lagging: lagging, before: before} = cluster do
    :ok = call(lagging, WatchCollector, :follow, [:lagging, store(), before])

    held_up(cluster, fn ->
      write(cluster.leader, 500)
      :ok = tree(cluster.leader, :compact, [status(cluster.leader).revision])
      write(cluster.leader, 500)
    end)

    {seen, {:compacted, min}} =
      eventually("the watch to end", fn ->
        with {_seen, nil} <- call(lagging, WatchCollector, :followed, [:lagging]), do: nil
      end)

    # It ended before what it had not seen.
    assert min > before + length(seen)
    assert tree(lagging, :list_since, [[], before]) == {:error, {:compacted, min}}
    assert call(lagging, Watch, :start, [store(), [], [from: {:after, min - 1}]]) == {:error, {:compacted, min}}
    assert {:ok, %Watch{revision: ^min}} = call(lagging, Watch, :start, [store(), [], [from: {:after, min}]])
    assert_projection(cluster)
  end

  # What the table holds is what the leader has.
  defp assert_projection(%{lagging: lagging, leader: leader}) do
    {:ok, values, _revision} = tree(leader, :get_many, [[:**]])

    eventually("the projection to be current", fn ->
      Map.new(call(lagging, :ets, :tab2list, [:lagging])) == values
    end)
  end

  # Stops a member while `write` goes on. Afterwards it has the state of entries that never came into its log: by a
  # snapshot.
  defp held_up(%{leader: leader, lagging: lagging, peers: peers}, write) do
    before = status(lagging)
    signal(lagging, "STOP")
    write.()
    await_purge(leader, before.last_log_index)
    signal(lagging, "CONT")
    await_agreement(peers)
    later = status(lagging)
    assert later.log_entries - before.log_entries < later.applied_index - before.applied_index, "no snapshot was sent"
  end

  defp write(leader, count) do
    from = status(leader).revision
    :ok = call(leader, Storm, :start, [:storm, store(), [compact: false]])
    eventually("#{count} revisions", fn -> status(leader).revision >= from + count end, 60_000)
    call(leader, Storm, :stop, [:storm])
  end

  defp tree(peer, function, args), do: call(peer, Tree, function, [store() | args])

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end
end
