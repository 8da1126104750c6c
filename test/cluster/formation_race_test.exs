defmodule Tank.Store.Cluster.FormationRaceTest do
  # Power cycles of all nodes, with wiped disks (a minority), in random orders and at random moments, and nodes that die
  # while they start: always one cluster, nothing acknowledged is lost, and a blank node answers nobody.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterCase

  @moduletag :tmp_dir
  @starts_ms 120_000

  for {rounds, tags} <- [{8, []}, {200, [:long]}] do
    for tag <- tags, do: @tag(tag)
    @tag timeout: rounds * 120_000

    test "#{rounds} rounds of power cycles and wiped disks: one cluster, nothing lost", %{tmp_dir: dir} do
      seed =
        String.to_integer(
          System.get_env("TANK_SEED", "#{System.unique_integer([:positive]) + System.os_time(:second)}")
        )

      IO.puts("formation race, seed #{seed}: TANK_SEED=#{seed} mix test test/cluster/formation_race_test.exs")
      :rand.seed(:exsss, {seed, 0, 0})
      peers = start_nodes(dir, 3, store: false)
      Enum.reduce(1..unquote(rounds), %{peers: peers, id: nil, acknowledged: %{}}, &round/2)
    end
  end

  defp round(number, state) do
    # From the beginning again: founding, and the death of the one that founds, belong to the race.
    fresh? = number == 1 or rem(number, 4) == 0
    wiped = if fresh?, do: state.peers, else: Enum.take_random(state.peers, Enum.random(0..1))
    {id, acknowledged} = if fresh?, do: {nil, %{}}, else: {state.id, state.acknowledged}

    peers = Enum.map(state.peers, &stop(&1, Enum.random([:in_order, :in_order, :killed])))
    for peer <- peers, peer.node in Enum.map(wiped, & &1.node), do: File.rm_rf!(peer.dir)

    started_at = System.monotonic_time(:millisecond)

    {peers, written} =
      peers
      |> Enum.shuffle()
      |> Enum.map(fn peer ->
        plan = %{
          delay: Enum.random([0, 0, Enum.random(1..1_000)]),
          dies_after: Enum.random([nil, nil, nil, Enum.random(0..700)]),
          probe: "r#{number}-#{peer.name}",
          known: if(acknowledged == %{}, do: nil, else: Enum.random(acknowledged))
        }

        Task.async(fn -> start(peer, Enum.map(peers, & &1.node), plan) end)
      end)
      |> Task.await_many(@starts_ms)
      |> Enum.unzip()

    peers = peers |> Enum.sort_by(& &1.name) |> Enum.map(&stop_at_exit/1)
    {:ok, _revision} = put(Enum.random(peers), "r#{number}", number, 20_000)
    acknowledged = written |> Enum.reduce(acknowledged, &Map.merge(&2, &1)) |> Map.put("r#{number}", number)
    check(number, peers, id, acknowledged)
    took = System.monotonic_time(:millisecond) - started_at
    IO.puts("  round #{number}: #{length(wiped)} wiped, #{map_size(acknowledged)} entries, #{took} ms")
    %{peers: peers, id: cluster_id(hd(peers)), acknowledged: acknowledged}
  end

  defp check(number, peers, id, acknowledged) do
    all = peers |> Enum.map(& &1.node) |> Enum.sort()

    for peer <- peers do
      assert {:ok, ^all} = cluster(peer, :nodes, [store(), 30_000]), "members in round #{number}"
      {:ok, %{members: members}} = cluster(peer, :status, [store()])
      eventually("#{peer.node} to know three voters", fn -> voters?(peer) || {:not_yet, members} end, 30_000)

      for {name, value} <- acknowledged,
          do: assert(get(peer, name, 20_000) == {:ok, value}, "#{name} in round #{number}")
    end

    ids = peers |> Enum.map(&cluster_id/1) |> Enum.uniq()
    assert match?([_one], ids), "clusters in round #{number}: #{inspect(ids)}"
    if id, do: assert(ids == [id], "another cluster in round #{number}")
    await_agreement(peers)
  end

  defp voters?(peer) do
    {:ok, %{members: members}} = cluster(peer, :status, [store()])
    length(members) == 3 and Enum.all?(members, &(&1.role in [:leader, :voter]))
  end

  defp cluster_id(peer), do: elem(cluster(peer, :status, [store()]), 1).cluster_id

  defp stop(peer, :in_order) do
    :ok = cluster(peer, :stop, [store()])
    peer
  end

  defp stop(peer, :killed) do
    kill_node(peer)
    boot_again(peer)
  end

  # Starts the store of a node at its moment; in some plans the node dies meanwhile, once, and is booted again. Gives what
  # was acknowledged to the probe that asks and writes all the time.
  defp start(peer, nodes, plan) do
    pause(plan.delay)
    written = probing(peer, plan)
    starting = Task.async(fn -> try_start(peer, nodes) end)

    if plan.dies_after do
      pause(plan.dies_after)
      kill_node(peer)
      _died = Task.await(starting, @starts_ms)
      before = collect(written)
      peer = boot_unwatched(peer)
      {peer, after_death} = start(peer, nodes, %{plan | delay: 0, dies_after: nil, probe: plan.probe <> "b"})
      {peer, Map.merge(before, after_death)}
    else
      assert Task.await(starting, @starts_ms) == {:ok, store()}
      assert cluster(peer, :wait_for_leader, [store(), 60_000]) == :ok
      {peer, collect(written)}
    end
  end

  defp try_start(peer, nodes) do
    start_listed(peer, nodes, timeout: 90_000)
  catch
    :exit, _the_node_died -> :died
  end

  # A task that is linked to the test's process, which a failed assertion ends.
  defp probing(peer, plan), do: Task.async(fn -> probe(peer, plan, 0, %{}) end)

  defp collect(probing) do
    send(probing.pid, :stop)
    Task.await(probing, @starts_ms)
  end

  defp probe(peer, plan, number, written) do
    receive do
      :stop -> written
    after
      20 ->
        name = "#{plan.probe}-#{number}"

        case ask(fn -> call(peer, ClusterCase, :local_probe, [plan.known && elem(plan.known, 0), name, number]) end) do
          {read, put} ->
            if plan.known,
              do: assert(read == {:ok, elem(plan.known, 1)} or match?({:error, why} when why != :not_found, read))

            written = if match?({:ok, _revision}, put), do: Map.put(written, name, number), else: written
            probe(peer, plan, if(put == {:error, :noproc}, do: number, else: number + 1), written)

          :died ->
            probe(peer, plan, number, written)
        end
    end
  end

  defp ask(fun) do
    fun.()
  catch
    :exit, _the_node_died -> :died
  end

  defp pause(ms), do: receive(after: (ms -> :ok))
end
