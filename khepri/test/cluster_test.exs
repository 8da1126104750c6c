defmodule Khepri.ClusterTest do
  # Three nodes: joining, writing anywhere, projections everywhere, losing the leader, leaving.
  use ExUnit.Case, async: false
  import Khepri.StoreCase, only: [eventually: 1]

  alias Khepri.Peers

  @moduletag timeout: 180_000
  @store :khepri_cluster_test

  setup do
    Peers.start_distribution()
    peers = for {peer, node, _dir} <- Peers.start_cluster(@store, 3), do: {peer, node}
    %{peers: peers, nodes: Enum.map(peers, &elem(&1, 1))}
  end

  defp on(node, module, function, args), do: :erpc.call(node, module, function, args)

  test "all of it", %{peers: peers, nodes: [one, two, three] = nodes} do
    for node <- nodes, favor <- [:consistency, :low_latency] do
      assert on(node, :khepri_cluster, :nodes, [@store, %{favor: favor}]) == {:ok, Enum.sort(nodes)}
    end

    # A row is there when the write on that node returns, and on the others a moment later.
    projection = on(two, :khepri_projection, :new, [:cluster_rows, :copy])
    assert on(two, :khepri, :register_projection, [@store, "/:rows/*", projection]) == :ok
    assert on(three, :khepri, :put, [@store, [:rows, "a"], {:a, 1}]) == :ok
    eventually(fn -> on(three, :ets, :whereis, [:cluster_rows]) != :undefined end)
    assert on(three, :khepri, :put, [@store, [:rows, "b"], {:b, 1}]) == :ok
    assert on(three, :ets, :lookup, [:cluster_rows, :b]) == [b: 1]
    for node <- nodes, do: eventually(fn -> on(node, :ets, :info, [:cluster_rows, :size]) == 2 end)
    assert on(one, :khepri, :get, [@store, [:rows, "b"], %{favor: :consistency}]) == {:ok, {:b, 1}}

    # Each member's transactions, and none is lost.
    count = [@store, &Khepri.StoreCase.count/0, [], :rw, %{timeout: 30_000}]
    :ok = on(one, :khepri, :put, [@store, [:counter], 0])

    callers =
      for node <- nodes,
          do: Task.async(fn -> for _ <- 1..20, do: {:ok, :ok} = on(node, :khepri, :transaction, count) end)

    Task.await_many(callers, 60_000)
    assert on(two, :khepri, :get, [@store, [:counter], %{favor: :consistency}]) == {:ok, 60}

    # The leader is lost: the others go on.
    {:ok, leader} = on(one, Tank.Store.Cluster, :leader, [@store])
    {pid, ^leader} = List.keyfind(peers, leader, 1)
    Process.unlink(pid)
    :peer.stop(pid)
    [a, b] = nodes -- [leader]
    assert on(a, :khepri, :put, [@store, [:after], 1, %{timeout: 20_000}]) == :ok
    assert on(b, :khepri, :get, [@store, [:after], %{favor: :consistency}]) == {:ok, 1}
    assert {:ok, [_, _, _]} = on(a, :khepri_cluster, :members, [@store])

    # What RabbitMQ asks Ra for to forget a dead node.
    leave = {:leader_call, {:command, :normal, {:"$ra_leave", {@store, leader}, :after_log_append}}}
    assert {:ok, _any, {@store, ^a}} = GenServer.call({@store, a}, leave, 20_000)
    assert on(b, :khepri_cluster, :nodes, [@store]) == {:ok, Enum.sort([a, b])}

    # Reads without a quorum, and writes that say so in time.
    {pid, ^b} = List.keyfind(peers, b, 1)
    Process.unlink(pid)
    :peer.stop(pid)
    assert on(a, :khepri, :get, [@store, [:after]]) == {:ok, 1}
    # Until then, the lease of the leader holds.
    eventually(fn ->
      on(a, :khepri, :get, [@store, [:after], %{favor: :consistency, timeout: 500}]) == {:error, :timeout}
    end)

    assert on(a, :khepri, :transaction, [@store, &Khepri.StoreCase.read/0]) == {:ok, {:ok, 1}}
    assert on(a, :khepri, :put, [@store, [:x], 1, %{timeout: 500}]) == {:error, :timeout}
    assert on(a, :khepri, :reset, [@store, 500]) == {:error, :timeout}
    unknown = {:khepri, :failed_to_join_remote_khepri_node, %{store_id: @store, node: :nobody@nowhere}}
    assert on(a, :khepri_cluster, :join, [@store, :nobody@nowhere, 500]) == {:error, unknown}
  end
end
