defmodule Tank.Store.RegistryCase do
  @moduledoc """
  For tests of the registry on several nodes: the nodes of `Tank.Store.ClusterCase`, connected and split by hand, with
  a subscriber on each that notes what it hears.
  """

  use ExUnit.CaseTemplate

  import ExUnit.Assertions, only: [flunk: 1]
  import Tank.Store.ClusterCase, only: [call: 4, start_nodes: 3]
  import Tank.Store.TankCase, only: [eventually: 3]

  alias Tank.Store.{Cluster, Registry}

  @cookie :tank_cluster_test
  @wait_ms 30_000

  using do
    quote do
      import Tank.Store.{ClusterCase, RegistryCase, TankCase}
      alias Tank.Store.Registry, as: Stores
      @moduletag timeout: 300_000
      @moduletag :tmp_dir
    end
  end

  @doc "Starts nodes that are connected, all to all, and run no store."
  def start_connected(dir, count) do
    peers = start_nodes(dir, count, store: false)
    connect_all(peers)
    peers
  end

  @doc "Connects nodes, all to all."
  def connect_all(peers), do: for(one <- peers, other <- peers, one.node < other.node, do: connect(one, other))

  @doc "Connects two nodes."
  def connect(one, other) do
    eventually(
      "#{one.node} and #{other.node} to be connected",
      fn -> call(one, Node, :connect, [other.node]) == true end,
      @wait_ms
    )
  end

  @doc "Ends the connection of two nodes, and lets them have none until `heal/2`."
  def split(one, other) do
    for {from, to} <- [{one, other}, {other, one}], do: call(from, Node, :set_cookie, [to.node, :apart])
    call(one, Node, :disconnect, [other.node])

    for {from, to} <- [{one, other}, {other, one}] do
      eventually("the connection to end", fn -> to.node not in call(from, Node, :list, []) end, @wait_ms)
    end
  end

  @doc "Lets two nodes connect again, and has them do it."
  def heal(one, other) do
    for {from, to} <- [{one, other}, {other, one}], do: call(from, Node, :set_cookie, [to.node, @cookie])
    connect(one, other)
  end

  @doc "Starts a store of this library on a node."
  def start_store_on(peer, id) do
    {:ok, ^id} = call(peer, Cluster, :start, [Path.join(peer.dir, "#{id}"), id, 30_000])
    id
  end

  @doc "What the registry of a node lists, as `{store_id, node}`."
  def listed(peer) do
    {:ok, rows} = call(peer, Registry, :list_stores, [])
    Enum.map(rows, &{&1.store_id, &1.node})
  end

  @doc "Waits until the registries of all `peers` list just these `{store_id, peer}`. Gives how long that took, in ms."
  def await_listed(peers, stores) do
    expected = stores |> Enum.map(fn {id, peer} -> {id, peer.node} end) |> Enum.sort()
    began = System.monotonic_time(:millisecond)

    for peer <- peers do
      eventually(
        "the registry of #{peer.node} to list #{inspect(expected)}",
        fn ->
          seen = listed(peer)
          if seen == expected, do: true, else: {:not_yet, seen}
        end,
        @wait_ms
      )
    end

    System.monotonic_time(:millisecond) - began
  end

  @doc "Has a process of the node hear all events, after a snapshot."
  def start_listener(peer), do: call(peer, __MODULE__, :local_start_listener, [])

  @doc "What it heard: `{type, store_id, node}`, first to last, once the registry of the node has sent all it has to."
  def heard(peer), do: for({type, row} <- heard_rows(peer), do: {type, row.store_id, row.node})

  @doc "The same with whole rows."
  def heard_rows(peer), do: call(peer, __MODULE__, :local_heard, [])

  @doc "Waits until the subscriber of a node has heard just that."
  def await_heard(peer, expected) do
    eventually(
      "the subscriber on #{peer.node} to hear #{inspect(expected)}",
      fn ->
        seen = heard(peer)
        if seen == expected, do: true, else: {:not_yet, seen}
      end,
      @wait_ms
    )
  end

  @doc """
  Fails unless each event of `heard_rows/1` changed something. Gives the rows that they lead to, sorted as the registry
  lists them.
  """
  def assert_consistent(events) do
    events
    |> Enum.reduce(%{}, fn {type, row}, rows ->
      key = {row.store_id, row.node}

      case {type, rows[key]} do
        {:announced, known} when known != row ->
          Map.put(rows, key, row)

        {:retired, ^row} ->
          Map.delete(rows, key)

        {_type, known} ->
          flunk("heard #{type} of #{inspect(row)}, while #{inspect(known)} was known: #{inspect(events)}")
      end
    end)
    |> Map.values()
    |> Enum.sort_by(&{&1.store_id, &1.node})
  end

  @doc "The pid of a named process of a node."
  def whereis(peer, name), do: call(peer, Process, :whereis, [name])

  @doc "Kills a named process of a node brutally. Gives its pid."
  def kill_on(peer, name), do: call(peer, __MODULE__, :local_kill, [name])

  @doc "Has a process of the node announce a store, and live on."
  def announce_and_stay(peer, id, config), do: call(peer, __MODULE__, :local_announce, [id, config])

  # -- On the nodes

  @doc false
  def local_start_listener do
    test = self()
    # The one before, if any, ends.
    if Process.whereis(:listener), do: local_kill(:listener)

    spawn(fn ->
      Process.register(self(), :listener)
      :ok = Registry.subscribe(self(), snapshot: true)
      send(test, :subscribed)
      listen([])
    end)

    receive do: (:subscribed -> :ok)
  end

  @doc false
  def local_heard do
    # What was sent to the listener before this answer is in its mailbox.
    {:ok, _rows} = Registry.list_stores()
    ref = make_ref()
    send(:listener, {:heard, self(), ref})
    receive do: ({^ref, events} -> events)
  end

  @doc false
  def local_kill(name) do
    pid = Process.whereis(name)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> pid)
  end

  @doc false
  def local_announce(id, config) do
    test = self()

    pid =
      spawn(fn ->
        :ok = Registry.announce_store(id, config)
        send(test, {:announced, self()})
        receive do: (:end -> :ok)
      end)

    receive do: ({:announced, ^pid} -> pid)
  end

  @doc false
  # Announces and unannounces stores at random, so many times; gives the ids that are left.
  def local_churn(ids, times) do
    Enum.reduce(1..times, MapSet.new(), fn _time, left ->
      id = Enum.random(ids)

      if :rand.uniform(2) == 1 do
        :ok = Registry.announce_store(id, data_dir: "/#{:rand.uniform(3)}")
        MapSet.put(left, id)
      else
        :ok = Registry.unannounce_store(id)
        MapSet.delete(left, id)
      end
    end)
  end

  @doc false
  def local_send(name, message) do
    send(name, message)
    :ok
  end

  @doc false
  # Ends the registry for good: its supervisor is held up.
  def local_end_registry do
    :ok = :sys.suspend(Registry.Supervisor)
    local_kill(Registry)
    :ok
  end

  defp listen(events) do
    receive do
      {:store_event, type, row} ->
        listen([{type, row} | events])

      {:heard, pid, ref} ->
        send(pid, {ref, Enum.reverse(events)})
        listen(events)
    end
  end
end
