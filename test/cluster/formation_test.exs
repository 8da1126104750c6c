defmodule Tank.Store.Cluster.FormationTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Backup, ClusterCase, Formation}

  @moduletag :tmp_dir

  defp one_cluster(peers) do
    all = nodes(peers)
    for peer <- peers, do: assert(cluster(peer, :nodes, [store()]) == {:ok, all})
    assert [id] = peers |> Enum.map(&cluster_id/1) |> Enum.uniq()
    id
  end

  defp cluster_id(peer), do: elem(cluster(peer, :status, [store()]), 1).cluster_id
  defp nodes(peers), do: peers |> Enum.map(& &1.node) |> Enum.sort()
  defp sorted_nodes(dir, count), do: dir |> start_nodes(count, store: false) |> Enum.sort_by(& &1.node)

  defp all_at_once(peers, options \\ []) do
    list = options[:list] || nodes(peers)

    peers
    |> Enum.map(&Task.async(fn -> start_listed(&1, list, Keyword.delete(options, :list)) end))
    |> Task.await_many(120_000)
  end

  defp started(peers), do: List.duplicate({:ok, store()}, length(peers))

  # What a store that waits for its cluster is for everybody.
  defp serves_nobody(peer) do
    # A start whose time is over has perhaps not looked into its directory yet.
    eventually("#{peer.node} to say that it is forming", fn ->
      status = cluster(peer, :status, [store()])
      match?({:ok, %{role: :forming}}, status) || {:not_yet, status}
    end)

    assert put(peer, "of a blank node", 1) == {:error, :noproc}
    assert get(peer, "k") == {:error, :noproc}
    assert list(peer) == {:error, :noproc}
    refute cluster(peer, :is_store_running, [store()])
    assert {:ok, %{role: :forming, quorum: false, members: []}} = cluster(peer, :status, [store()])
  end

  defp nothing_runs(peer) do
    assert call(peer, Tank.Store.Instance, :whereis, [store()]) == nil
    assert call(peer, Tank.Store.Server, :whereis, [store()]) == nil
    assert cluster(peer, :status, [store()]) == {:error, :noproc}
    # The directory is free.
    if File.dir?(peer.dir), do: assert(call(peer, ClusterCase, :local_erase, [peer.dir]) == :ok)
  end

  test "all at once, and after a restart of all", %{tmp_dir: dir} do
    peers = start_nodes(dir, 3, store: false)
    assert all_at_once(peers) == started(peers)
    id = one_cluster(peers)
    {:ok, _} = put(hd(peers), "k", 1)
    for peer <- peers, do: :ok = cluster(peer, :stop, [store()])
    assert all_at_once(peers) == started(peers)
    for peer <- peers, do: assert(cluster(peer, :wait_for_leader, [store()]) == :ok)
    assert one_cluster(peers) == id
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
            start_listed(peer, &ClusterCase.get_nodes/0)
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

  describe "a blank node" do
    test "waits for the last of the list, says for whom, and serves nobody", %{tmp_dir: dir} do
      [first, second, third] = peers = sorted_nodes(dir, 3)
      # All VMs run: a node that has not started its store is not blank.
      assert all_at_once([first, second], list: nodes(peers), timeout: 1_500) == List.duplicate({:error, :timeout}, 2)

      for peer <- [first, second] do
        await_alarm(peer, :forming, ["#{third.node} has not started the store"])
        serves_nobody(peer)
      end

      # Another start waits for the same store.
      waiting = Task.async(fn -> start_listed(first, nodes(peers)) end)
      assert start_listed(third, nodes(peers)) == {:ok, store()}
      assert Task.await(waiting, 60_000) == {:ok, store()}
      assert cluster(second, :wait_for_leader, [store(), 30_000]) == :ok
      one_cluster(peers)
      for peer <- peers, do: refute(elem(cluster(peer, :status, [store()]), 1).alarms[:forming])
    end

    test "waits for a node whose library is not started yet", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      :ok = call(second, Application, :stop, [:tank_store])
      assert call(second, Formation, :state, [store(), %{}]) == :unknown
      waiting = Task.async(fn -> start_listed(first, nodes(peers), timeout: 60_000) end)
      await_alarm(first, :forming, ["#{second.node} has not started the store"])
      {:ok, _apps} = call(second, Application, :ensure_all_started, [:tank_store])
      assert start_listed(second, nodes(peers), timeout: 60_000) == {:ok, store()}
      assert Task.await(waiting, 60_000) == {:ok, store()}
    end

    test "is stopped while it waits, and leaves nothing", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      assert start_listed(first, nodes(peers), timeout: 500) == {:error, :timeout}
      assert cluster(first, :stop, [store()]) == :ok
      nothing_runs(first)
      # Its report does not count any more.
      assert start_listed(second, nodes(peers), timeout: 1_000) == {:error, :timeout}
      serves_nobody(second)
    end

    test "that is alone in its list founds at once", %{tmp_dir: dir} do
      [peer] = start_nodes(dir, 1, store: false)
      assert start_listed(peer, [peer.node]) == {:ok, store()}
      assert {:ok, _} = put(peer, "k", 1)
      assert cluster(peer, :stop, [store()]) == :ok
      assert start_listed(peer, []) == {:ok, store()}
      assert get(peer, "k") == {:ok, 1}
    end

    test "founds with a majority only if that is asked for", %{tmp_dir: dir} do
      [first, second, third] = peers = sorted_nodes(dir, 3)
      kill_node(third)
      assert all_at_once([first, second], list: nodes(peers), timeout: 1_500) == List.duplicate({:error, :timeout}, 2)
      await_alarm(first, :forming, ["#{third.node} cannot be reached"])
      for peer <- [first, second], do: :ok = cluster(peer, :stop, [store()])
      options = [list: nodes(peers), forming: :majority]
      assert all_at_once([first, second], options) == started([first, second])
      one_cluster([first, second])
      third = boot_again(third)
      assert start_listed(third, nodes(peers), forming: :majority) == {:ok, store()}
      one_cluster([first, second, third])
    end

    test "promises once to found nothing, until it is released", %{tmp_dir: dir} do
      [first, second, _third] = peers = sorted_nodes(dir, 3)
      assert start_listed(second, nodes(peers), timeout: 500) == {:error, :timeout}

      {:blank, token, _nodes, :voter} =
        eventually("#{second.node} to say that it is blank", fn ->
          with :unknown <- call(second, Formation, :state, [store(), %{}]), do: {:not_yet, :unknown}
        end)

      promise = fn function, token, node -> call(second, Formation, function, [store(), token, node]) end
      refute promise.(:promise, make_ref(), first.node)
      assert promise.(:promise, token, first.node)
      assert promise.(:promise, token, first.node)
      refute promise.(:promise, token, second.node)
      refute promise.(:release, token, second.node)
      assert promise.(:release, token, first.node)
      assert promise.(:promise, token, second.node)
    end

    test "founds nothing with nodes that were given other lists", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      assert start_listed(second, nodes(peers) ++ [:nobody@nowhere], timeout: 500) == {:error, :timeout}
      assert start_listed(first, nodes(peers), timeout: 500) == {:error, :timeout}
      await_alarm(first, :forming, ["#{second.node} was given another list of nodes"])
    end

    test "joins a store of its list that was started alone", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      {:ok, _} = cluster(second, :start, [second.dir, store(), 60_000])
      {:ok, _} = put(second, "mine", 1)
      assert start_listed(first, nodes(peers)) == {:ok, store()}
      one_cluster(peers)
      assert get(first, "mine") == {:ok, 1}
    end
  end

  describe "a node that lost its disk" do
    # Row 42: it was the one to found.
    test "waits for the others, joins their cluster under a new identity, and loses nothing", %{tmp_dir: dir} do
      [first, second, third] = peers = sorted_nodes(dir, 3)
      assert all_at_once(peers) == started(peers)
      id = one_cluster(peers)
      {:ok, _} = put(first, "k", 1)
      {:ok, %{member_id: member_id}} = cluster(first, :status, [store()])
      await_agreement(peers)
      Enum.each(peers, &kill_node/1)
      File.rm_rf!(first.dir)
      [first, second, third] = peers = Enum.map([first, second, third], &boot_again/1)

      assert start_listed(first, nodes(peers), timeout: 1_000) == {:error, :timeout}
      await_alarm(first, :forming, ["#{second.node} has not started the store"])
      serves_nobody(first)
      # A member without a quorum is enough: nothing is founded.
      assert start_listed(second, nodes(peers)) == {:ok, store()}

      await_alarm(first, :forming, ["has no quorum that answers"])
      serves_nobody(first)
      assert start_listed(third, nodes(peers)) == {:ok, store()}
      assert cluster(first, :wait_for_leader, [store(), 60_000]) == :ok
      assert one_cluster(peers) == id
      assert get(first, "k") == {:ok, 1}
      await_agreement(peers)
      {:ok, %{members: members, member_id: new_id}} = cluster(first, :status, [store()])
      assert length(members) == 3 and new_id != member_id
      refute Enum.any?(members, &(&1.member_id == member_id))
    end

    test "of two waits, since the other has no quorum, until that goes on alone", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      assert all_at_once(peers) == started(peers)
      {:ok, _} = put(first, "k", 1)
      await_agreement(peers)
      :ok = cluster(first, :stop, [store()])
      File.rm_rf!(first.dir)
      assert start_listed(first, nodes(peers), timeout: 1_000) == {:error, :timeout}
      await_alarm(first, :forming, ["which #{second.node} holds, has no quorum that answers"])
      serves_nobody(first)
      assert cluster(second, :force_new_cluster, [store()]) == :ok
      assert cluster(first, :wait_for_leader, [store(), 60_000]) == :ok
      one_cluster(peers)
      assert get(first, "k") == {:ok, 1}
    end
  end

  describe "a start that fails leaves nothing running" do
    test "when the function for the list fails", %{tmp_dir: dir} do
      [peer] = start_nodes(dir, 1, store: false)

      for function <- [&ClusterCase.raise_nodes/0, &ClusterCase.no_nodes/0] do
        assert {:error, {:tank, :no_list_of_nodes, %{why: why}}} = start_listed(peer, function)
        assert why =~ "no list"
        nothing_runs(peer)
      end
    end

    test "when Tank.Store waits for its cluster in vain", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      options = [data_dir: first.dir, store_id: store(), cluster: nodes(peers)]
      assert {:error, {:store_init_failed, error}} = call(first, ClusterCase, :try_start_tank, [options], 60_000)
      assert {:tank, :no_cluster_formed, %{waits: waits}} = error.reason
      assert waits =~ "#{second.node} has not started the store"
      nothing_runs(first)
    end

    test "when Tank.Store has no quorum, and the error names the members that are missing", %{tmp_dir: dir} do
      [first, second, third] = peers = sorted_nodes(dir, 3)
      assert all_at_once(peers) == started(peers)
      for peer <- peers, do: :ok = cluster(peer, :stop, [store()])
      kill_node(third)
      options = [data_dir: first.dir, store_id: store(), cluster: nodes(peers)]
      assert {:error, {:store_init_failed, error}} = call(first, ClusterCase, :try_start_tank, [options], 60_000)
      assert error.reason in [:no_quorum, :timeout]
      assert Exception.message(error) =~ "#{second.node} has not started the store"
      assert Exception.message(error) =~ "#{third.node} cannot be reached"
      nothing_runs(first)
    end
  end

  describe "two clusters of one store id" do
    # Row 49.
    test "copies restored from one backup do not serve side by side; one does, and the others join it blank", %{
      tmp_dir: dir
    } do
      peers = [first | others] = sorted_nodes(dir, 3)
      {:ok, _} = cluster(first, :start, [first.dir, store(), 60_000])
      {:ok, _} = put(first, "k", 1)
      file = Path.join(dir, "backup")
      {:ok, _} = call(first, Backup, :create, [store(), file])
      :ok = cluster(first, :stop, [store()])

      for peer <- peers do
        File.rm_rf!(peer.dir)
        {:ok, _} = call(peer, Backup, :restore, [file, peer.dir, [store_id: store()]])
      end

      results = all_at_once(peers)
      assert Enum.count(results, &(&1 == {:ok, store()})) <= 1

      for {peer, {:error, reason}} <- Enum.zip(peers, results) do
        assert {:tank, :other_cluster, %{clusters: clusters}} = reason
        assert map_size(clusters) >= 2 and is_map_key(clusters, peer.node)
        assert call(peer, Tank.Store.Instance, :whereis, [store()]) == nil
      end

      # The one way: one copy, the others blank.
      for peer <- others do
        :ok = cluster(peer, :stop, [store()])
        File.rm_rf!(peer.dir)
      end

      assert all_at_once(peers) == started(peers)
      one_cluster(peers)
      for peer <- peers, do: assert(get(peer, "k") == {:ok, 1})
    end

    test "a copy that starts later does not serve beside the one that does", %{tmp_dir: dir} do
      [first, second] = peers = sorted_nodes(dir, 2)
      for peer <- peers, do: {:ok, _} = cluster(peer, :start, [peer.dir, store(), 60_000])
      for peer <- peers, do: {:ok, _} = put(peer, "of", peer.node)
      for peer <- peers, do: :ok = cluster(peer, :stop, [store()])
      assert start_listed(first, nodes(peers)) == {:ok, store()}
      assert {:error, {:tank, :other_cluster, %{}}} = start_listed(second, nodes(peers))
      assert get(first, "of") == {:ok, first.node}
      # Both sides have said so, and the one that serves is opened again whatever others hold.
      await_alarm(first, :other_cluster, ["#{second.node} holds"])
      waiting = Task.async(fn -> start_listed(second, nodes(peers)) end)
      :ok = cluster(first, :stop, [store()])
      assert start_listed(first, nodes(peers)) == {:ok, store()}
      Task.await(waiting, 60_000)
      assert get(first, "of") == {:ok, first.node}
    end

    test "former members that come back next to a forced cluster: an alarm on both sides", %{tmp_dir: dir} do
      [a, b, c] = peers = start_cluster(dir, 3)
      {:ok, _} = put(a, "k", 1)
      await_agreement(peers)
      kill_node(b)
      kill_node(c)
      assert cluster(a, :force_new_cluster, [store(), [force: true]]) == :ok
      {:ok, _} = put(a, "k", 2)
      b = restart_node(b)
      c = restart_node(c)
      {new, old} = {cluster_id(a), cluster_id(b)}
      assert new != old

      for {peer, other} <- [{a, {b, old}}, {b, {a, new}}, {c, {a, new}}] do
        {%{node: node}, id} = other
        alarm = await_alarm(peer, :other_cluster, ["#{node} holds #{id}", "#{peer.node} holds"])
        assert alarm.clusters[node] == id
      end

      # Nothing has changed.
      assert {get(a, "k"), get(b, "k")} == {{:ok, 2}, {:ok, 1}}

      for peer <- [b, c] do
        :ok = cluster(peer, :stop, [store()])
        File.rm_rf!(peer.dir)
        assert start_listed(peer, [a.node]) == {:ok, store()}
      end

      one_cluster([a, b, c])
      eventually("the alarm to end", fn -> !elem(cluster(a, :status, [store()]), 1).alarms[:other_cluster] end, 30_000)
    end
  end
end
