defmodule Tank.Store.Cluster.FoundingPartitionTest do
  # What `forming: :majority` does in a network that is parted, and what it cannot know: guides/clustering.md.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.Network

  @moduletag :tmp_dir
  @moduletag :faults

  setup %{tmp_dir: dir} do
    network = Network.up(3)
    options = [host: &Network.address/1, exec: &Network.exec(network, &1), store: false]
    %{network: network, peers: start_nodes(dir, 3, options)}
  end

  # Each of the two is the first of those that it reaches, with the third one: a majority.
  test "of two that would found and do not reach each other, one does", %{network: network, peers: peers} do
    [first, second, third] = peers
    part(network, 1, 2)
    starting = start(peers)

    founder =
      eventually(
        "a cluster that takes writes",
        fn -> Enum.find([first, second], &match?({:ok, _}, put(&1, "k", 1, 1_000))) end,
        60_000
      )

    # It joins the founder meanwhile.
    eventually("the third one to serve", fn -> get(third, "k", 1_000) == {:ok, 1} end, 60_000)
    [other] = [first, second] -- [founder]
    assert put(other, "k", 2, 1_000) == {:error, :noproc}
    assert length(clusters(peers)) == 1
    Network.heal(network)
    assert Task.await_many(starting, 120_000) == List.duplicate({:ok, store()}, 3)
    assert get(other, "k", 20_000) == {:ok, 1}
    await_agreement(peers)
    assert [_one] = clusters(peers)
    for peer <- peers, do: assert({:ok, %{alarms: []}} = cluster(peer, :status, [store()]))
  end

  # The documented risk. With `forming: :all`, the two would wait.
  test "a majority that lost its disks founds a second cluster; when both meet they say so, and change nothing",
       context do
    %{network: network, peers: [first, second, third] = peers} = context
    assert peers |> start() |> Task.await_many(120_000) == List.duplicate({:ok, store()}, 3)
    {:ok, _} = put(first, "of the first cluster", 1)
    await_agreement(peers)
    [was] = clusters(peers)

    Network.isolate(network, 3)

    for peer <- [first, second] do
      :ok = cluster(peer, :stop, [store()])
      File.rm_rf!(peer.dir)
    end

    nodes = Enum.map(peers, & &1.node)
    starting = for peer <- [first, second], do: Task.async(fn -> start_listed(peer, nodes, forming: :majority) end)
    assert Task.await_many(starting, 120_000) == List.duplicate({:ok, store()}, 2)
    {:ok, _} = put(second, "of the second cluster", 2)
    [is] = clusters([first, second])
    assert is != was
    held = Map.new(peers, &{&1.node, list(&1)})

    Network.heal(network)
    for peer <- peers, do: await_alarm(peer, :other_cluster, ["#{was}", "#{is}", "Nothing was changed"])
    assert Map.new(peers, &{&1.node, list(&1)}) == held
    assert held[third.node] == %{"of the first cluster" => 1}
    assert held[first.node] == %{"of the second cluster" => 2}
    assert {clusters([first, second]), clusters([third])} == {[is], [was]}
    assert {:ok, _} = put(first, "later", 3)
    assert match?({:error, _no_quorum}, put(third, "later", 3, 1_000))
  end

  defp start(peers) do
    nodes = Enum.map(peers, & &1.node)
    for peer <- peers, do: Task.async(fn -> start_listed(peer, nodes, forming: :majority, timeout: 110_000) end)
  end

  defp part(network, one, other) do
    Network.cut(network, one, other)
    Network.cut(network, other, one)
  end

  # The clusters that the peers' stores are in; one that still waits is in none.
  defp clusters(peers) do
    for(peer <- peers, {:ok, %{cluster_id: id}} when id != nil <- [cluster(peer, :status, [store()])], do: id)
    |> Enum.uniq()
  end
end
