defmodule Tank.Store.Cluster.RolledBackTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.AlarmWatch

  @moduletag :tmp_dir

  # From its start until it has everything again.
  @caught_up_ms 30_000
  # A leader may be lost: an election, on a busy machine.
  @pause_ms 5_000

  test "a member whose disk went back in time is replaced, three times under load", %{tmp_dir: dir} do
    roll_back_members(dir, 3)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "a member whose disk went back in time is replaced, fifty times under load", %{tmp_dir: dir} do
    roll_back_members(dir, 50)
  end

  test "Tank.Store starts with an old copy, and serves once a new member has taken its place", %{tmp_dir: dir} do
    [first, _second, back] = peers = start_cluster(dir, 3)
    :ok = cluster(back, :stop, [store()])
    File.cp_r!(back.dir, Path.join(dir, "copy"))
    {:ok, _store} = cluster(back, :start, [back.dir, store(), 30_000])
    for number <- 1..20, do: {:ok, _revision} = put(first, "n#{number}", number)
    await_agreement(peers)
    old_id = status(back).member_id
    # It may apply entries before it has acknowledged them.
    leader = await_leader(peers)

    eventually("the leader to know that it has all", fn ->
      member = Enum.find(status(leader).members, &(&1.member_id == old_id))
      member.lag == 0 || {:not_yet, member}
    end)

    :ok = cluster(back, :stop, [store()])
    File.rm_rf!(back.dir)
    File.rename!(Path.join(dir, "copy"), back.dir)
    :ok = call(back, Tank.Store.ClusterCase, :local_start_tank, [back.dir, [store_id: store()]])
    assert {:ok, 20} = get(back, "n20")
    assert status(back).member_id != old_id
  end

  defp roll_back_members(dir, rounds) do
    seed = String.to_integer(System.get_env("TANK_SEED", "#{:rand.uniform(1_000_000)}"))
    IO.puts("TANK_SEED=#{seed}")
    :rand.seed(:exsss, seed)
    peers = start_cluster(dir, 3)

    {_peers, found} =
      Enum.reduce(1..rounds, {peers, []}, fn round, {peers, found} ->
        {peers, one} = roll_back(peers, round, Path.join(dir, "copy"))
        {peers, [one | found]}
      end)

    most = fn key -> found |> Enum.map(& &1[key]) |> Enum.max() end

    IO.puts(
      "#{rounds} members went back, #{found |> Enum.map(& &1.acknowledged) |> Enum.sum()} acknowledged writes, 0 lost; " <>
        "caught up after #{most.(:caught_up_ms)} ms at the most, longest pause of the others #{most.(:pause_ms)} ms"
    )
  end

  defp roll_back(peers, round, copy) do
    back = Enum.random(peers)
    others = peers -- [back]
    old_id = status(back).member_id
    prefix = fn peer -> "r#{round}-#{Enum.find_index(peers, &(&1.node == peer.node))}" end
    for peer <- peers, do: :ok = call(peer, Tank.Store.ClusterCase, :start_writer, [prefix.(peer)])

    await_progress(back)
    copy_dir(back, copy)
    await_progress(back)

    back = start_copy(back, copy, prefix.(back), Enum.at([:killed, :stopped], rem(round, 2)))
    # Its VM took as long as the machine was busy.
    started_at = now()

    eventually("the member to be replaced", fn -> replaced?(back, old_id) end, @caught_up_ms)
    wanted = status(hd(others)).revision
    eventually("it to catch up", fn -> status(back).revision >= wanted or {:not_yet, status(back)} end, @caught_up_ms)
    caught_up_ms = now() - started_at
    assert caught_up_ms <= @caught_up_ms
    # The others may have heard of it only when it was replaced already.
    assert :log_lost in call(back, AlarmWatch, :stop, [])

    written = for peer <- others, do: {prefix.(peer), call(peer, Tank.Store.ClusterCase, :stop_writer, [prefix.(peer)])}
    peers = Enum.map(peers, &if(&1.node == back.node, do: back, else: &1))
    await_agreement(peers)
    check_written(peers, written)
    eventually("no alarms", fn -> Enum.all?(peers, &(status(&1).alarms == [])) or {:not_yet, alarms(peers)} end)
    pauses = for {_prefix, %{acknowledged: acknowledged}} <- written, do: longest_pause(acknowledged)
    assert Enum.max(pauses) < @pause_ms

    acknowledged = written |> Enum.map(fn {_prefix, written} -> length(written.acknowledged) end) |> Enum.sum()
    {peers, %{acknowledged: acknowledged, caught_up_ms: caught_up_ms, pause_ms: Enum.max(pauses)}}
  end

  defp start_copy(back, copy, _prefix, :killed) do
    kill_node(back)
    put_copy(back, copy)
    back |> boot_again() |> start_watched()
  end

  # Booting a VM takes much longer.
  defp start_copy(back, copy, prefix, :stopped) do
    _written = call(back, Tank.Store.ClusterCase, :stop_writer, [prefix])
    :ok = cluster(back, :stop, [store()])
    put_copy(back, copy)
    start_watched(back)
  end

  defp start_watched(back) do
    :ok = call(back, AlarmWatch, :start, [store()])
    {:ok, _store} = cluster(back, :start, [back.dir, store(), 30_000])
    back
  end

  defp put_copy(back, copy) do
    File.rm_rf!(back.dir)
    File.rename!(copy, back.dir)
  end

  # As a virtual machine's snapshot: of one moment.
  defp copy_dir(peer, copy) do
    File.rm_rf!(copy)
    signal(peer, "STOP")
    File.cp_r!(peer.dir, copy)
    signal(peer, "CONT")
  end

  defp replaced?(peer, old_id) do
    case cluster(peer, :status, [store()]) do
      {:ok, %{member_id: ^old_id} = status} -> {:not_yet, status.alarms}
      {:ok, %{role: :follower}} -> true
      {:ok, %{role: :leader}} -> true
      other -> {:not_yet, other}
    end
  end

  # All that it has applied it has acknowledged.
  defp await_progress(peer) do
    enough = status(peer).revision + 100

    eventually(
      "#{peer.node} to get more writes",
      fn -> status(peer).revision >= enough or {:not_yet, status(peer)} end,
      30_000
    )
  end

  defp check_written(peers, written) do
    for peer <- peers, held = list(peer), {prefix, %{acknowledged: acknowledged}} <- written do
      lost = for {number, _at} <- acknowledged, held["#{prefix}-#{number}"] != number, do: number
      assert lost == [], "#{peer.node} lost #{prefix} #{inspect(lost)}"
    end
  end

  defp longest_pause(acknowledged) do
    acknowledged
    |> Enum.map(&elem(&1, 1))
    |> Enum.chunk_every(2, 1, :discard)
    |> Enum.map(fn [later, earlier] -> later - earlier end)
    |> Enum.max(fn -> 0 end)
  end

  defp status(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status
  end

  defp alarms(peers), do: Enum.map(peers, &status(&1).alarms)

  defp now, do: System.monotonic_time(:millisecond)
end
