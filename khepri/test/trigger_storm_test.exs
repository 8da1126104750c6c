defmodule Khepri.TriggerStormTest do
  # Triggers while leaders are killed: nothing is skipped, and what runs for the first time runs in order.
  use ExUnit.Case, async: false
  import Khepri.StoreCase, only: [eventually: 2]

  alias Khepri.{Peers, Storm}

  @moduletag timeout: 300_000
  @store :khepri_trigger_storm
  @kills 4
  @writers 3

  setup do
    Peers.start_distribution()
    peers = Peers.start_cluster(@store, 3)
    {:ok, collector} = Storm.start()
    on_exit(fn -> Process.exit(collector, :kill) end)
    for peer <- peers, do: configure(peer)
    [{_peer, one, _dir} | _] = peers
    :ok = :erpc.call(one, :khepri, :put, [@store, [:sprocs, :note], &Storm.ran/1])
    filter = :khepri_evf.tree([:storm, {:if_name_matches, :any, :undefined}], %{on_actions: [:create]})
    :ok = :erpc.call(one, :khepri, :register_trigger, [@store, :storm, filter, [:sprocs, :note]])
    %{peers: peers}
  end

  defp configure({_peer, node, _dir}), do: :ok = :erpc.call(node, Application, :put_env, [:khepri, :storm, node()])

  test "nothing is skipped, and the order is kept", %{peers: peers} do
    counter = :counters.new(1, [])
    stop = :atomics.new(1, [])
    writers = for w <- 1..@writers, do: Task.async(fn -> write(w, 1, stop, counter, peers) end)

    peers =
      Enum.reduce(1..@kills, peers, fn round, peers ->
        await_writes(counter, round * 40)
        kill_leader(peers)
      end)

    await_writes(counter, @kills * 40 + 60)
    :atomics.put(stop, 1, 1)
    acknowledged = writers |> Task.await_many(120_000) |> List.flatten()

    seen =
      eventually(
        fn ->
          seen = Storm.noted() |> Enum.map(&elem(&1, 0)) |> Enum.uniq()
          if acknowledged -- seen == [], do: seen
        end,
        6_000
      )

    for w <- 1..@writers do
      numbers = for {^w, n} <- Enum.map(seen, &:erlang.binary_to_term/1), do: n
      assert numbers == Enum.sort(numbers), "the procedures of writer #{w} did not run in order: #{inspect(numbers)}"
    end

    nodes = Storm.noted() |> Enum.map(&elem(&1, 2)) |> Enum.uniq()
    assert length(nodes) > 1, "no other leader ran any: #{inspect(nodes)}"
    assert length(peers) == 3
  end

  # Writes until it is stopped, each number again until it is acknowledged: names that were acknowledged.
  defp write(writer, n, stop, counter, peers) do
    if :atomics.get(stop, 1) == 1 do
      []
    else
      {_peer, node, _dir} = Enum.at(peers, rem(writer + n, 3))
      name = :erlang.term_to_binary({writer, n})

      case put(node, name) do
        :ok ->
          :counters.add(counter, 1, 1)
          [name | write(writer, n + 1, stop, counter, peers)]

        # Another number: what has no answer may be written yet.
        _unknown ->
          write(writer, n + 1, stop, counter, peers)
      end
    end
  end

  defp put(node, name) do
    :erpc.call(node, :khepri, :put, [@store, [:storm, name], 1, %{timeout: 2_000}], 5_000)
  catch
    :error, {:erpc, _noconnection_or_timeout} -> receive after: (100 -> :down)
    _class, _killed -> :down
  end

  defp await_writes(counter, wanted), do: eventually(fn -> :counters.get(counter, 1) >= wanted end, 6_000)

  defp kill_leader(peers) do
    leader = eventually(fn -> leader(peers) end, 3_000)
    killed = List.keyfind(peers, leader, 1)
    Peers.kill(killed)
    started = Peers.start_again(@store, killed)
    configure(started)
    List.keyreplace(peers, leader, 1, started)
  end

  # As most members see it: a former leader may not know yet.
  defp leader(peers) do
    seen = for {_peer, node, _dir} <- peers, {:ok, leader} when leader != nil <- [seen(node)], do: leader
    Enum.find(seen, fn leader -> Enum.count(seen, &(&1 == leader)) >= 2 end)
  end

  defp seen(node) do
    :erpc.call(node, Tank.Store.Cluster, :leader, [@store], 5_000)
  catch
    _class, _down -> :unknown
  end
end
