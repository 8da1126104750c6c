defmodule Tank.Store.Cluster.DifferenceTest do
  # One member skips a log entry. Its state differs then from that of the others, which nothing else would show.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end

  defp alarm(peer, name) do
    case cluster(peer, :status, [store()]) do
      {:ok, status} -> status.alarms[name]
      {:error, _being_replaced} -> nil
    end
  end

  defp skip_write(peer, writer) do
    :ok = call(peer, Tank.Store.Native, :arm_fault, ["apply_entry", "1*return"])
    put(writer, "skipped", "by one")
  end

  test "a member that differs from the other two serves nobody, is an alarm, and replaces itself", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    for number <- 1..20, do: {:ok, _} = put(hd(peers), "k#{number}", number)

    for role <- [:follower, :leader] do
      leader = await_leader(peers)
      differs = if role == :leader, do: leader, else: Enum.find(peers, &(&1 != leader))
      others = peers -- [differs]
      id = status(differs).member_id
      watch = call(differs, Tank.Store.ClusterCase, :start_alarm_watch, [])
      skip_write(differs, hd(others))

      # It may be replaced already when this looks: what it had raised was noted there.
      eventually(
        "the member to be replaced",
        fn ->
          case cluster(differs, :status, [store()]) do
            {:ok, %{member_id: ^id, alarms: alarms}} -> {:not_yet, alarms}
            {:ok, %{member_id: _new}} -> true
            being_replaced -> {:not_yet, being_replaced}
          end
        end,
        60_000
      )

      assert {:state_differs, details} = call(differs, Tank.Store.ClusterCase, :first_alarm, [watch])
      assert details.message =~ "serves nobody" and details.expected_digest != details.found_digest
      assert Tank.Store.Replacement.why(details) =~ "state differed"
      for peer <- others, do: assert({:ok, _} = put(peer, "later #{role}", 1))
      await_agreement(peers)
      assert list(differs)["k7"] == 7

      eventually(
        "no alarm anywhere, and three voters",
        fn ->
          alarms = Enum.map(peers, &status(&1).alarms)
          roles = peers |> await_leader() |> status() |> Map.fetch!(:members) |> Enum.map(& &1.role) |> Enum.sort()
          if alarms == [[], [], []] and roles == [:leader, :voter, :voter], do: true, else: {:not_yet, {alarms, roles}}
        end,
        30_000
      )
    end
  end

  test "of two members that differ, the follower serves nobody, and waits for the operator", %{tmp_dir: dir} do
    [_, _] = peers = start_cluster(dir, 2)
    leader = await_leader(peers)
    [differs] = peers -- [leader]
    {:ok, _} = put(leader, "k", 1)
    skip_write(differs, leader)
    details = eventually("the member's alarm", fn -> alarm(differs, :state_differs) end)
    assert details.replace == 0 and details.message =~ "join"
    assert get(differs, "k") == {:error, :state_differs}
    assert put(differs, "k", 2) == {:error, :state_differs}

    assert call(differs, Tank.Store.Tree, :get, [store(), [:test, "k"], [favor: :low_latency]]) ==
             {:error, :state_differs}

    about = eventually("the leader's alarm", fn -> alarm(leader, :member_differs) end)
    assert {about.node, about.member_id} == {Atom.to_string(differs.node), status(differs).member_id}
    assert {:ok, _} = put(leader, "k", 2)

    # As the alarm says.
    assert cluster(differs, :join, [store(), leader.node, 30_000]) == :ok
    assert get(differs, "k") == {:ok, 2}
    await_agreement(peers)
    eventually("no alarms", fn -> status(leader).alarms == [] and status(differs).alarms == [] end)
  end
end
