defmodule Tank.Store.Cluster.HistoryTest do
  # What clients know of a store of three members that does not go on from there: it was restored, its survivor was forced
  # into a new cluster, or its content was replaced.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Backup, ForkStorm, Lease, Tree, Watch}

  @moduletag :tmp_dir

  defp tree(peer, function, args), do: call(peer, Tree, function, [store() | args])
  defp position(peer), do: {ok!(tree(peer, :history, [])), status(peer).revision}
  defp status(peer), do: ok!(cluster(peer, :status, [store()]))
  defp ok!({:ok, value}), do: value

  defp stop(peer), do: :ok = cluster(peer, :stop, [store()])

  # In a directory of its own each time.
  defp start_in(peer, dir) do
    dir = Path.join(dir, "#{peer.node}-#{System.unique_integer([:positive])}")
    {:ok, _store} = cluster(peer, :start, [dir, store(), 30_000])
    dir
  end

  defp join_again(peers, first, dir) do
    for peer <- peers -- [first] do
      # It would take writes as a store of its own.
      :ok = storm(peer, :write, [false])
      start_in(peer, dir)
      :ok = cluster(peer, :join, [store(), first.node, 30_000])
      :ok = storm(peer, :write, [true])
    end
  end

  # Notes what is to be kept; the function that it gives then forks the past, with all that was written since.
  defp fork(:restore, [first | _others] = peers, dir) do
    file = Path.join(dir, "backup-#{System.unique_integer([:positive])}")
    {:ok, _about} = call(first, Backup, :create, [store(), file], 60_000)

    fn ->
      Enum.each(peers, &stop/1)
      restored = Path.join(dir, "restored-#{System.unique_integer([:positive])}")
      {:ok, _about} = call(first, Backup, :restore, [file, restored], 60_000)
      {:ok, _store} = cluster(first, :start, [restored, store(), 30_000])
      join_again(peers, first, dir)
    end
  end

  defp fork(:force, [first | others] = peers, dir) do
    fn ->
      Enum.each(others, &stop/1)
      :ok = cluster(first, :force_new_cluster, [store(), [force: true]])
      join_again(peers, first, dir)
    end
  end

  defp fork(:replace, [first | _others], dir) do
    file = Path.join(dir, "export-#{System.unique_integer([:positive])}")
    {:ok, _exported} = call(first, Backup, :export, [store(), file], 60_000)
    fn -> {:ok, _imported} = call(first, Backup, :import, [store(), file, [replace: true, timeout: 60_000]], 70_000) end
  end

  for kind <- [:restore, :force, :replace] do
    test "after #{kind}, no member takes a position or a lease of before", %{tmp_dir: dir} do
      [a, b, c] = peers = start_cluster(dir, 3)
      for n <- 1..20, do: {:ok, _} = tree(b, :put, [[:a, "#{n}"], n])
      {:ok, lease} = call(c, Lease, :acquire, [store(), "lease", [holder: :me, ttl: 2_000]])
      fork = fork(unquote(kind), peers, dir)
      for n <- 1..10, do: {:ok, _} = tree(c, :put, [[:a, "later #{n}"], n])
      {history, last} = position(a)
      fork.()
      {now, _revision} = position(a)
      assert now != history
      {:ok, written} = tree(b, :put, [[:a, "1"], :new])
      assert written > last + 1_000_000_000_000

      for peer <- [a, b, c] do
        assert {^now, revision} = position(peer)
        assert status(peer).history == now

        for at <- [5, last, revision + 100_000], position <- [at, {history, at}] do
          assert {:error, {:compacted, min}} = tree(peer, :list_since, [[], position]), inspect(position)
          assert min > last
          from = [from: {:after, position}]
          assert {:error, {:compacted, ^min}} = call(peer, Watch, :start, [store(), [], from]), inspect(position)
        end

        assert {:error, {:compacted, _min}} = tree(peer, :list_since, [[], last, [favor: :low_latency]])
        assert call(peer, Lease, :renew, [lease]) == {:error, :lease_ended}
        guarded = [[{:lease, "lease", :epoch, lease.epoch}], [{:put, [:led], 1}], []]
        assert {:ok, %{succeeded: false}} = tree(peer, :txn, guarded)
      end

      other =
        eventually("the lease's time to be over", fn ->
          with {:error, held} <- call(b, Lease, :acquire, [store(), "lease", [holder: :other, ttl: 60_000]]),
               do: {:not_yet, held}
        end)

      assert {:ok, %{epoch: epoch}} = other
      assert epoch > written
    end
  end

  test "a store that joins another cluster takes its history over, and no position of its own", %{tmp_dir: dir} do
    [a, b] = start_nodes(dir, 2)
    for n <- 1..50, do: {:ok, _} = tree(b, :put, [[:own, "#{n}"], n])
    {:ok, _} = tree(a, :put, [[:a], 1])
    {of_b, revision} = position(b)
    :ok = cluster(b, :join, [store(), a.node, 30_000])
    assert position(b) == position(a)

    # Both the future of the cluster, and a past that it has too.
    for position <- [revision, {of_b, revision}, {of_b, 1}] do
      assert {:error, {:compacted, _min}} = tree(b, :list_since, [[], position]), inspect(position)
      assert {:error, {:compacted, _min}} = call(b, Watch, :start, [store(), [], [from: {:after, position}]])
    end
  end

  test "a member that lags waits for a revision that others have", %{tmp_dir: dir} do
    [a, b, c] = peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [lagging | _others] = [a, b, c] -- [leader]
    {:ok, _} = tree(leader, :put, [[:a], 1])
    # What another member told is no future for one that has not come to it.
    for n <- 1..100 do
      {:ok, revision} = tree(leader, :put, [[:a], n])
      assert tree(lagging, :list_since, [[], revision]) == :unchanged
      assert {:ok, %Watch{}} = call(lagging, Watch, :start, [store(), [], [from: {:after, revision}]])
    end
  end

  defp storm(dir, rounds) do
    seed = ExUnit.configuration()[:seed]
    :rand.seed(:exsss, seed)
    peers = start_cluster(dir, 3)
    for peer <- peers, do: :ok = storm(peer, :start, [store(), peer.name])

    for round <- 1..rounds do
      kind = Enum.at([:restore, :force, :replace], rem(round, 3))
      in_turn = Enum.shuffle(peers)
      somewhat_later(hd(in_turn))
      fork = fork(kind, in_turn, dir)
      somewhat_later(hd(in_turn))
      fork.()
      led = led(peers)
      somewhat_later(hd(in_turn))
      await_led(peers, led)
      for peer <- peers, do: :ok = storm(peer, :write, [false])
      what = "#{kind}, round #{round}, seed #{seed}"
      for peer <- peers, do: storm(peer, :await_equal, [store(), "#{what}, on #{peer.node}"])

      eventually("all members to hold the same after #{what}", fn ->
        contents = Enum.map(peers, &ok!(storm(&1, :contents, [store()])))
        match?([same] when map_size(same) > 0, Enum.uniq(contents)) or {:not_yet, contents}
      end)

      for peer <- peers, do: :ok = storm(peer, :write, [true])
    end

    for peer <- peers, do: :ok = storm(peer, :write, [false])
    figures = ForkStorm.judge(Enum.flat_map(peers, &storm(&1, :notes, [])))
    assert figures.writes > 10 * rounds and figures.grants >= rounds and figures.guarded >= rounds, inspect(figures)
    IO.puts("#{rounds} forks of three members: #{inspect(figures)}")
  end

  defp storm(peer, function, args), do: call(peer, ForkStorm, function, args, 120_000)

  # How many grants and guarded writes the holders of all nodes had.
  defp led(peers), do: Enum.reduce(peers, {0, 0}, fn peer, sum -> add(storm(peer, :led, []), sum) end)

  defp add({grants, guarded}, {all_grants, all_guarded}), do: {grants + all_grants, guarded + all_guarded}

  # The former holder's lease ends first.
  defp await_led(peers, {grants, guarded}) do
    eventually("a grant and a guarded write after the fork", fn ->
      {grants_now, guarded_now} = led(peers)
      (grants_now > grants and guarded_now > guarded) or {:not_yet, {grants_now - grants, guarded_now - guarded}}
    end)
  end

  # Some writes.
  defp somewhat_later(peer) do
    later = status(peer).revision + :rand.uniform(60)

    eventually("revision #{later} on #{peer.node}", fn ->
      %{revision: revision} = status(peer)
      revision >= later or {:not_yet, revision}
    end)
  end

  test("all clients of three members go on by themselves, whatever forks the past", %{tmp_dir: dir}, do: storm(dir, 3))

  @tag :long
  @tag timeout: 7_200_000
  test(
    "all clients of three members go on by themselves, whatever forks the past, 100 times",
    %{tmp_dir: dir},
    do: storm(dir, 100)
  )
end
