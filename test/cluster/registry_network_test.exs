defmodule Tank.Store.Cluster.RegistryNetworkTest do
  # The registry on a network that loses everything without a word, where nodes notice by silence alone. Needs root.
  use Tank.Store.RegistryCase, async: false

  alias Tank.Store.Network

  @moduletag :faults

  test "rows go when a node is silent, and return when it is heard again, once each", %{tmp_dir: dir} do
    network = Network.up(2)
    options = [store: false, host: &Network.address/1, exec: &Network.exec(network, &1)]
    [one, two] = peers = start_nodes(dir, 2, options)
    # A minute by default.
    for peer <- peers, do: :change_initiated = call(peer, :net_kernel, :set_net_ticktime, [4, 0])
    connect_all(peers)
    for peer <- peers, do: start_store_on(peer, :app)
    await_listed(peers, app: one, app: two)
    for peer <- peers, do: start_listener(peer)

    Network.isolate(network, 1)
    await_listed([one], app: one)
    await_listed([two], app: two)
    :ok = call(two, Tank.Store.Cluster, :stop, [:app])
    start_store_on(two, :new)

    Network.heal(network)
    connect(one, two)
    await_listed(peers, app: one, new: two)

    assert Enum.drop(heard(one), 2) == [{:retired, :app, two.node}, {:announced, :new, two.node}]
    assert for({type, _id, node} <- Enum.drop(heard(two), 2), node == one.node, do: type) == [:retired, :announced]
    for peer <- peers, do: assert_consistent(heard_rows(peer))
  end
end
