defmodule Tank.Store.SyncerClusterTest do
  # A syncer on one of three nodes, while leaders are killed and the quorum is lost and comes back.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Backend, KVPair, Mirror}

  @moduletag :tmp_dir

  test "the mirror follows through a dead leader and a lost quorum", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [watcher, other] = peers -- [leader]
    {:ok, client} = Backend.new(store(), [:policy])

    for n <- 1..20, do: {:ok, _kv} = apply_on(watcher, client, "#{n}", n)
    {mirror, _syncer} = call(watcher, Mirror, :start, [client, [retry_ms: 50]])
    await_same(watcher, client, mirror)

    kill_node(leader)

    eventually(
      "a write without the old leader",
      fn -> match?({:ok, _}, apply_on(watcher, client, "1", :again)) end,
      60_000
    )

    await_same(watcher, client, mirror)

    # Alone it has no quorum: writes fail, and the mirror stays what it is.
    kill_node(other)
    before = call(watcher, Mirror, :state, [mirror])
    assert {:error, %Backend.DatastoreError{}} = apply_on(watcher, client, "2", :lost?)
    assert call(watcher, Mirror, :state, [mirror]).entries == before.entries

    other = restart_node(other)
    eventually("a write with a quorum", fn -> match?({:ok, _}, apply_on(other, client, "3", :back)) end, 60_000)
    :ok = call(other, Backend, :delete, [client, ["4"]])
    await_same(watcher, client, mirror)
    state = call(watcher, Mirror, :state, [mirror])
    assert {:back, _revision} = state.entries[["3"]]
    refute is_map_key(state.entries, ["4"])
  end

  defp apply_on(peer, client, name, value),
    do: call(peer, Backend, :apply, [client, %KVPair{key: [name], value: value}])

  defp await_same(peer, client, mirror) do
    eventually(
      "the mirror to be the store",
      fn ->
        state = call(peer, Mirror, :state, [mirror])

        with {:ok, pairs, _revision} <- call(peer, Backend, :list, [client, []]),
             true <- hd(state.statuses ++ [nil]) == :in_sync,
             true <- state.entries == Map.new(pairs, &{&1.key, {&1.value, &1.revision}}) do
          true
        else
          _other -> {:not_yet, {state.statuses, map_size(state.entries)}}
        end
      end,
      60_000
    )
  end
end
