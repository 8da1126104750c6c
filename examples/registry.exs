# A gateway that follows the registry: it knows at any time on which nodes each store runs, and sends each request to
# one of them. It runs no store itself, and asks nobody when a request comes in.
#
#     mix run examples/registry.exs
#
# Two nodes on this machine run stores; they start, stop and lose some. Ends with exit code 0 when the gateway knew all
# that, else 1.

Code.require_file("registry_gateway.exs", __DIR__)

defmodule RegistryExample do
  @host "127.0.0.1"
  # Of what the stores log (guides/logs.md), only warnings and errors.
  @quiet [~c"-logger", ~c"level", ~c"warning"]
  @call_ms 60_000
  @wait_ms 30_000

  def main do
    dir = Path.join(System.tmp_dir!(), "tank_store_registry_#{System.pid()}")
    {:ok, _apps} = Application.ensure_all_started(:tank_store)
    {control, gateway} = boot("gateway")
    {:ok, _pid} = call(control, RegistryGateway, :start, [])

    headline("Two nodes come, each with a store; the gateway hears of both")
    [{one, node_one}, {two, node_two}] = for name <- ~w(one two), do: boot(name)
    # From then on the nodes know each other, and nobody tells the gateway about stores.
    for node <- [node_one, node_two], do: true = call(control, Node, :connect, [node])
    for {node, name} <- [{one, "one"}, {two, "two"}], do: start(node, Path.join(dir, name), :orders)
    await(control, :orders, [node_one, node_two])

    headline("Requests go to where the store is")
    for _request <- 1..2, do: say("served by #{inspect(call(control, RegistryGateway, :request, [:orders]))}")

    headline("A second store starts on one of them")
    start(one, Path.join(dir, "invoices"), :invoices)
    await(control, :invoices, [node_one])

    headline("A store stops")
    :ok = call(one, Tank.Store.Cluster, :stop, [:orders])
    await(control, :orders, [node_two])

    headline("The node with the other one is killed with -9")
    {_output, 0} = System.cmd("kill", ["-9", call(two, System, :pid, [])])
    await(control, :orders, [])
    say("a request gets #{inspect(call(control, RegistryGateway, :request, [:orders]))}")

    headline("The gateway's registry is killed: it misses nothing")
    call(control, RegistryGateway, :kill_registry, [])
    start(one, Path.join(dir, "again"), :orders)
    await(control, :orders, [node_one])
    say("served by #{inspect(call(control, RegistryGateway, :request, [:orders]))}")

    headline("What the gateway heard, on #{gateway}")
    for line <- call(control, RegistryGateway, :log, []), do: say(line)
    for {node, _name} <- [{control, gateway}, {one, node_one}], do: :peer.stop(node)
    File.rm_rf!(dir)
  end

  defp boot(name) do
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

    {:ok, _apps} = call(control, Application, :ensure_all_started, [:tank_store])
    call(control, Code, :require_file, [Path.join(__DIR__, "registry_gateway.exs")])
    {control, node}
  end

  defp start(control, dir, id), do: {:ok, ^id} = call(control, Tank.Store.Cluster, :start, [dir, id, @call_ms])

  # What the gateway knows is told to it a moment after it is so.
  defp await(control, id, nodes),
    do: await(control, id, Enum.sort(nodes), System.monotonic_time(:millisecond) + @wait_ms)

  defp await(control, id, nodes, deadline) do
    known = call(control, RegistryGateway, :nodes, [id])

    cond do
      known == nodes ->
        say("#{id}: #{inspect(known)}")

      System.monotonic_time(:millisecond) > deadline ->
        say("#{id}: #{inspect(known)}, and should be #{inspect(nodes)}")
        System.halt(1)

      true ->
        Process.sleep(10)
        await(control, id, nodes, deadline)
    end
  end

  defp call(control, module, function, arguments), do: :peer.call(control, module, function, arguments, @call_ms)
  defp headline(text), do: IO.puts("\n#{text}")
  defp say(text), do: IO.puts("   #{text}")
end

RegistryExample.main()
