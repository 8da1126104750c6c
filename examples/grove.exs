# A grow-only counter that is replicated over two nodes, and survives their restart: its state is kept by
# Tank.Store.Grove, in a store that both nodes are members of.
#
#     mix run examples/grove.exs
#
# Each node counts visits on its own, knows only its own count, and saves it now and then; the backend merges. Ends with
# exit code 0 when no visit was lost, else 1.

Code.require_file("grove_counter.exs", __DIR__)

defmodule GroveExample do
  @host "127.0.0.1"
  # Of what the stores log (guides/logs.md), only warnings and errors.
  @quiet [~c"-logger", ~c"level", ~c"warning"]
  @call_ms 60_000
  @visits 25

  def main do
    dir = Path.join(System.tmp_dir!(), "tank_store_grove_#{System.pid()}")

    headline("Two nodes, one store")
    [one, two] = nodes = for name <- ~w(one two), do: boot(name, dir)
    :ok = call(two, Tank.Store.Cluster, :join, [:grove, one.node, @call_ms])
    {:ok, members} = call(one, Tank.Store.Cluster, :nodes, [:grove])
    say("members: #{inspect(members)}")

    headline("Both count #{@visits} visits at the same time, and save after each")

    nodes
    |> Enum.map(&Task.async(fn -> call(&1, GroveCounter, :visits, [&1.name, @visits]) end))
    |> Task.await_many(@call_ms)

    for node <- nodes, do: say("#{node.name} reads #{call(node, GroveCounter, :total, [])}")

    headline("Both are killed with -9, and start anew")
    for node <- nodes, do: {_output, 0} = System.cmd("kill", ["-9", call(node, System, :pid, [])])
    nodes = for name <- ~w(one two), do: boot(name, dir)
    for node <- nodes, do: :ok = call(node, Tank.Store.Cluster, :wait_for_leader, [:grove, @call_ms])
    totals = for node <- nodes, do: call(node, GroveCounter, :total, [])
    for {node, total} <- Enum.zip(nodes, totals), do: say("#{node.name} reads #{total}")

    headline("And count on")
    for node <- nodes, do: call(node, GroveCounter, :visits, [node.name, 1])
    last = for node <- nodes, do: call(node, GroveCounter, :total, [])
    say("now they read #{Enum.join(last, " and ")}")
    for node <- nodes, do: :peer.stop(node.control)
    File.rm_rf!(dir)
    System.halt(if totals == [2 * @visits, 2 * @visits] and last == [2 * @visits + 2, 2 * @visits + 2], do: 0, else: 1)
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

    booted = %{control: control, node: node, name: name}
    {:ok, _apps} = call(booted, Application, :ensure_all_started, [:tank_store])
    call(booted, Code, :require_file, [Path.join(__DIR__, "grove_counter.exs")])
    {:ok, :grove} = call(booted, Tank.Store.Cluster, :start, [Path.join(dir, name), :grove, @call_ms])
    booted
  end

  defp call(node, module, function, arguments), do: :peer.call(node.control, module, function, arguments, @call_ms)
  defp headline(text), do: IO.puts("\n#{text}")
  defp say(text), do: IO.puts("   #{text}")
end

GroveExample.main()
