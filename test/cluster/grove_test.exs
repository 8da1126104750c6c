defmodule Tank.Store.Cluster.GroveTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.GroveCounter, as: Counter

  @moduletag :tmp_dir
  @group {:counter, "views"}

  test "replicas on three nodes that save the same group lose no increment", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    await_leader(peers)

    peers
    |> Enum.with_index()
    |> Enum.map(fn {peer, number} ->
      Task.async(fn -> call(peer, Counter, :local_replica, [store(), @group, number, 30]) end)
    end)
    |> Task.await_many(120_000)

    for peer <- peers do
      assert {:ok, state} = call(peer, Counter, :local_call, [store(), :load, [@group]])
      assert state == %Counter{counts: %{0 => 30, 1 => 30, 2 => 30}}
    end
  end

  test "without a majority a save is an error in time, the old state stays, and restarts keep it", %{tmp_dir: dir} do
    [one, two, three] = peers = start_cluster(dir, 3)
    await_leader(peers)
    # Atoms that a node knows only from the state.
    state = %{:"only_in_the_state_#{System.pid()}" => MapSet.new([:a])}
    :ok = call(one, Counter, :local_call, [store(), :save, [@group, state]])
    for peer <- [two, three], do: kill_node(peer)

    for {function, args} <- [save: [@group, :new], load: [@group], delete: [@group], list_groups: []] do
      {us, answer} = :timer.tc(fn -> call(one, Counter, :local_call, [store(), function, args, 500]) end)
      assert {:error, reason} = answer
      assert reason in [:no_quorum, :timeout]
      # Half a second, and what a busy machine adds to it.
      assert us < 4_000_000, "#{function} took #{div(us, 1_000)} ms"
    end

    kill_node(one)
    restarted = Enum.map([two, three], &restart_node/1)
    await_leader(restarted)

    for peer <- restarted do
      assert call(peer, Counter, :local_call, [store(), :load, [@group]]) == {:ok, state}
      assert call(peer, Counter, :local_call, [store(), :list_groups, []]) == {:ok, [@group]}
    end
  end
end
