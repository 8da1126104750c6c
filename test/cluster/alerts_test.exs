defmodule Tank.Store.Cluster.AlertsTest do
  # Provokes each alert of ops/alerts.yml on real nodes, and follows guides/runbooks.md to a healthy store. Prometheus' own tool,
  # promtool, reads what Tank.Store.Metrics says and decides which rules fire.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Cluster, Metrics, Native, Ops, PromTool, Tree}

  @moduletag :tmp_dir
  @moduletag :promtool
  @moduletag timeout: 600_000

  if why = PromTool.missing() do
    @moduletag skip: why
    # ExUnit tells how many are skipped, not why.
    if :promtool in ExUnit.configuration()[:include], do: IO.puts(:stderr, "The alert rules are not tested: #{why}")
  end

  test "Prometheus accepts the rules", do: PromTool.check_rules!()

  test "each alert has a runbook, and a test that is named after it" do
    alerts = names(~r/- alert: (\w+)/, "ops/alerts.yml")
    assert alerts == names(~r/^## (TankStore\w+)$/m, "guides/runbooks.md")
    for alert <- alerts, do: assert(File.read!(__ENV__.file) =~ ~r/^  test ".*#{alert}\b/m, "no test is named #{alert}")
  end

  test "Prometheus accepts the text of a cluster that has worked", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    for n <- 1..50, do: {:ok, _} = put(hd(peers), "#{n}", n)
    for peer <- peers, do: PromTool.check_metrics!(scrape(peer))
  end

  test "TankStoreDiskFailed and TankStoreAlarm: a directory that is away, and is put back", %{tmp_dir: dir} do
    [peer] = start_cluster(dir, 1)
    assert firing(peer) == []
    File.rename!(peer.dir, peer.dir <> ".away")
    await_alarm(peer, :directory_lost, [])
    # The only member of a cluster does not lead it without its disk, so that those alerts come as well.
    assert ["TankStoreAlarm", "TankStoreDiskFailed"] -- firing(peer) == []

    # "Mend or mount the disk; it goes on by itself."
    File.rename!(peer.dir <> ".away", peer.dir)
    await_firing(peer, [])
    assert {:ok, _} = put(peer, "healthy", 1)
  end

  test "TankStoreOverloaded: more writes in flight than allowed, and then fewer", %{tmp_dir: dir} do
    # In this VM, where many can write at once.
    {:ok, id} = Cluster.start(dir, %{store_id: :overloaded, in_flight_max: 1}, 60_000)
    on_exit(fn -> Cluster.stop(id) end)
    before = Metrics.prometheus()
    options = [max_concurrency: 50, timeout: 60_000]
    results = 1..500 |> Task.async_stream(&Tree.put(id, ["#{&1}"], &1), options) |> Enum.frequencies_by(&elem(&1, 1))
    assert is_map_key(results, {:error, :overloaded}), inspect(results)
    assert "TankStoreOverloaded" in PromTool.firing([{before, Metrics.prometheus()}])

    # "Write less at a time."
    before = Metrics.prometheus()
    for n <- 1..20, do: assert({:ok, _} = Tree.put(id, ["#{n}"], n))
    assert PromTool.firing([{before, Metrics.prometheus()}]) == []
  end

  test "TankStoreForming: a node of the list is not up, and is started", %{tmp_dir: dir} do
    [first, second] = peers = start_nodes(dir, 2, store: false)
    nodes = Enum.map(peers, & &1.node)
    assert start_listed(first, nodes, timeout: 1_000) == {:error, :timeout}
    # The alarm names the node.
    await_alarm(first, :forming, [Atom.to_string(second.node)])
    assert "TankStoreForming" in firing(first)

    # "Start those."
    assert start_listed(second, nodes) == {:ok, store()}
    await_firing(peers, [])
    assert {:ok, _} = put(first, "healthy", 1)
  end

  test "TankStoreMemberUnreachable, TankStoreNoQuorum and TankStoreNoLeader: members that end, and come back",
       context do
    peers = start_cluster(context.tmp_dir, 3)
    leader = await_leader(peers)
    [gone, last] = peers -- [leader]

    kill_node(gone)
    await_firing(leader, ["TankStoreMemberUnreachable"])
    assert {:ok, _} = put(leader, "one is gone", 1)
    kill_node(last)
    await_firing(leader, ["TankStoreNoLeader", "TankStoreNoQuorum"])

    # "Start those nodes."
    peers = [leader | Enum.map([gone, last], &restart_node/1)]
    leader = await_leader(peers)
    await_firing(peers, [])
    assert get(leader, "one is gone") == {:ok, 1}
  end

  test "TankStoreMemberUnreachable: a member that is gone for good is removed", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [gone, _last] = peers -- [leader]
    kill_node(gone)
    await_firing(leader, ["TankStoreMemberUnreachable"])

    # "Tank.Store.Ops.remove_member/3"
    :ok = call(leader, Ops, :remove_member, [store(), gone.node])
    await_firing(leader, [])
    assert {:ok, _} = put(leader, "healthy", 1)
  end

  test "TankStoreNoLeader: not for followers alone; TankStoreNoQuorum: a node is cut off", %{
    tmp_dir: dir
  } do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [cut_off | _other] = followers = peers -- [leader]
    await_firing(followers, [])

    # A node that neither hears nor is heard. It goes on to name the leader that it knew.
    for peer <- peers -- [cut_off], do: true = call(cut_off, Tank.Store.ClusterCase, :local_cut, [peer.node])
    await_firing(cut_off, ["TankStoreNoQuorum"])
    # "Repair the network between them."
    for peer <- peers -- [cut_off], do: true = call(cut_off, Tank.Store.ClusterCase, :local_connect, [peer.node])
    await_firing(peers, [])
    assert {:ok, _} = put(cut_off, "healthy", 1)
  end

  test "TankStoreMemberLags and TankStoreSlowDisk: a disk that takes two seconds for a sync", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [slow, _fast] = peers -- [leader]
    :ok = call(slow, Native, :arm_fault, ["log_writer", "sleep(2000)"])
    writer = Task.async(fn -> fill_until(leader, &("TankStoreMemberLags" in &1)) end)
    await_firing(slow, ["TankStoreSlowDisk"], fn -> put(leader, "meanwhile", 1) end)
    :ok = Task.await(writer, 300_000)

    # "Move that program", which was the fault point.
    :ok = call(slow, Native, :arm_fault, ["log_writer", "off"])
    await_firing(peers, [], fn -> put(slow, "healthy", 1) end)
    await_agreement(peers)
  end

  test "TankStoreLeaderChanges: the leader is changed again and again, and then left alone", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    await_leader(peers)

    change = fn ->
      leader = await_leader(peers)
      [next | _other] = peers -- [leader]
      :ok = cluster(leader, :transfer_leader, [store(), next.node, 30_000])
    end

    await_firing(peers, ["TankStoreLeaderChanges"], change)
    await_firing(peers, [])
    assert {:ok, _} = put(hd(peers), "healthy", 1)
  end

  defp names(pattern, file), do: for([_all, name] <- Regex.scan(pattern, File.read!(file)), do: name) |> Enum.sort()

  # Writes thousands of entries, until what fires at the leader is enough.
  defp fill_until(leader, enough?, round \\ 1) do
    :ok = call(leader, Tank.Store.ClusterCase, :local_fill, ["#{round}", 4_000, 10], 300_000)

    cond do
      enough?.(firing(leader)) -> :ok
      round < 20 -> fill_until(leader, enough?, round + 1)
      true -> flunk("only #{inspect(firing(leader))} after #{round * 4_000} entries")
    end
  end

  defp scrape(peer), do: call(peer, Metrics, :prometheus, [])
  # Of all nodes that are up, as Prometheus scrapes them; `meanwhile` is called between two scrapes.
  defp firing(peers, meanwhile \\ fn -> :ok end) do
    peers = List.wrap(peers)
    before = Enum.map(peers, &scrape/1)
    meanwhile.()
    PromTool.firing(Enum.zip(before, Enum.map(peers, &scrape/1)))
  end

  # Rules have a `for:`, which the tool lets pass in no time: what is waited for is the metrics alone.
  defp await_firing(peers, alerts, meanwhile \\ fn -> :ok end) do
    eventually(
      "#{inspect(alerts)} to fire, and nothing else",
      fn ->
        found = firing(peers, meanwhile)
        if found == alerts, do: true, else: {:not_yet, found}
      end,
      60_000
    )
  end
end
