defmodule Khepri.Peers do
  @moduledoc "Nodes of this machine that run a store of Khepri's API."

  import ExUnit.Callbacks, only: [on_exit: 1]

  @doc "Makes this node one that others connect to."
  def start_distribution do
    _daemon = System.cmd("epmd", ["-daemon"])

    unless Node.alive?(),
      do: {:ok, _pid} = Node.start(:"khepri_tests_#{System.pid()}@127.0.0.1", :longnames)

    :ok
  end

  @doc "An empty directory that is removed when the test ends."
  def directory do
    dir = Path.join(System.tmp_dir!(), "khepri_cluster_#{System.unique_integer([:positive])}_#{System.pid()}")
    on_exit(fn -> File.rm_rf!(dir) end)
    dir
  end

  @doc "Starts nodes with a cluster of a store: `[{peer, node, directory}]`."
  def start_cluster(store, count) do
    base = directory()

    peers =
      for n <- 1..count,
          do: start(store, :"k#{n}_#{System.unique_integer([:positive])}", Path.join(base, "#{n}"))

    [{_peer, one, _dir} | others] = peers
    for {_peer, node, _dir} <- others, do: :ok = :erpc.call(node, :khepri_cluster, :join, [store, one, 60_000])
    peers
  end

  @doc "Starts a node, and the store on it."
  def start(store, name, dir) do
    {:ok, peer, node} = :peer.start_link(%{name: name, host: '127.0.0.1', longnames: true, args: arguments()})
    :ok = :erpc.call(node, :code, :add_paths, [:code.get_path()])
    {:ok, _started} = :erpc.call(node, Application, :ensure_all_started, [:khepri])
    {:ok, ^store} = :erpc.call(node, :khepri, :start, [dir, store])
    {peer, node, dir}
  end

  defp arguments do
    ['-setcookie', Atom.to_charlist(Node.get_cookie()), '-kernel', 'prevent_overlapping_partitions', 'false'] ++ quiet()
  end

  # What they log is printed among the tests' output, since it is not captured: so they log warnings only.
  defp quiet, do: ['-kernel', 'logger_level', 'warning', '-logger', 'level', 'warning']

  @doc "Kills the process of a node, and waits until it is not connected any more."
  def kill({peer, node, _dir}) do
    true = Node.monitor(node, true)
    Process.unlink(peer)
    _pid = spawn(fn -> :erpc.cast(node, :erlang, :halt, [137, [flush: false]]) end)
    receive do: ({:nodedown, ^node} -> :ok), after: (30_000 -> raise("#{node} lives on"))
  end

  @doc "Starts a node that was killed, with its directory."
  def start_again(store, {_peer, node, dir}) do
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    start(store, String.to_atom(name), dir)
  end
end
