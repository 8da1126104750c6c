defmodule Tank.Store.Cluster.PartitionsTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.Network

  @moduletag :tmp_dir
  @moduletag :faults

  setup %{tmp_dir: dir} do
    network = Network.up(3)
    peers = start_cluster(dir, 3, host: &Network.address/1, exec: &Network.exec(network, &1))
    %{network: network, peers: peers, number: fn peer -> Enum.find_index(peers, &(&1 == peer)) + 1 end}
  end

  test "a leader cut off with clients on its side answers nothing stale", context do
    %{network: network, peers: peers, number: number} = context
    leader = await_leader(peers)
    [other, third] = peers -- [leader]
    {:ok, _} = put(leader, "k", 0)
    Network.isolate(network, number.(leader))

    # Readers at the old leader while the others elect a new one and write. What is read must not be older than what
    # was acknowledged before the read began.
    reading = Task.async(fn -> read_until(leader, System.monotonic_time(:millisecond) + 4_000, []) end)
    first = eventually("the majority to take a write", fn -> acknowledged(other, 1) end)

    later = for value <- 2..20, do: acknowledged(third, value)
    reads = Task.await(reading, 20_000)
    writes = [first | later]

    for {began, {:ok, value}} <- reads do
      newest =
        writes
        |> Enum.filter(&match?({_value, at} when at < began, &1))
        |> Enum.map(&elem(&1, 0))
        |> Enum.max(fn -> 0 end)

      assert value >= newest, "read #{value}, and #{newest} was acknowledged before"
    end

    answered = Enum.count(reads, &match?({_began, {:ok, _value}}, &1))
    IO.puts("#{length(reads)} reads at the isolated leader, #{answered} answered, none stale")

    {microseconds, result} = :timer.tc(fn -> put(leader, "k", :lost, 1_000) end)
    assert match?({:error, reason} when reason in [:no_quorum, :timeout], result)
    assert microseconds < 1_500_000
    assert list(leader)["k"] == 0
    assert {:ok, all} = cluster(leader, :nodes, [store(), [favor: :low_latency]])
    assert length(all) == 3

    assert eventually("the leader to notice", fn ->
             match?({:ok, %{quorum: false}}, cluster(leader, :status, [store()]))
           end)

    Network.heal(network)
    assert eventually("the old leader to read", fn -> get(leader, "k", 1_000) == {:ok, 20} end, 30_000)
    await_agreement(peers)
  end

  test "a member that hears and is not heard, or the other way round, does not stop the others", context do
    %{network: network, peers: peers, number: number} = context

    for direction <- [:to_leader, :from_leader] do
      leader = await_leader(peers)
      [other, third] = peers -- [leader]

      case direction do
        :to_leader -> Network.cut(network, number.(third), number.(leader))
        :from_leader -> Network.cut(network, number.(leader), number.(third))
      end

      for value <- 1..20, do: assert({:ok, _} = put(other, "k", {direction, value}, 5_000))
      assert {:ok, {^direction, 20}} = get(other, "k")
      Network.heal(network)
      assert eventually("the third to read", fn -> get(third, "k", 1_000) == {:ok, {direction, 20}} end, 60_000)
      await_agreement(peers)
    end
  end

  test "two that are cut off from each other go on through the third", context do
    %{network: network, peers: peers, number: number} = context
    leader = await_leader(peers)
    [other, third] = peers -- [leader]
    Network.cut(network, number.(leader), number.(third))
    Network.cut(network, number.(third), number.(leader))
    for value <- 1..20, do: assert({:ok, _} = put(other, "k", value))
    Network.heal(network)
    assert eventually("all to read", fn -> Enum.all?(peers, &(get(&1, "k", 1_000) == {:ok, 20})) end, 60_000)
    await_agreement(peers)
  end

  defp acknowledged(peer, value) do
    with {:ok, _revision} <- put(peer, "k", value),
         do: {value, System.monotonic_time(:millisecond)},
         else: (_error -> nil)
  end

  defp read_until(peer, deadline, reads) do
    began = System.monotonic_time(:millisecond)
    if began > deadline, do: reads, else: read_until(peer, deadline, [{began, get(peer, "k", 200)} | reads])
  end
end
