defmodule Tank.Store.Cluster.JoinTest do
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  defp members(peer, favor \\ :consistency) do
    {:ok, nodes} = cluster(peer, :nodes, [store(), [favor: favor]])
    nodes
  end

  defp member_ids(peer) do
    {:ok, %{members: members}} = cluster(peer, :status, [store()])
    Map.new(members, &{&1.node, &1.member_id})
  end

  defp nodes(peers), do: peers |> Enum.map(& &1.node) |> Enum.sort()

  describe "join" do
    test "erases the local data, and takes the cluster's over", %{tmp_dir: dir} do
      [a, b] = start_nodes(dir, 2)
      {:ok, _} = put(a, "of a", 1)
      {:ok, _} = put(b, "of b", 2)
      assert cluster(b, :join, [{store(), a.node}, 30_000]) == :ok
      assert get(b, "of a") == {:ok, 1}
      assert get(b, "of b") == {:error, :not_found}
      assert members(a) == nodes([a, b])
      refute Enum.any?(File.ls!(b.dir), &String.starts_with?(&1, "."))
    end

    test "its own node: nothing happens", %{tmp_dir: dir} do
      [a] = start_nodes(dir, 1)
      {:ok, _} = put(a, "k", 1)
      assert cluster(a, :join, [store(), a.node]) == :ok
      assert get(a, "k") == {:ok, 1}
    end

    test "with what cannot be joined: named errors, and data and members stay", %{tmp_dir: dir} do
      [a, b] = start_nodes(dir, 2)
      {:ok, _} = put(a, "k", 1)
      nowhere = :"nobody@127.0.0.1"

      assert cluster(a, :join, [store(), nowhere]) ==
               {:error, {:tank, :failed_to_join_remote_node, %{store_id: store(), node: nowhere}}}

      assert cluster(a, :join, [:not_started, b.node]) ==
               {:error, {:tank, :not_a_tank_store, %{store_id: :not_started}}}

      :ok = cluster(b, :stop, [store()])
      assert cluster(a, :join, [store(), b.node]) == {:error, :noproc}
      assert {get(a, "k"), members(a)} == {{:ok, 1}, [a.node]}
    end

    test "a cluster that has lost its quorum: a timeout in time, and the data stays", %{tmp_dir: dir} do
      [a, b, c] = start_nodes(dir, 3)
      :ok = cluster(b, :join, [store(), a.node])
      kill_node(b)
      {:ok, _} = put(c, "k", 1)
      {microseconds, result} = :timer.tc(fn -> cluster(c, :join, [store(), a.node, 1_500]) end)
      assert result == {:error, :timeout}
      assert microseconds < 2_000_000
      assert {get(c, "k"), members(c)} == {{:ok, 1}, [c.node]}
    end

    test "again, as a member: leaves, is wiped, and comes in anew", %{tmp_dir: dir} do
      [a, b, c] = peers = start_cluster(dir, 3)
      {:ok, _} = put(a, "k", 1)
      before = cluster(a, :status, [store()])
      assert cluster(b, :join, [store(), c.node, 30_000]) == :ok
      # The leader too.
      leader = await_leader(peers)
      other = Enum.find(peers, &(&1 != leader))
      assert cluster(leader, :join, [store(), other.node, 30_000]) == :ok
      for peer <- peers, do: assert({members(peer), get(peer, "k")} == {nodes(peers), {:ok, 1}})
      {:ok, %{members: was}} = before
      {:ok, %{members: is}} = cluster(a, :status, [store()])
      ids = fn members -> for member <- members, do: {member.node, member.member_id} end
      assert length(ids.(was) -- ids.(is)) == 2, "two members have new ids"
    end

    test "a wiped node comes back under its name", %{tmp_dir: dir} do
      [a, b, c] = peers = start_cluster(dir, 3)
      {:ok, _} = put(a, "k", 1)
      was = member_ids(a)
      kill_node(b)
      File.rm_rf!(b.dir)
      b = restart_node(b)
      assert get(b, "k") == {:error, :not_found}
      assert members(b) == [b.node]
      assert cluster(b, :join, [store(), c.node, 30_000]) == :ok
      assert get(b, "k") == {:ok, 1}
      assert members(b) == nodes(peers)
      # A new id: what its former self has voted for or acknowledged counts no more.
      is = member_ids(a)
      assert {map_size(was), map_size(is)} == {3, 3}
      assert for({node, id} <- is, was[node] != id, do: node) == [b.node]
      await_agreement([a, b, c])
    end

    test "that runs out of time at any moment harms neither side", %{tmp_dir: dir} do
      [a, b] = start_nodes(dir, 2)
      {:ok, _} = put(a, "k", "of a")

      results =
        for round <- 1..40 do
          # From surely too short to surely enough.
          result = cluster(b, :join, [store(), a.node, 10 + rem(round * 37, 400)])

          eventually(
            "the joining store to answer",
            fn -> match?({:ok, _}, put(b, "r#{round}", round, 1_000)) end,
            20_000
          )

          eventually(
            "the joined store to answer",
            fn -> match?({:ok, _}, put(a, "r#{round}", round, 1_000)) end,
            20_000
          )

          all = members(b)
          assert all == [b.node] or all == nodes([a, b])
          if all == nodes([a, b]), do: assert(get(b, "k") == {:ok, "of a"})
          if result == :ok, do: assert(all == nodes([a, b]))

          if length(all) == 2 do
            assert cluster(b, :reset, [store(), 10_000]) == :ok
            assert cluster(b, :start, [b.dir, store()]) == {:ok, store()}
          end

          result
        end

      IO.inspect(Enum.frequencies(results), label: "joins")
      assert members(a) == [a.node]
    end

    test "of two nodes to each other at once: both end in time, and no data is lost with an error", %{tmp_dir: dir} do
      [a, b] = start_nodes(dir, 2)
      {:ok, _} = put(a, "k", 1)
      {:ok, _} = put(b, "k", 1)

      results =
        [{a, b}, {b, a}]
        |> Enum.map(fn {from, to} -> Task.async(fn -> cluster(from, :join, [store(), to.node, 3_000]) end) end)
        |> Task.await_many(20_000)

      for {peer, result} <- Enum.zip([a, b], results), result != :ok do
        assert match?({:error, _}, result)
        assert eventually("the store of #{peer.node} to answer", fn -> get(peer, "k") == {:ok, 1} end)
      end

      if :ok in results, do: for(peer <- [a, b], do: assert(members(peer) == nodes([a, b])))
    end
  end

  describe "reset" do
    test "leaves the others as a cluster without it, and the directory empty", %{tmp_dir: dir} do
      [_, _, _] = peers = start_cluster(dir, 3)
      leader = await_leader(peers)
      {:ok, _} = put(leader, "k", 1)
      assert cluster(leader, :reset, [store(), 20_000]) == :ok
      rest = peers -- [leader]
      for peer <- rest, do: assert({members(peer), get(peer, "k")} == {nodes(rest), {:ok, 1}})
      assert get(leader, "k") == {:error, :noproc}
      assert cluster(leader, :start, [leader.dir, store()]) == {:ok, store()}
      assert get(leader, "k") == {:error, :not_found}
      assert members(leader) == [leader.node]
    end

    test "without a quorum: a timeout in time, and the store runs on", %{tmp_dir: dir} do
      [a, b, c] = start_cluster(dir, 3)
      {:ok, _} = put(a, "k", 1)
      for peer <- [b, c], do: kill_node(peer)
      {microseconds, result} = :timer.tc(fn -> cluster(a, :reset, [store(), 1_500]) end)
      assert result == {:error, :timeout}
      assert microseconds < 2_000_000
      assert cluster(a, :is_store_running, [store()])
      assert list(a) == %{"k" => 1}
      assert members(a, :low_latency) == nodes([a, b, c])
    end

    test "of a member that thinks it is alone, while another one comes in, leaves that one in good order", %{
      tmp_dir: dir
    } do
      [a, b] = start_nodes(dir, 2)
      {:ok, _} = put(a, "k", 1)
      server = call(a, Tank.Store.Server, :whereis, [store()])
      :ok = call(a, :sys, :suspend, [server])
      resetting = Task.async(fn -> cluster(a, :reset, [store(), 20_000]) end)
      # It has seen no other member by now.
      eventually("the reset to be at the server", fn ->
        match?({:message_queue_len, n} when n > 0, call(a, Process, :info, [server, :message_queue_len]))
      end)

      assert cluster(b, :join, [store(), a.node, 20_000]) == :ok
      :ok = call(a, :sys, :resume, [server])
      assert Task.await(resetting, 60_000) == :ok
      refute cluster(a, :is_store_running, [store()])
      assert {get(b, "k"), members(b)} == {{:ok, 1}, [b.node]}
      assert {:ok, _} = put(b, "k", 2)
    end

    test "at any moment of another one's join leaves nobody behind", %{tmp_dir: dir} do
      [a, b] = start_nodes(dir, 2)

      results =
        for round <- 1..8 do
          joining = Task.async(fn -> cluster(b, :join, [store(), a.node, 5_000]) end)
          # A join of an empty store takes some fifty milliseconds.
          Process.sleep(:rand.uniform(80))
          reset = cluster(a, :reset, [store(), 5_000])
          joined = Task.await(joining, 60_000)
          # Its own join may have failed just because this one is gone; then its data is what it was.
          if reset == :ok, do: {:ok, _} = cluster(a, :start, [a.dir, store(), 30_000])

          for peer <- [a, b] do
            eventually(
              "#{peer.node} to answer in round #{round}, with a reset that gave #{inspect(reset)} and a join that gave " <>
                inspect(joined),
              fn -> match?({:ok, _}, put(peer, "r#{round}", round, 1_000)) end,
              30_000
            )
          end

          # Apart again.
          for peer <- [a, b], length(members(peer)) == 2 do
            :ok = cluster(peer, :reset, [store(), 20_000])
            {:ok, _} = cluster(peer, :start, [peer.dir, store(), 30_000])
          end

          {reset, joined}
        end

      IO.inspect(Enum.frequencies(results), label: "resets and joins")
    end

    test "never started: an error, and the disk stays as it is" do
      assert Tank.Store.Cluster.reset(:reset_never_started) ==
               {:error, {:tank, :not_a_tank_store, %{store_id: :reset_never_started}}}
    end
  end

  test "learners follow, are promoted and demoted; members are removed while they are dead", %{tmp_dir: dir} do
    [a, b, c] = peers = start_nodes(dir, 3)
    :ok = cluster(b, :join, [store(), a.node, 30_000])
    assert cluster(a, :add_learner, [store(), c.node, 30_000]) == :ok
    roles = fn -> Map.new(elem(cluster(await_leader([a, b]), :status, [store()]), 1).members, &{&1.node, &1.role}) end
    assert roles.()[c.node] == :learner
    {:ok, _} = put(c, "k", 1)
    assert list(c) == %{"k" => 1}
    assert cluster(a, :promote, [store(), c.node]) == :ok
    assert roles.()[c.node] == :voter
    assert cluster(c, :demote, [store(), c.node]) == :ok
    assert roles.()[c.node] == :learner
    assert cluster(a, :promote, [store(), c.node]) == :ok

    kill_node(c)
    assert cluster(b, :remove_member, [store(), c.node]) == :ok
    assert members(a) == nodes([a, b])

    assert cluster(b, :remove_member, [store(), c.node]) ==
             {:error, {:tank, :not_a_member, %{store_id: store(), node: c.node}}}

    # Another one of the same name.
    File.rm_rf!(c.dir)
    c = restart_node(c)
    assert cluster(c, :join, [store(), b.node, 30_000]) == :ok
    assert members(c) == nodes(peers)
    assert get(c, "k") == {:ok, 1}
  end
end
