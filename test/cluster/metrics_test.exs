defmodule Tank.Store.Cluster.MetricsTest do
  # Each metric that Tank.Store.Metrics documents says something else than 0 once what it counts or shows has happened.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{ClusterCase, Metrics, Native, Tree}

  @moduletag :tmp_dir

  test "each documented metric is provoked", %{tmp_dir: dir} do
    peers =
      start_cluster(dir, 3,
        config: [log_retention_entries: 50, snapshot_interval_entries: 200, purge_batch: 50, in_flight_max: 100_000]
      )

    leader = await_leader(peers)
    [away, other] = peers -- [leader]
    {:ok, _revision} = put(leader, "k", 1)
    {:ok, 1} = get(away, "k")

    # A member that is away, lags, and gets a snapshot.
    {:ok, before} = cluster(away, :status, [store()])
    signal(away, "STOP")
    # Writes wait for the disk, and are seen.
    :ok = call(leader, Native, :arm_fault, ["log_writer", "sleep(300)"])
    filling = Task.async(fn -> call(leader, ClusterCase, :local_fill, ["fill", 3_000, 10]) end)
    seen = see(MapSet.new(), [leader, other], ~w(member_lag_entries in_flight_writes))
    :ok = call(leader, Native, :arm_fault, ["log_writer", "off"])
    Task.await(filling, 120_000)
    await_purge(leader, before.last_log_index)
    signal(away, "CONT")
    seen = see(seen, peers, ~w(snapshots_received_total member_reachable checkpoint_duration_seconds))

    # A watch that nobody reads, and frames of strangers.
    call(leader, ClusterCase, :local_idle_watch, [[:watched]])
    for n <- 1..50, do: {:ok, _revision} = call(leader, Tree, :put, [store(), [:watched], n])
    {:ok, %{cluster_id: cluster_id, member_id: member_id}} = cluster(leader, :status, [store()])
    foreign = <<2, 0, cluster_id + 1::64, 7::64, member_id::64, 3::64, 1::64, 0::64, 0::64, 0::32, 0::64, 0::32>>

    for frame <- [<<>>, foreign],
        do:
          call(other, :erlang, :send, [{:tank_store_inbox_cluster_test, leader.node}, {:tank_frame, other.node, frame}])

    seen = see(seen, peers, ~w(watches_lagged_total malformed_frames_total foreign_frames_total))

    :ok = cluster(leader, :transfer_leader, [store(), other.node, 30_000])
    seen = see(seen, peers, ~w(leader_changes_total))

    # A directory that is away.
    File.rename!(away.dir, away.dir <> ".away")
    seen = see(seen, [away], ~w(failed alarm))
    File.rename!(away.dir <> ".away", away.dir)

    for peer <- [leader, away], do: kill_node(peer)
    seen = see(seen, [other], ~w(quorum_losses_total))

    assert Enum.sort(documented()) -- Enum.sort(seen) == []
  end

  # Adds what is not 0 anywhere, once all of `names` are not.
  defp see(seen, peers, names) do
    eventually(
      "#{inspect(names)} to be other than 0",
      fn ->
        found = for peer <- peers, name <- peer |> call(Metrics, :prometheus, []) |> not_zero(), into: seen, do: name
        missing = Enum.reject(names, &(&1 in found))
        if missing == [], do: found, else: {:not_yet, missing}
      end,
      60_000
    )
  end

  defp not_zero(text) do
    for [_all, name, value] <- Regex.scan(~r/^tank_store_([a-z_]+)\{.*\} (\S+)$/m, text),
        value not in ["0", "0.0"],
        do: String.replace(name, ~r/_(bucket|sum|count)$/, "")
  end

  defp documented do
    {:docs_v1, _line, _language, _format, %{"en" => doc}, _meta, _functions} = Code.fetch_docs(Metrics)
    for [row] <- Regex.scan(~r/^\| `[^|]+/m, doc), [_all, name] <- Regex.scan(~r/`([a-z_]+)`/, row), do: name
  end
end
