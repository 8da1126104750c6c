defmodule Tank.Store.Cluster.ThreeNodesTest do
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  test "every node writes, reads what was written anywhere, and lists its own writes at once", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    all = Enum.sort(for peer <- peers, do: {store(), peer.node})

    for peer <- peers, favor <- [:consistency, :low_latency] do
      assert cluster(peer, :members, [store(), [favor: favor]]) == {:ok, all}
      assert cluster(peer, :nodes, [store(), [favor: favor]]) == {:ok, Enum.map(all, &elem(&1, 1))}
    end

    for {peer, value} <- Enum.with_index(peers) do
      assert {:ok, _revision} = put(peer, "a", value)
      assert list(peer)["a"] == value
      for reader <- peers, do: assert(get(reader, "a") == {:ok, value})
    end

    await_agreement(peers)
  end
end
