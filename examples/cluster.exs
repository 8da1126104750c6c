# What bin/demo --cluster shows: three nodes on this machine that find each other, writes on all of them, and a
# `kill -9` of the leader. Ends with exit code 0 if no acknowledged write was lost and all members end alike, else 1.

Code.require_file("cluster_node.exs", __DIR__)

defmodule ClusterDemo do
  alias Tank.Store.{Cluster, StatusText}

  @host "127.0.0.1"
  # Of what the stores log (guides/logs.md), only warnings and errors.
  @quiet [~c"-logger", ~c"level", ~c"warning"]
  @call_ms 60_000
  @write_ms 2_000

  def main do
    dir = Path.join(System.tmp_dir!(), "tank_store_cluster_#{System.pid()}")
    File.mkdir_p!(dir)
    {:ok, _apps} = Application.ensure_all_started(:tank_store)

    headline(1, "Three nodes boot at once, each with `{Tank.Store, data_dir: ..., cluster: [three nodes]}`")
    names = for number <- 1..3, do: "tank#{number}_#{System.pid()}"
    peers = boot(names, dir, names)
    leader = await_leader(peers)
    show(leader)

    headline(2, "All three write; then the leader is killed with -9")
    for peer <- peers, do: :ok = call(peer, ClusterNode, :write, [acknowledged(peer, dir), peer.name])
    Process.sleep(@write_ms)
    killed_at = System.os_time(:millisecond)
    {_output, 0} = System.cmd("kill", ["-9", leader.os_pid])
    say("#{leader.node} is gone; the others write on")
    Process.sleep(@write_ms)
    survivors = peers -- [leader]
    for peer <- survivors, do: call(peer, ClusterNode, :stop_writing, [])
    notes = Map.new(peers, &{&1, notes(acknowledged(&1, dir))})
    say("#{notes |> Map.values() |> List.flatten() |> length()} writes were acknowledged")
    say("without a leader: #{pause(for(peer <- survivors, note <- notes[peer], do: note), killed_at)} ms")

    headline(3, "It comes back, and catches up")
    [back] = boot([leader.name], dir, names)
    peers = [back | survivors]
    show(await_leader(peers))

    verdict = verdict(peers, notes)
    for peer <- peers, do: :peer.stop(peer.control)
    if verdict == 0, do: File.rm_rf!(dir), else: IO.puts("The stores are still in #{dir}.")
    System.halt(verdict)
  end

  defp boot(names, dir, all) do
    nodes = Enum.map(all, &:"#{&1}@#{@host}")

    names
    |> Task.async_stream(&boot_one(&1, dir, nodes), timeout: 2 * @call_ms)
    |> Enum.map(fn {:ok, peer} -> peer end)
  end

  defp boot_one(name, dir, nodes) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])

    {:ok, control, node} =
      :peer.start(%{
        name: String.to_atom(name),
        host: String.to_charlist(@host),
        longnames: true,
        connection: :standard_io,
        wait_boot: @call_ms,
        args:
          [~c"-connect_all", ~c"false", ~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"] ++ @quiet ++ paths
      })

    peer = %{control: control, node: node, name: name}
    {:ok, _apps} = call(peer, Application, :ensure_all_started, [:tank_store])
    call(peer, Code, :require_file, [Path.join(__DIR__, "cluster_node.exs")])
    :ok = call(peer, ClusterNode, :start, [Path.join(dir, name), nodes])
    Map.put(peer, :os_pid, call(peer, System, :pid, []))
  end

  defp await_leader(peers) do
    case peers |> Enum.map(&call(&1, Cluster, :leader, [])) |> Enum.uniq() do
      [{:ok, node}] when node != nil ->
        Enum.find(peers, &(&1.node == node))

      _not_yet ->
        Process.sleep(20)
        await_leader(peers)
    end
  end

  defp show(leader) do
    :tank |> StatusText.render(call(leader, Cluster, :status, [])) |> String.split("\n") |> Enum.each(&say/1)
  end

  defp verdict(peers, notes) do
    names = for {_peer, written} <- notes, {name, _at} <- written, do: name
    # Linearizable, so that the member holds all that was ever acknowledged.
    for peer <- peers, do: {:error, :not_found} = call(peer, Tank.Store, :get_pod, ["nobody"])
    held = for peer <- peers, do: peer |> call(Tank.Store, :list_pods, []) |> MapSet.new(& &1.name)
    lost = Enum.count(names, fn name -> not Enum.all?(held, &(name in &1)) end)
    digests = for peer <- peers, do: peer |> call(Cluster, :status, []) |> elem(1) |> Map.fetch!(:digest)
    alike? = match?([_one], Enum.uniq(digests))

    say("acknowledged writes lost: #{lost} of #{length(names)}")
    say("state hashes of the three: #{if alike?, do: "equal", else: inspect(digests)}")
    if lost == 0 and alike?, do: 0, else: 1
  end

  defp acknowledged(peer, dir), do: Path.join(dir, "#{peer.name}.acknowledged")

  # The last line of the node that was killed may be cut off: that one was acknowledged to nobody.
  defp notes(file) do
    for line <- file |> File.read!() |> String.split("\n"), [name, at] <- [String.split(line)], byte_size(at) == 13 do
      {name, String.to_integer(at)}
    end
  end

  # The longest time without an acknowledgement anywhere, from the kill on.
  defp pause(notes, killed_at) do
    times = for({_name, at} <- notes, at >= killed_at, do: at) |> Enum.sort()
    [killed_at | times] |> Enum.chunk_every(2, 1, :discard) |> Enum.map(fn [a, b] -> b - a end) |> Enum.max()
  end

  defp call(peer, module, function, arguments), do: :peer.call(peer.control, module, function, arguments, @call_ms)
  defp headline(number, text), do: IO.puts("\n#{number}. #{text}")
  defp say(text), do: IO.puts("   #{text}")
end

ClusterDemo.main()
