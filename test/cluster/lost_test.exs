defmodule Tank.Store.Cluster.LostTest do
  # The directory of one member of three is lost: the others serve, it answers nothing that was not so, and it comes back
  # when its directory does.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  for which <- [:leader, :follower] do
    test "the directory of the #{which} is moved away and back", %{tmp_dir: dir} do
      peers = start_cluster(dir, 3)
      leader = await_leader(peers)
      losing = if unquote(which) == :leader, do: leader, else: hd(peers -- [leader])
      others = [other | _] = peers -- [losing]
      {:ok, _} = put(losing, "before", 1)
      {:ok, %{member_id: member_id, cluster_id: cluster_id}} = cluster(losing, :status, [store()])

      File.rename!(losing.dir, losing.dir <> ".away")
      await_lost(losing, :missing)
      eventually("a write at another member", fn -> match?({:ok, _}, put(other, "during", 1, 300)) end)
      for peer <- others, do: assert({:ok, 1} = get(peer, "during"))

      for _try <- 1..20 do
        assert list(losing)["before"] == 1
        assert put(losing, "refused", 1) == {:error, {:lost, :missing}}
        assert {:error, reason} = get(losing, "before")
        assert reason == {:lost, :missing}
        refute File.exists?(losing.dir)
        Process.sleep(100)
      end

      File.rename!(losing.dir <> ".away", losing.dir)
      eventually("it to take writes again", fn -> match?({:ok, _}, put(losing, "after", 1, 1_000)) end)
      await_agreement(peers)
      assert list(losing)["during"] == 1
      assert {:ok, %{member_id: ^member_id, cluster_id: ^cluster_id, alarms: []}} = cluster(losing, :status, [store()])
    end
  end

  test "a member whose directory is removed founds no cluster of its own, whoever restarts it", %{tmp_dir: dir} do
    [a, b, c] = peers = start_cluster(dir, 3)
    for peer <- peers, do: {:ok, _} = put(peer, "of #{peer.node}", 1)
    await_agreement(peers)
    remove_dir(c.dir)

    # Its server, before and after that is noticed.
    for _restart <- 1..2 do
      server = call(c, Tank.Store.Server, :whereis, [store()])
      true = call(c, Process, :exit, [server, :kill])

      eventually("it to be started again, and to refuse", fn ->
        call(c, Tank.Store.Server, :whereis, [store()]) not in [nil, server] and
          put(c, "refused", 1) == {:error, {:lost, :missing}}
      end)

      assert {:error, {:lost, :missing}} = get(c, "of #{c.node}")
      assert list(c) == {:error, {:lost, :missing}}
      assert cluster(c, :status, [store()]) == {:error, {:lost, :missing}}
      refute File.exists?(c.dir)
    end

    for peer <- [a, b], do: assert({:ok, _} = put(peer, "meanwhile", 1))
  end

  defp await_lost(peer, what) do
    eventually("the member to say that its directory is lost", fn ->
      status = cluster(peer, :status, [store()])
      match?({:ok, %{failure: {:lost, ^what}, alarms: [directory_lost: _]}}, status) || {:not_yet, status}
    end)
  end
end
