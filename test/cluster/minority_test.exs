defmodule Tank.Store.Cluster.MinorityTest do
  # Two of three are down, and everything is at its defaults: the store is Tank.Store's, timeouts are 5 seconds.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  # A call may end a moment after its timeout on a machine that has other things to do.
  @in_time_ms 5_500

  test "every call ends in time with a named error, and the survivor goes on when it is told to", %{tmp_dir: dir} do
    [a, b, c] = peers = start_nodes(dir, 3, store: false)
    for peer <- peers, do: :ok = call(peer, Tank.Store.ClusterCase, :local_start_tank, [peer.dir])
    for peer <- [b, c], do: :ok = call(peer, Tank.Store.Cluster, :join, [a.node])
    pod = pod("web")
    assert call(b, Tank.Store, :put_pod, [pod]) == :ok
    for peer <- peers, do: assert(get_pod(peer, "web") == {:ok, pod})
    for peer <- [b, c], do: kill_node(peer)

    # For a moment the leader may rest on its lease, and rightly so.
    eventually("the quorum to be lost", fn ->
      match?({:ok, %{quorum: false}}, call(a, Tank.Store.Cluster, :status, []))
    end)

    # All at once: each of them waits for its whole timeout.
    [
      fn -> call(a, Tank.Store, :put_pod, [pod("later")]) end,
      fn -> get_pod(a, "web") end,
      fn -> call(a, Tank.Store.Cluster, :members, [[favor: :consistency]]) end,
      fn -> call(a, Tank.Store.Cluster, :nodes, []) end,
      fn -> call(a, Tank.Store.Cluster, :remove_member, [:tank, b.node]) end,
      fn -> call(a, Tank.Store.Cluster, :transfer_leader, [:tank, b.node]) end,
      fn -> call(a, Tank.Store.Cluster, :wait_for_leader, []) end,
      fn -> call(a, Tank.Store.Cluster, :reset, []) end
    ]
    |> Enum.map(fn call -> Task.async(fn -> in_time(call) end) end)
    |> Task.await_many(60_000)
    |> Enum.with_index(fn result, number ->
      # Of a write or a read it may be known that it came to nothing; about members, a timeout says it all.
      assert result == {:error, :timeout} or (number < 2 and result == {:error, :no_quorum}),
             "call #{number}: #{inspect(result)}"
    end)

    # What is known is answered at once, and nothing of the above has changed it.
    assert pod in call(a, Tank.Store, :list_pods, [])
    assert {:ok, [_, _, _]} = call(a, Tank.Store.Cluster, :members, [[favor: :low_latency]])
    assert {:ok, %{quorum: false}} = call(a, Tank.Store.Cluster, :status, [])

    assert in_time(fn -> call(a, Tank.Store.Cluster, :force_new_cluster, [:tank]) end) == :ok
    assert get_pod(a, "web") == {:ok, pod}
    assert call(a, Tank.Store, :put_pod, [pod("later")]) == :ok
    assert call(a, Tank.Store.Cluster, :nodes, []) == {:ok, [a.node]}
  end

  # It raises what it has no room to return.
  defp get_pod(peer, name), do: call(peer, Tank.Store.ClusterCase, :local_get_pod, [name])

  defp in_time(call) do
    {microseconds, result} = :timer.tc(call)
    assert div(microseconds, 1000) < @in_time_ms, "took #{div(microseconds, 1000)} ms: #{inspect(result)}"
    result
  end
end
