defmodule Tank.Store.SyncerClusterTest do
  # Syncers on three nodes, while leaders are killed and the quorum is lost and comes back.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Backend, FlakySource, KVPair, Mirror, SyncerStorm}

  @moduletag :tmp_dir
  @types [[root: ["a"]], [root: ["b"]], [root: ["c"]]]

  setup_all do
    {:ok, client} = Backend.new(store(), [:policy])
    %{client: client}
  end

  test "the mirror follows through a dead leader and a lost quorum, and says when it has none", context do
    %{tmp_dir: dir, client: client} = context
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [watcher, other] = peers -- [leader]

    for n <- 1..20, do: {:ok, _kv} = apply_on(watcher, client, "#{n}", n)
    {mirror, _syncer} = call(watcher, Mirror, :start, [client, [retry_ms: 50]])
    await_same(watcher, client, [mirror])

    kill_node(leader)

    eventually(
      "a write without the old leader",
      fn -> match?({:ok, _}, apply_on(watcher, client, "1", :again)) end,
      60_000
    )

    await_same(watcher, client, [mirror])

    # Alone it has no quorum: that is told, and the mirror stays what it is.
    before = call(watcher, Mirror, :state, [mirror])
    kill_node(other)

    eventually(
      "the loss of the quorum",
      fn -> hd(call(watcher, Mirror, :state, [mirror]).statuses) == :resync_in_progress end,
      30_000
    )

    assert {:error, %Backend.DatastoreError{}} = apply_on(watcher, client, "2", :lost?)
    alone = call(watcher, Mirror, :state, [mirror])
    assert hd(alone.statuses) == :resync_in_progress
    assert alone.entries == before.entries

    other = restart_node(other)
    eventually("a write with a quorum", fn -> match?({:ok, _}, apply_on(other, client, "3", :back)) end, 60_000)
    :ok = call(other, Backend, :delete, [client, ["4"]])
    await_same(watcher, client, [mirror])
    state = call(watcher, Mirror, :state, [mirror])
    assert {:back, _revision} = state.entries[["3"]]
    refute is_map_key(state.entries, ["4"])
  end

  test(
    "a storm of writers, compactions, failures and blocked callbacks, with a killed leader and a lost quorum",
    context,
    do: storm(context, [:leader, :quorum])
  )

  @tag :long
  @tag timeout: 3_600_000
  test("the same, for longer", context,
    do: storm(context, for(_n <- 1..40, do: Enum.random([:leader, :leader, :leader, :follower, :quorum])))
  )

  # Of each node, two mirrors see all of it: one that is quick, and one whose callbacks block.
  defp storm(%{tmp_dir: dir, client: client}, losses) do
    mirrored = dir |> start_cluster(3) |> Enum.map(&{&1, start_mirrors(&1, client)})

    {_mirrored, told, slowest_us} =
      losses
      |> Enum.with_index(1)
      |> Enum.reduce({mirrored, 0, {0, 0}}, fn {loss, round}, {mirrored, told, {answer_us, same_us}} ->
        for {peer, _mirrors} <- mirrored, do: call(peer, FlakySource, :rate, [Enum.random([0, 20, 100, 300])])
        for {peer, _mirrors} <- mirrored, do: {:ok, _storm} = call(peer, SyncerStorm, :start, [client, 3])
        # Time for some of all that in each round.
        Process.sleep(Enum.random(300..1_500))
        dead = lose(loss, Enum.map(mirrored, &elem(&1, 0)))
        Process.sleep(Enum.random(300..1_500))

        {mirrored, wrote} = mend(mirrored, dead, client)
        # While no leader is elected it is not quiet: no mirror can be told anything.
        {us, _answers} = :timer.tc(fn -> for {peer, _mirrors} <- mirrored, do: await_answer(peer, client) end)
        {after_us, _same} = :timer.tc(fn -> for {peer, mirrors} <- mirrored, do: await_same(peer, client, mirrors) end)
        assert wrote > 0, "nobody wrote in round #{round}"
        {mirrored, told + wrote, {max(answer_us, us), max(same_us, after_us)}}
      end)

    {answer_us, same_us} = slowest_us

    IO.puts(
      "#{inspect(Enum.frequencies(losses))} lost, #{told} writes: all members answered after " <>
        "#{div(answer_us, 1_000)} ms at the latest, all mirrors were the store #{div(same_us, 1_000)} ms later"
    )
  end

  defp start_mirrors(peer, client) do
    opts = [types: @types, source: FlakySource, retry_ms: 20]
    {quick, _syncer} = call(peer, Mirror, :start, [client, opts])
    {slow, _syncer} = call(peer, Mirror, :start_slow, [client, opts, 50])
    [quick, slow]
  end

  defp lose(loss, peers) do
    leader = await_leader(peers)

    dead =
      case loss do
        :leader -> [leader]
        :follower -> [Enum.random(peers -- [leader])]
        :quorum -> [leader, Enum.random(peers -- [leader])]
      end

    Enum.each(dead, &kill_node/1)
    dead
  end

  # Who is dead starts anew, with new mirrors. Then all is quiet.
  defp mend(mirrored, dead, client) do
    {gone, alive} = Enum.split_with(mirrored, fn {peer, _mirrors} -> peer in dead end)
    restarted = for {peer, _mirrors} <- gone, peer = restart_node(peer), do: {peer, start_mirrors(peer, client)}
    wrote = for({peer, _mirrors} <- alive, do: call(peer, SyncerStorm, :stop, [])) |> Enum.sum()
    for {peer, _mirrors} <- alive, do: call(peer, FlakySource, :rate, [0])
    {alive ++ restarted, wrote}
  end

  defp apply_on(peer, client, name, value),
    do: call(peer, Backend, :apply, [client, %KVPair{key: [name], value: value}])

  defp await_answer(peer, client) do
    eventually(
      "an answer",
      fn -> match?({:ok, _pairs, _revision}, call(peer, Backend, :list, [client, []])) end,
      60_000
    )
  end

  # Nothing writes any more, but for keys whose time is over.
  defp await_same(peer, client, mirrors) do
    eventually(
      "the mirrors to be the store",
      fn ->
        states = for mirror <- mirrors, do: call(peer, Mirror, :state, [mirror])

        with {:ok, pairs, _revision} <- call(peer, Backend, :list, [client, []]),
             true <- Enum.all?(states, &match?([:in_sync | _before], &1.statuses)),
             expected = Map.new(pairs, &{&1.key, {&1.value, &1.revision}}),
             true <- Enum.all?(states, &(&1.entries == expected)) do
          true
        else
          other ->
            {:not_yet, {other, for(state <- states, do: {Enum.take(state.statuses, 3), map_size(state.entries)})}}
        end
      end,
      60_000
    )
  end
end
