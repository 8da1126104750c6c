defmodule Tank.Store.Cluster.LeaderTest do
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  test "kill -9 of the leader under writers: what was acknowledged is there, and writes go on soon", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    survivors = peers -- [leader]

    for {peer, number} <- Enum.with_index(survivors),
        do: :ok = call(peer, Tank.Store.ClusterCase, :start_writer, ["w#{number}"])

    Process.sleep(500)
    killed_at = System.os_time(:millisecond)
    kill_node(leader)
    Process.sleep(3_000)

    written =
      for {peer, number} <- Enum.with_index(survivors) do
        {number, call(peer, Tank.Store.ClusterCase, :stop_writer, ["w#{number}"])}
      end

    for {number, %{acknowledged: acknowledged, errors: errors}} <- written do
      times = acknowledged |> Enum.map(&elem(&1, 1)) |> Enum.filter(&(&1 > killed_at)) |> Enum.sort()
      gap = [killed_at | times] |> Enum.chunk_every(2, 1, :discard) |> Enum.map(fn [a, b] -> b - a end) |> Enum.max()
      IO.puts("writer #{number}: #{length(acknowledged)} acknowledged, longest pause after the kill #{gap} ms")
      assert times != []
      assert errors == []
    end

    for peer <- survivors do
      {:ok, _} = get(peer, "w0-0")
      held = list(peer)

      for {number, %{acknowledged: acknowledged}} <- written,
          {n, _at} <- acknowledged,
          do: assert(held["w#{number}-#{n}"] == n)
    end

    # It comes back, and catches up.
    back = restart_node(leader)
    await_agreement([back | survivors])
    for peer <- [back | survivors], do: assert({:ok, _} = put(peer, "after", 1))
  end

  test "in a minority: writes and reads fail in time, and what is known is still answered", %{tmp_dir: dir} do
    [a, b, c] = start_cluster(dir, 3)
    {:ok, _} = put(a, "k", 1)
    all = Enum.sort([a.node, b.node, c.node])
    for peer <- [b, c], do: kill_node(peer)

    for call <- [&put(a, "k", 2, &1), &get(a, "k", &1), &cluster(a, :members, [store(), &1])] do
      {microseconds, result} = :timer.tc(fn -> call.(1_000) end)
      assert match?({:error, reason} when reason in [:no_quorum, :timeout], result)
      assert microseconds < 1_500_000
    end

    assert list(a)["k"] in [1, 2]
    assert cluster(a, :nodes, [store(), [favor: :low_latency]]) == {:ok, all}
    assert cluster(a, :locally_known_nodes, [store()]) == {:ok, all}
    assert cluster(a, :wait_for_leader, [store(), 500]) == {:error, :timeout}

    # A majority again.
    b = restart_node(b)
    assert {:ok, _} = put(b, "k", 3)
    assert get(a, "k") == {:ok, 3}
  end

  test "leadership moves when it is told to, and when the leader's store stops", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [next, third] = peers -- [leader]
    assert cluster(third, :transfer_leader, [store(), next.node]) == :ok
    assert await_leader(peers) == next
    assert {:ok, _} = put(leader, "k", 1)
    started = System.monotonic_time(:millisecond)
    :ok = cluster(next, :stop, [store()])
    assert {:ok, _} = put(third, "k", 2)
    IO.puts("a clean stop of the leader and the next write: #{System.monotonic_time(:millisecond) - started} ms")
    assert {:ok, _} = cluster(next, :start, [next.dir, store()])
    assert cluster(next, :wait_for_leader, [store(), 10_000]) == :ok
    assert cluster(third, :wait_for_leader, [{store(), next.node}, 10_000]) == :ok
    assert cluster(third, :wait_for_leader, [{:other_store, next.node}, 1_000]) == {:error, :noproc}
    assert cluster(third, :wait_for_leader, [{store(), :"nobody@127.0.0.1"}, 500]) == {:error, :nodedown}
    assert get(next, "k") == {:ok, 2}
  end

  test "waiting for a leader gives what the other node said last, though its last answer is late", %{tmp_dir: dir} do
    [asking, asked] = start_cluster(dir, 2)
    wait = fn store_id -> cluster(asking, :wait_for_leader, [{store_id, asked.node}, 3_000]) end
    waiting = Task.async(fn -> wait.(:other_store) end)
    # The first answer is due after half of the time, the second one after three quarters of it.
    Process.sleep(2_000)
    signal(asked, "STOP")
    assert Task.await(waiting) == {:error, :noproc}
    assert wait.(store()) == {:error, :timeout}
    signal(asked, "CONT")
    assert wait.(store()) == :ok
  end

  test "a survivor of a lost quorum goes on alone, when it is told to, and grows again", %{tmp_dir: dir} do
    [a, b, c] = peers = start_cluster(dir, 3)
    for n <- 1..20, do: {:ok, _} = put(a, "k#{n}", n)
    # Two of them were enough for the last write.
    await_agreement(peers)
    assert {:error, {:tank, :quorum_is_there, %{}}} = cluster(a, :force_new_cluster, [store()])
    for peer <- [b, c], do: kill_node(peer)
    assert cluster(a, :force_new_cluster, [store(), [timeout: 4_000]]) == :ok
    assert {:ok, _} = put(a, "k1", :alone)
    assert cluster(a, :nodes, [store()]) == {:ok, [a.node]}
    for n <- 2..20, do: assert(get(a, "k#{n}") == {:ok, n})

    # One of the lost comes back as what it was. Nobody is left who could let it go, and it says so, long before its
    # time is over.
    b = restart_node(b)
    gone_on = {:error, {:tank, :members_in_another_cluster, %{store_id: store(), nodes: [a.node]}}}

    for {function, args} <- [reset: [store(), 60_000], join: [store(), a.node, 60_000]] do
      {microseconds, result} = :timer.tc(fn -> cluster(b, function, args) end)
      assert result == gone_on
      assert microseconds < 10_000_000
      # It learns from a leader only that the last one is committed, too.
      assert list(b)["k19"] == 19
    end

    assert cluster(b, :force_new_cluster, [store(), [timeout: 4_000]]) == :ok
    assert cluster(b, :join, [store(), a.node, 30_000]) == :ok
    assert get(b, "k1") == {:ok, :alone}
    await_agreement([a, b])
  end

  test "subscribers hear of leaders, members and the quorum", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [other, third] = peers -- [leader]
    :ok = call(other, Tank.Store.ClusterCase, :start_subscriber, [])
    kill_node(leader)
    heard = fn -> call(other, Tank.Store.ClusterCase, :heard, []) end
    all = Enum.sort(for peer <- peers, do: {store(), peer.node})
    assert eventually("the first state", fn -> {:members, all} in heard.() and {:quorum, :ok} in heard.() end)

    new =
      eventually("another leader", fn ->
        Enum.find_value(heard.(), fn event ->
          match?({:leader, node, _term} when node not in [nil, leader.node], event) and elem(event, 1)
        end)
      end)

    assert new in [other.node, third.node]
    kill_node(third)
    assert eventually("the quorum to be lost", fn -> {:quorum, :lost} in heard.() end)
  end
end
