defmodule Tank.Store.Cluster.FormationTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterCase

  @moduletag :tmp_dir

  defp start(peer, nodes, timeout \\ 30_000),
    do: cluster(peer, :start, [peer.dir, %{cluster_name: store(), cluster: nodes}, timeout])

  defp one_cluster(peers) do
    all = peers |> Enum.map(& &1.node) |> Enum.sort()
    for peer <- peers, do: assert(cluster(peer, :nodes, [store()]) == {:ok, all})
    ids = for peer <- peers, do: elem(cluster(peer, :status, [store()]), 1).cluster_id
    assert length(Enum.uniq(ids)) == 1
  end

  test "all at once, and after a restart of all", %{tmp_dir: dir} do
    peers = start_nodes(dir, 3, store: false)
    nodes = Enum.map(peers, & &1.node)
    at_once = fn -> peers |> Enum.map(&Task.async(fn -> start(&1, nodes) end)) |> Task.await_many(60_000) end
    assert at_once.() == List.duplicate({:ok, store()}, 3)
    one_cluster(peers)
    {:ok, _} = put(hd(peers), "k", 1)
    for peer <- peers, do: :ok = cluster(peer, :stop, [store()])
    assert at_once.() == List.duplicate({:ok, store()}, 3)
    for peer <- peers, do: assert(cluster(peer, :wait_for_leader, [store()]) == :ok)
    one_cluster(peers)
    assert get(List.last(peers), "k") == {:ok, 1}
  end

  # A freshly booted member is no cluster, and whoever comes when makes no second one.
  for {rounds, tags} <- [{4, []}, {60, [:long]}] do
    for tag <- tags, do: @tag(tag)
    @tag timeout: 1_200_000

    test "#{rounds} times in random order and at random moments: never two clusters", %{tmp_dir: dir} do
      peers = start_nodes(dir, 3, store: false)
      for peer <- peers, do: :ok = call(peer, ClusterCase, :put_nodes, [Enum.map(peers, & &1.node)])

      for _round <- 1..unquote(rounds) do
        peers
        |> Enum.shuffle()
        |> Enum.map(fn peer ->
          Task.async(fn ->
            Process.sleep(Enum.random([0, 0, Enum.random(1..400)]))
            # The list may be a function's.
            start(peer, &ClusterCase.get_nodes/0)
          end)
        end)
        |> Task.await_many(60_000)
        |> Enum.each(&assert &1 == {:ok, store()})

        one_cluster(peers)

        for peer <- peers do
          :ok = cluster(peer, :stop, [store()])
          File.rm_rf!(peer.dir)
        end
      end
    end
  end

  test "one after the other, the first node last; alone, nobody founds", %{tmp_dir: dir} do
    [first | others] = peers = dir |> start_nodes(3, store: false) |> Enum.sort_by(& &1.node)
    nodes = Enum.map(peers, & &1.node)
    kill_node(hd(others))
    assert {:error, reason} = start(List.last(others), nodes, 1_500)
    assert reason == :timeout or match?({:tank, :no_cluster_formed, %{}}, reason)

    waiting = Task.async(fn -> start(List.last(others), nodes) end)
    assert start(first, nodes) == {:ok, store()}
    assert Task.await(waiting, 60_000) == {:ok, store()}
    one_cluster([first, List.last(others)])
  end

  test "what holds data of its own does not join by itself", %{tmp_dir: dir} do
    [first, second] = dir |> start_nodes(2, store: false) |> Enum.sort_by(& &1.node)
    {:ok, _} = cluster(second, :start, [second.dir, store()])
    {:ok, _} = put(second, "mine", 1)
    nodes = [first.node, second.node]
    assert start(first, nodes) == {:ok, store()}
    assert {:error, {:tank, :holds_data, %{}}} = start(second, nodes)
    assert get(second, "mine") == {:ok, 1}
  end
end
