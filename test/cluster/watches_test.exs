defmodule Tank.Store.Cluster.WatchesTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Storm, WatchCollector}

  @moduletag :tmp_dir

  # TANK_SECONDS=20 for a quick look.
  @seconds String.to_integer(System.get_env("TANK_SECONDS", "120"))
  @collectors 7
  @about [[], [:storm], [:storm, "a"], [:storm, :*, "x"], [:storm, "c", "u"], [:none]]

  test "a watch on any member tells what was written on any other", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    for peer <- peers, do: :ok = call(peer, WatchCollector, :start, [:all, store(), [], 0])
    for {peer, n} <- Enum.with_index(peers), i <- 1..30, do: {:ok, _} = put(peer, "a-#{n}", i)
    {:ok, last} = put(hd(peers), "end", 0)
    await_agreement(peers)
    log = history(hd(peers), 0, last)
    assert length(log) == last
    for peer <- peers, part <- call(peer, WatchCollector, :stop, [:all, last]), do: check(part, [], log)
  end

  test "writes of all kinds come in order, whole and once", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    %{log: log, counts: counts} = storm(peers, dir, 0, fn peers -> {peers, 0} end, 2_000)
    assert length(log) >= 2_000

    for kind <- [:put, :txn, :transaction, :delete, :put_many, :delete_many, :compact],
        do: assert(Map.get(counts, kind, 0) > 0, "no \#{kind}")
  end

  @tag :long
  @tag timeout: 3_600_000
  test "each stream is the replay of the log, while leaders are killed", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    {:ok, first} = put(hd(peers), "begin", 0)
    until = System.monotonic_time(:millisecond) + @seconds * 1_000
    killing = fn peers -> kill_leaders(peers, until, &start_all(&1, dir, first), 0) end
    %{log: log, parts: parts, counts: counts, kills: kills} = storm(peers, dir, first, killing, 0)
    kinds = Enum.map_join(counts, ", ", fn {kind, count} -> "#{count} #{kind}" end)
    told = "#{length(log)} revisions (#{kinds}), #{kills} leaders killed, #{length(parts)} watches"
    IO.puts("#{told}: none lost, doubled or split a revision")
    assert kills > 0
  end

  # Writers and watches on all nodes while `trouble` is made, and until so many revisions were made. Compares every watch
  # with the log. That is what the watches of everything saw, all together: they must agree, and leave nothing out.
  defp storm(peers, dir, first, trouble, revisions) do
    start_all(peers, dir, first)
    {peers, kills} = trouble.(peers)
    eventually("#{revisions} revisions", fn -> revision(hd(peers)) >= first + revisions end, 120_000)
    counts = for peer <- peers, do: call(peer, Storm, :stop, [:storm])
    {:ok, last} = put(hd(peers), "end", 0, 30_000)
    await_agreement(peers)
    for peer <- peers, n <- 1..@collectors, do: call(peer, WatchCollector, :stop, [name(n), last])
    parts = for n <- 1..@collectors, file <- files(dir, n), part <- WatchCollector.parts(file), do: {about(n), part}
    log = log(parts, first, last)
    for {about, part} <- parts, do: check(part, about, log)
    # And that is what the disk holds of it.
    [{:ok, min}] = peers |> Enum.map(&oldest/1) |> Enum.uniq()
    for peer <- peers, do: assert(history(peer, min, last) == WatchCollector.filtered(log, [], min, last))
    counts = Enum.reduce(counts, &Map.merge(&1, &2, fn _kind, one, other -> one + other end))
    %{log: log, parts: parts, counts: counts, kills: kills}
  end

  defp log(parts, first, last) do
    log =
      for {[], {_first, _upto, seen}} <- parts, {revision, changes} <- seen, reduce: %{} do
        log ->
          assert Map.get(log, revision, changes) == changes, "two watches were told different things of #{revision}"
          Map.put(log, revision, changes)
      end

    assert Enum.sort(Map.keys(log)) == Enum.to_list((first + 1)..last), "the watches of everything leave revisions out"
    Enum.sort(log)
  end

  defp kill_leaders(peers, until, start, kills) do
    Process.sleep(3_000)

    if System.monotonic_time(:millisecond) > until do
      {peers, kills}
    else
      leader = await_leader(peers)
      kill_node(leader)
      Process.sleep(2_000)
      back = restart_node(leader)
      start.([back])
      kill_leaders(Enum.map(peers, &if(&1 == leader, do: back, else: &1)), until, start, kills + 1)
    end
  end

  defp start_all(peers, dir, first) do
    for peer <- peers do
      for n <- 1..@collectors do
        file = Path.join(dir, "watched-#{n}-#{peer.os_pid}")
        :ok = call(peer, WatchCollector, :start, [name(n), store(), about(n), first, file])
      end

      :ok = call(peer, Storm, :start, [:storm, store()])
    end
  end

  defp files(dir, n), do: Path.wildcard(Path.join(dir, "watched-#{n}-*"))

  defp check({first, upto, seen}, about, log) do
    assert seen == WatchCollector.filtered(log, about, first, upto), "#{inspect(about)} behind #{first} up to #{upto}"
  end

  defp revision(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    status.revision
  end

  # The oldest revision that can be gone on from.
  defp oldest(peer) do
    case call(peer, Tank.Store.Tree, :list_since, [store(), [], 0]) do
      {:error, {:compacted, min}} -> {:ok, min}
      {:ok, _changes, _revision} -> {:ok, 0}
    end
  end

  defp history(peer, first, last), do: call(peer, WatchCollector, :history, [store(), first, last])
  defp name(n), do: :"collector_#{n}"
  defp about(n), do: Enum.at(@about, rem(n, length(@about)))
end
