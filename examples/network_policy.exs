# An agent for network policies: on one of three nodes it mirrors the endpoints of its host from the store, while they
# change, and while the store loses its quorum and gets it back.
#
#     mix run examples/network_policy.exs
#
# Ends with exit code 0 when the agent had each time what the store has, else 1.

Code.require_file("network_policy_agent.exs", __DIR__)

defmodule NetworkPolicyExample do
  alias Tank.Store.{Backend, Cluster, KVPair}

  @host "127.0.0.1"
  # Of what the stores log (guides/logs.md), only errors: the agent tells that the quorum is lost.
  @quiet [~c"-logger", ~c"level", ~c"error"]
  @store :network_policy
  @call_ms 60_000
  @wait_ms 30_000

  def main do
    dir = Path.join(System.tmp_dir!(), "tank_store_network_policy_#{System.pid()}")
    [one, two, three] = for name <- ~w(one two three), do: boot(name, dir)
    for node <- [two, three], do: :ok = call(node, Cluster, :join, [@store, one.node, @call_ms])
    {:ok, client} = Backend.new(@store, [:policy])
    for n <- 1..3, do: put(two, client, "eth#{n}", "10.0.0.#{n}")

    headline("The agent starts, on one of three nodes")
    :ok = call(one, NetworkPolicyAgent, :start, [client])
    await(one, :in_sync, ~w(eth1 eth2 eth3))

    headline("One changes, one goes, one makes no sense")
    put(two, client, "eth1", "10.0.0.9")
    :ok = call(two, Backend, :delete, [client, key("eth2")])
    put(two, client, "eth4", "not an address")
    await(one, :in_sync, ~w(eth1 eth3 eth4))

    headline("The other two nodes are killed with -9: no quorum, and what was programmed stays")
    for node <- [two, three], do: {_output, 0} = System.cmd("kill", ["-9", call(node, System, :pid, [])])
    await(one, :resync_in_progress, ~w(eth1 eth3 eth4))

    headline("One of them is back, others write there, and the agent gets the difference")
    two = boot("two", dir)
    :ok = call(two, Cluster, :wait_for_leader, [@store, @call_ms])
    put(two, client, "eth5", "10.0.0.5")
    :ok = call(two, Backend, :delete, [client, key("eth4")])
    await(one, :in_sync, ~w(eth1 eth3 eth5))

    headline("The agent stops, and takes its rules with it")
    :ok = call(one, NetworkPolicyAgent, :stop, [])
    await(one, :in_sync, [])

    for node <- [one, two], do: :peer.stop(node.control)
    File.rm_rf!(dir)
  end

  defp put(node, client, name, address),
    do: {:ok, _kv} = call(node, Backend, :apply, [client, %KVPair{key: key(name), value: address}])

  defp key(name), do: ["endpoints", "host-1", name]

  # The agent follows in its own time.
  defp await(node, status, names, deadline \\ System.monotonic_time(:millisecond) + @wait_ms) do
    has = {call(node, NetworkPolicyAgent, :status, []), call(node, NetworkPolicyAgent, :rules, [])}

    cond do
      match?({^status, _rules}, has) and Enum.sort(Map.keys(elem(has, 1))) == Enum.map(names, &key/1) ->
        for line <- call(node, NetworkPolicyAgent, :log, []), do: say(line)

      System.monotonic_time(:millisecond) < deadline ->
        Process.sleep(10)
        await(node, status, names, deadline)

      true ->
        IO.puts("the agent should have #{inspect({status, names})}, and has #{inspect(has)}")
        System.halt(1)
    end
  end

  defp boot(name, dir) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])

    {:ok, control, node} =
      :peer.start(%{
        name: :"#{name}_#{System.pid()}",
        host: String.to_charlist(@host),
        longnames: true,
        connection: :standard_io,
        wait_boot: @call_ms,
        args:
          [~c"-connect_all", ~c"false", ~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"] ++ @quiet ++ paths
      })

    booted = %{control: control, node: node}
    {:ok, _apps} = call(booted, Application, :ensure_all_started, [:tank_store])
    call(booted, Code, :require_file, [Path.join(__DIR__, "network_policy_agent.exs")])
    {:ok, @store} = call(booted, Cluster, :start, [Path.join(dir, name), @store, @call_ms])
    booted
  end

  defp call(node, module, function, arguments), do: :peer.call(node.control, module, function, arguments, @call_ms)
  defp headline(text), do: IO.puts("\n#{text}")
  defp say(text), do: IO.puts("   #{text}")
end

NetworkPolicyExample.main()
