defmodule Tank.Store.ClusterCase do
  @moduledoc """
  For tests with several nodes: each is an operating system process, with a store in a directory of its own.

  The tests' own node stays undistributed, and controls the others through their standard input: it sees a node also
  when that one is cut off from all others, and is no member of anything.
  """

  use ExUnit.CaseTemplate

  alias Tank.Store.{Call, Cluster, Path}

  @store :cluster_test
  # Starting a VM takes a second, and much longer while others compile.
  @boot_ms 180_000
  @call_ms 120_000

  using do
    quote do
      import Tank.Store.{ClusterCase, TankCase}
      # Several VMs at a time are slower than one.
      @moduletag timeout: 300_000
    end
  end

  defmodule Peer do
    @moduledoc "A node of a test."
    defstruct [:control, :node, :dir, :os_pid, :name, :host, :exec]
  end

  @doc "The store id of all nodes."
  def store, do: @store

  @doc "Starts nodes with a running store each, in directories below `dir`; they are no cluster yet."
  def start_nodes(dir, count, options \\ []) do
    1..count
    |> Task.async_stream(&start_node(dir, &1, options), timeout: @boot_ms * 2, max_concurrency: count)
    |> Enum.map(fn {:ok, peer} -> peer end)
    |> tap(fn peers -> ExUnit.Callbacks.on_exit(fn -> Enum.each(peers, &stop_node/1) end) end)
  end

  @doc "Starts nodes that form a cluster."
  def start_cluster(dir, count, options \\ []) do
    [first | others] = peers = start_nodes(dir, count, options)
    for peer <- others, do: :ok = cluster(peer, :join, [@store, first.node, 30_000])
    peers
  end

  @doc "Starts the VM of a node anew, with its store."
  def restart_node(%Peer{} = peer) do
    peer = boot(peer.name, peer.host, peer.dir, peer.exec)
    {:ok, @store} = cluster(peer, :start, [peer.dir, @store, 30_000])
    ExUnit.Callbacks.on_exit(fn -> stop_node(peer) end)
    peer
  end

  @doc "Starts the VM of a node again, without its store. For the test's own process."
  def boot_again(%Peer{} = peer), do: peer |> boot_unwatched() |> stop_at_exit()

  @doc "The same for any process. The test's own one calls `stop_at_exit/1` then."
  def boot_unwatched(%Peer{} = peer), do: boot(peer.name, peer.host, peer.dir, peer.exec)

  @doc "Has the node stopped when the test ends, instead of the one that had its name before."
  def stop_at_exit(%Peer{} = peer) do
    ExUnit.Callbacks.on_exit({:peer, peer.name}, fn -> stop_node(peer) end)
    peer
  end

  @doc "Starts the store of a node with a list of nodes that form a cluster, and options."
  def start_listed(peer, nodes, options \\ []) do
    {timeout, options} = Keyword.pop(options, :timeout, 30_000)
    config = Map.merge(%{cluster_name: @store, cluster: nodes}, Map.new(options))
    cluster(peer, :start, [peer.dir, config, timeout])
  end

  @doc "The details of an alarm of a node's store, once it is raised with a message that has all of `texts`."
  def await_alarm(peer, name, texts) do
    Tank.Store.TankCase.eventually(
      "the alarm #{name} at #{peer.node} with #{inspect(texts)}",
      fn ->
        with {:ok, %{alarms: alarms}} <- cluster(peer, :status, [@store]),
             %{message: message} = details <- alarms[name],
             true <- Enum.all?(texts, &String.contains?(message, &1)) do
          details
        else
          _not_yet -> {:not_yet, cluster(peer, :status, [@store])}
        end
      end,
      60_000
    )
  end

  @doc "`kill -9` of the node's operating system process; returns at once."
  def kill_node(%Peer{os_pid: os_pid}), do: {_output, 0} = System.cmd("kill", ["-9", os_pid])

  @doc "Sends a signal, such as `STOP`, to the node's operating system process."
  def signal(%Peer{os_pid: os_pid}, name), do: {_output, 0} = System.cmd("kill", ["-#{name}", os_pid])

  @doc "Ends a node; one that is dead is fine."
  def stop_node(%Peer{control: control} = peer) do
    # The control process ends with its node. The pid of one that was killed may be another process's by now: on a busy
    # machine they are taken again within minutes.
    if Process.alive?(control), do: System.cmd("kill", ["-9", peer.os_pid], stderr_to_stdout: true)
    :peer.stop(control)
  catch
    :exit, _gone -> :ok
  end

  @doc "Calls a function on a node."
  def call(%Peer{control: control}, module, function, args, timeout \\ @call_ms),
    do: :peer.call(control, module, function, args, timeout)

  @doc "Calls `Tank.Store.Cluster` on a node."
  def cluster(peer, function, args), do: call(peer, Cluster, function, args)

  @doc "Writes on a node."
  def put(peer, name, value, timeout \\ 5_000), do: call(peer, __MODULE__, :local_put, [name, value, timeout])

  @doc "Reads on a node, linearizable."
  def get(peer, name, timeout \\ 5_000), do: call(peer, __MODULE__, :local_get, [name, timeout])

  @doc "What a node knows, at once: a map of names to values."
  def list(peer), do: call(peer, __MODULE__, :local_list, [])

  @doc "The peer that leads, by what all of `peers` say."
  def await_leader(peers) do
    Tank.Store.TankCase.eventually(
      "a leader of all #{length(peers)} nodes",
      fn ->
        leaders = peers |> Enum.map(&cluster(&1, :leader, [@store])) |> Enum.uniq()

        case leaders do
          [{:ok, node}] when node != nil -> Enum.find(peers, &(&1.node == node))
          _other -> nil
        end
      end,
      30_000
    )
  end

  @doc "Waits until all have the same entries, for `timeout` milliseconds at the most."
  def await_agreement(peers, timeout \\ 30_000) do
    Tank.Store.TankCase.eventually(
      "all nodes to have the same state",
      fn ->
        states =
          for peer <- peers do
            {:ok, status} = cluster(peer, :status, [@store])
            Map.take(status, [:revision, :digest, :entries])
          end

        match?([_one], Enum.uniq(states))
      end,
      timeout
    )
  end

  @doc "Waits until the member's log does not begin with `index`, or before it, any more."
  def await_purge(peer, index) do
    Tank.Store.TankCase.eventually(
      "the log to be purged beyond #{index}",
      fn ->
        {:ok, %{purged_index: purged}} = cluster(peer, :status, [@store])
        if is_integer(purged) and purged > index, do: true, else: {:not_yet, purged}
      end,
      30_000
    )
  end

  # -- On the nodes

  @doc false
  def local_put(name, value, timeout), do: Call.write(@store, :put, key(name), value, nil, timeout)

  @doc false
  def local_get(name, timeout), do: Call.get(@store, key(name), &{:ok, &1}, timeout)

  @doc false
  def local_list do
    {:ok, key} = Path.to_key([:test])

    with {:ok, children} <- Call.children(@store, key),
         do: for({_kind, name, value} <- children, into: %{}, do: {name, value})
  end

  @doc false
  # Writes "<prefix>-<n>" for so many numbers, by some processes at once.
  def local_fill(prefix, count, bytes) do
    value = :binary.copy("x", bytes)

    1..count
    |> Task.async_stream(fn number -> {:ok, _revision} = local_put("#{prefix}-#{number}", value, 30_000) end,
      max_concurrency: 128,
      timeout: :infinity
    )
    |> Stream.run()
  end

  @doc false
  # Counts up by comparing revisions: none may be applied twice, or be refused. Gives what it counted to.
  def local_count(name, revision, steps) do
    Enum.reduce(1..steps, revision, fn number, revision ->
      {:ok, revision} = Call.write(@store, :put, key(name), number, revision, 20_000)
      revision
    end)

    {:ok, count} = local_get(name, 20_000)
    count
  end

  @doc false
  def local_suspended, do: for(pid <- Process.list(), Process.info(pid, :status) == {:status, :suspended}, do: pid)

  @doc false
  def local_start_tank(dir, options \\ []) do
    {:ok, pid} = Tank.Store.start_link([data_dir: dir] ++ options)
    Process.unlink(pid)
    :ok
  end

  @doc false
  # The nodes that `get_nodes/0` gives here, for automatic formation.
  def put_nodes(nodes), do: :persistent_term.put({__MODULE__, :nodes}, nodes)

  @doc false
  def get_nodes, do: :persistent_term.get({__MODULE__, :nodes})

  @doc false
  # A read of what was acknowledged, if there is such, and a write.
  def local_probe(known, name, value), do: {known && local_get(known, 1_000), local_put(name, value, 1_000)}

  @doc false
  def raise_nodes, do: raise("no list today")

  @doc false
  def no_nodes, do: {:error, "no list"}

  @doc false
  # Starts Tank.Store, which may fail, in a process that may end with it.
  def try_start_tank(options) do
    Task.async(fn ->
      Process.flag(:trap_exit, true)
      Tank.Store.start_link(options)
    end)
    |> Task.await(:infinity)
  end

  @doc false
  def local_erase(dir), do: Tank.Store.LongCall.erase(dir, Atom.to_string(@store))

  @doc false
  def local_get_pod(name) do
    Tank.Store.get_pod(name)
  rescue
    error in Tank.Store.Error -> {:error, error.reason}
  end

  @doc false
  # Collects the events of the store.
  def start_subscriber do
    test = self()

    spawn(fn ->
      Process.register(self(), :subscriber)
      :ok = Cluster.subscribe(@store)
      send(test, :subscribed)
      collect([])
    end)

    receive do: (:subscribed -> :ok)
  end

  @doc false
  def heard do
    ref = make_ref()
    send(:subscriber, {:heard, self(), ref})
    receive do: ({^ref, events} -> events)
  end

  defp collect(events) do
    receive do
      {:store_cluster, @store, event} ->
        collect([event | events])

      {:heard, pid, ref} ->
        send(pid, {ref, events})
        collect(events)
    end
  end

  @doc false
  # Writes "<prefix>-<n>" one after the other until `stop_writer/1`.
  def start_writer(prefix) do
    spawn(fn ->
      Process.register(self(), :"writer_#{prefix}")
      write_on(prefix, 0, [], [])
    end)

    :ok
  end

  @doc false
  # Gives the numbers that were acknowledged, and the times of the acknowledgements.
  def stop_writer(prefix) do
    ref = make_ref()
    send(:"writer_#{prefix}", {:stop, self(), ref})
    receive do: ({^ref, acknowledged} -> acknowledged)
  end

  defp write_on(prefix, number, acknowledged, errors) do
    receive do
      {:stop, pid, ref} -> send(pid, {ref, %{acknowledged: acknowledged, errors: errors}})
    after
      0 ->
        case local_put("#{prefix}-#{number}", number, 5_000) do
          {:ok, _revision} ->
            write_on(prefix, number + 1, [{number, System.os_time(:millisecond)} | acknowledged], errors)

          {:error, reason} ->
            write_on(prefix, number + 1, acknowledged, [reason | errors])
        end
    end
  end

  @doc false
  # Notes the first alarm in the status of the store: it may be gone before a test looks.
  def start_alarm_watch, do: spawn(fn -> note_alarm() end)

  @doc false
  def first_alarm(watch) do
    send(watch, {:alarm?, self()})

    receive do
      {:alarm, alarm} -> alarm
    after
      10_000 -> nil
    end
  end

  defp note_alarm do
    case Cluster.status(@store) do
      {:ok, %{alarms: [alarm | _more]}} -> receive do: ({:alarm?, pid} -> send(pid, {:alarm, alarm}))
      _none -> receive after: (1 -> note_alarm())
    end
  end

  @doc false
  # A watch whose process never reads.
  def local_idle_watch(path) do
    test = self()

    spawn(fn ->
      {:ok, _watch} = Tank.Store.Watch.start(@store, path, mailbox_max: 1, lag_timeout_ms: 20)
      send(test, :watching)
      receive do: (:never -> :ok)
    end)

    receive do: (:watching -> :ok)
  end

  @doc false
  # Neither hears nor is heard by that node, until `local_connect/1`.
  def local_cut(node), do: Node.set_cookie(node, :another) and :erlang.disconnect_node(node) != :ignored

  @doc false
  def local_connect(node), do: Node.set_cookie(node, Node.get_cookie()) and Node.connect(node)

  defp key(name) do
    {:ok, key} = Path.to_key([:test, name])
    key
  end

  defp start_node(dir, number, options) do
    host = Keyword.get(options, :host, "127.0.0.1")
    # A test that follows at once must not meet a node of the one before.
    unique = fn number -> "tank#{number}_#{System.unique_integer([:positive])}_#{System.pid()}" end
    name = Keyword.get(options, :name, unique).(number)
    host = if is_function(host), do: host.(number), else: host
    exec = Keyword.get(options, :exec, fn _number -> nil end).(number)
    peer = boot(name, host, Elixir.Path.join(dir, "n#{number}"), exec)
    if Keyword.get(options, :store, true), do: start_store_of(peer, options), else: peer
  end

  defp start_store_of(peer, options) do
    config = Map.merge(%{cluster_name: @store}, Map.new(Keyword.get(options, :config, [])))
    {:ok, @store} = cluster(peer, :start, [peer.dir, config, 30_000])
    peer
  end

  defp boot(name, host, dir, exec) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    # Members reach each other when they need to; a broken connection must not cut others off.
    kernel = [~c"-connect_all", ~c"false", ~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"]

    {:ok, control, node} =
      %{
        name: String.to_atom(name),
        host: String.to_charlist(host),
        longnames: true,
        connection: :standard_io,
        args: kernel ++ [~c"-logger", ~c"level", ~c"info", ~c"-setcookie", ~c"tank_cluster_test"] ++ paths,
        wait_boot: @boot_ms
      }
      |> Map.merge(if exec, do: %{exec: exec}, else: %{})
      |> :peer.start()

    {:ok, _apps} = :peer.call(control, Application, :ensure_all_started, [:tank_store], @boot_ms)
    os_pid = :peer.call(control, System, :pid, [])
    %Peer{control: control, node: node, dir: dir, os_pid: os_pid, name: name, host: host, exec: exec}
  end
end
