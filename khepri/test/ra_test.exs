defmodule Khepri.RaTest do
  # What applications ask Ra about a store, and look up in its tables. Ra itself is not here: its tables are.
  use Khepri.StoreCase, async: false

  defmodule :ra_leaderboard do
    def record(store, leader, members), do: :ets.insert(:ra_leaderboard, {store, leader, members})
    def clear(store), do: :ets.delete(:ra_leaderboard, store)
  end

  defmodule :ra_counters do
    def new(id, spec) do
      counters = :counters.new(length(spec), [])
      :ets.insert(:ra_counters, {id, counters, Enum.map(spec, &elem(&1, 0))})
      counters
    end

    def fetch(id),
      do: with([{_id, counters, _names}] <- :ets.lookup(:ra_counters, id), do: counters, else: (_ -> :undefined))

    def delete(id), do: :ets.delete(:ra_counters, id)
  end

  setup_all do
    for table <- [:ra_leaderboard, :ra_counters, :ra_state], do: :ets.new(table, [:named_table, :public])
    :ok
  end

  defp figures(s) do
    [{_id, counters, names}] = :ets.lookup(:ra_counters, {s, node()})
    for {name, at} <- Enum.with_index(names, 1), into: %{}, do: {name, :counters.get(counters, at)}
  end

  test "the tables name the leader, the member's state and its figures", %{store: s} do
    me = {s, node()}
    assert :khepri_cluster.members(s) == {:ok, [me]}
    assert :ets.lookup(:ra_leaderboard, s) == [{s, me, [me]}]
    assert :ets.lookup(:ra_state, s) == [{s, :leader, :voter}]
    before = figures(s)
    for n <- 1..20, do: :ok = :khepri.put(s, [:a], n)
    eventually(fn -> figures(s).last_applied >= before.last_applied + 20 end)
    assert figures(s).term >= 1 and figures(s).commit_index == figures(s).last_applied
    :ok = :khepri.stop(s)
    assert :ets.lookup(:ra_leaderboard, s) == [] and :ets.lookup(:ra_state, s) == []
    assert :ets.lookup(:ra_counters, me) == []
  end

  test "what Ra's calls are answered", %{store: s} do
    me = {s, node()}
    assert GenServer.call(s, {:leader_call, {:state_query, :members}}) == {:ok, [me], me}
    assert GenServer.call(s, {:local_call, {:state_query, :members}}) == {:ok, [me], me}
    assert GenServer.call(s, {:leader_call, {:transfer_leadership, me}}) == :already_leader
    leave = {:leader_call, {:command, :normal, {:"$ra_leave", {s, :nobody@nowhere}, :after_log_append}}}
    assert GenServer.call(s, leave) == {:error, :not_member}
    assert GenServer.call(s, :force_member_change) == :ok
    assert :khepri.put(s, [:after], 1) == :ok
    assert GenServer.call(s, :anything_else) == {:error, :unsupported}
  end

  test "behaviours and versions", %{store: s} do
    assert :khepri_machine.does_api_comply_with(:uniform_write_ret, s)
    refute :khepri_machine.does_api_comply_with(:unknown, s)
    assert :khepri_cluster.wait_for_effective_behaviour(s, :indirect_deletes_in_ret) == :ok
    assert :khepri_cluster.wait_for_effective_behaviour({s, node()}, :dedup_protection, 100) == :ok
    unknown = {:khepri, :unknown_api_hehaviour, %{behaviour: :unknown}}
    assert :khepri_cluster.wait_for_effective_behaviour(s, :unknown) == {:error, unknown}
    assert :khepri_cluster.wait_for_effective_machine_version(s, :latest) == :ok
    assert :khepri_cluster.wait_for_effective_machine_version(s, 4, 10) == {:error, :timeout}
    undefined = {:khepri, :effective_machine_version_not_defined, %{store_id: :nobody, ra_server: {:nobody, node()}}}
    assert :khepri_cluster.wait_for_effective_machine_version(:nobody, 1) == {:error, undefined}
    assert :khepri_cluster.wait_for_effective_behaviour(:nobody, :dedup_protection) == {:error, undefined}
  end

  test "a start starts the application, whose stop stops the store", %{store: s, dir: dir} do
    assert Application.stop(:khepri) == :ok
    refute :khepri_cluster.is_store_running(s)
    assert {:ok, ^s} = :khepri.start(dir, s)
    assert List.keymember?(Application.started_applications(), :khepri, 0)
  end

  test "the other functions of khepri_cluster", %{store: s} do
    assert :khepri_cluster.this_member(s) == {s, node()}
    assert :khepri_cluster.node_to_member(s, :other@host) == {s, :other@host}
    assert :khepri_cluster.is_store_running(s) and not :khepri_cluster.is_store_running(:nobody)
    assert :khepri_cluster.join(s, node()) == :ok
    assert :khepri_cluster.join({s, node()}) == :ok
    assert :khepri_cluster.nodes(s, %{favor: :low_latency, timeout: 1_000}) == {:ok, [node()]}
    assert :khepri_cluster.wait_for_leader({s, node()}, 1_000) == :ok
    assert :khepri_cluster.wait_for_leader(:nobody, 50) in [{:error, :timeout}, {:error, :noproc}]
    other = {:khepri, :not_a_khepri_store, %{store_id: :nobody}}
    assert :khepri_cluster.reset(:nobody, 100) == {:error, other}
    assert :khepri_cluster.join(:nobody, :other@host, 100) == {:error, other}
  end
end
