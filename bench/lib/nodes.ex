defmodule Tank.Bench.Nodes do
  @moduledoc "Erlang nodes on this machine with a member of one cluster each. The harness's own VM is none of them."

  alias Tank.Store.Cluster

  defstruct [:control, :name, :node, :os_pid, :dir]

  @type t :: %__MODULE__{}

  @boot_ms 60_000

  @doc "Starts `count` nodes that form a cluster, with `store`'s directories below `dir`."
  @spec start(module, Path.t(), pos_integer) :: [t]
  def start(store, dir, count) do
    nodes = for number <- 1..count, do: boot("bench#{number}_#{System.pid()}", Path.join(dir, "n#{number}"))
    for node <- nodes, do: :ok = call(node, store, :start, [node.dir])
    for node <- tl(nodes), do: :ok = call(node, Cluster, :join, [hd(nodes).node, @boot_ms])
    nodes
  end

  @doc "Calls a function on a node."
  @spec call(t, module, atom, [term]) :: term
  def call(%__MODULE__{control: control}, module, function, arguments),
    do: :peer.call(control, module, function, arguments, :infinity)

  @doc "The node that leads, and the others."
  @spec leader([t]) :: {t, [t]}
  def leader(nodes) do
    :ok = call(hd(nodes), Cluster, :wait_for_leader, [])
    {:ok, name} = call(hd(nodes), Cluster, :leader, [])
    {[leader], others} = Enum.split_with(nodes, &(&1.node == name))
    {leader, others}
  end

  @doc "Starts a node anew whose VM is gone, and waits until it has caught up with `others`."
  @spec restart(t, module, [t]) :: t
  def restart(node, store, others) do
    node = boot(node.name, node.dir)
    :ok = call(node, store, :start, [node.dir])
    await_same([node | others])
    node
  end

  @doc "Ends them."
  @spec stop([t]) :: :ok
  def stop(nodes), do: Enum.each(nodes, &:peer.stop(&1.control))

  defp boot(name, dir) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    kernel = [~c"-connect_all", ~c"false", ~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"]

    {:ok, control, node} =
      :peer.start(%{
        name: String.to_atom(name),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args: kernel ++ [~c"-setcookie", ~c"tank_bench"] ++ paths,
        wait_boot: @boot_ms
      })

    {:ok, _started} = :peer.call(control, Application, :ensure_all_started, [:tank_store], @boot_ms)
    %__MODULE__{control: control, name: name, node: node, os_pid: :peer.call(control, System, :pid, []), dir: dir}
  end

  defp await_same(nodes) do
    states = for node <- nodes, {:ok, status} = call(node, Cluster, :status, []), do: status.digest

    unless match?([_one], Enum.uniq(states)) do
      Process.sleep(20)
      await_same(nodes)
    end
  end
end
