defmodule Tank.Store.Cluster.RegistryTest do
  # What Tank.Store.Registry promises between nodes. The nodes are operating system processes of their own.
  use Tank.Store.RegistryCase, async: false

  alias Tank.Store.ClusterCase.Peer

  @scope Tank.Store.Registry.Scope

  test "a registry that starts late learns all earlier stores", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    start_store_on(one, :early)
    start_store_on(two, :early)
    start_store_on(two, :other)
    await_listed([one, two], early: one, early: two, other: two)

    [late] = start_connected(Path.join(dir, "late"), 1)
    assert listed(late) == []
    start_listener(late)
    connect_all([one, two, late])
    await_listed([late], early: one, early: two, other: two)
    assert Enum.sort(heard(late)) == Enum.sort(for {id, node} <- listed(late), do: {:announced, id, node})

    assert {:ok, [row]} = call(late, Stores, :list_stores_on_node, [one.node])
    assert row == hd(elem(call(one, Stores, :list_stores_on_node, [one.node]), 1))
    assert row.data_dir == Path.join(one.dir, "early")
    assert call(late, Stores, :list_stores_on_node, [:nobody@nowhere]) == {:ok, []}
  end

  test "the store that was registered last is the one that is given", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    announce_and_stay(one, :twice, data_dir: "/one")
    await_listed([two], twice: one)
    {:ok, %{registered_at: first}} = call(two, Stores, :get_store_info, [:twice])
    # The clock of the nodes is the same, and has to move on.
    eventually("a later millisecond", fn -> System.system_time(:millisecond) > first end)
    announce_and_stay(two, :twice, data_dir: "/two")
    await_listed([one, two], twice: one, twice: two)
    for peer <- [one, two], do: assert({:ok, %{data_dir: "/two"}} = call(peer, Stores, :get_store_info, [:twice]))
  end

  test "a node that goes down loses its rows on every survivor, with events, and a new one has its own", context do
    peers = [one, two, three] = start_connected(context.tmp_dir, 3)
    for peer <- peers, do: start_store_on(peer, :app)
    start_store_on(three, :more)
    await_listed(peers, app: one, app: two, app: three, more: three)
    for peer <- [one, two], do: start_listener(peer)

    kill_node(three)
    await_listed([one, two], app: one, app: two)

    for peer <- [one, two] do
      assert {:ok, []} = call(peer, Stores, :list_stores_on_node, [three.node])
      {snapshot, events} = Enum.split(heard(peer), 4)
      assert Enum.all?(snapshot, &match?({:announced, _id, _node}, &1))
      assert Enum.sort(events) == [{:retired, :app, three.node}, {:retired, :more, three.node}]
    end
  end

  test "a node on which the library is stopped retires its rows at once", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    start_store_on(two, :app)
    announce_and_stay(two, :foreign, data_dir: "/foreign")
    await_listed([one], app: two, foreign: two)
    start_listener(one)

    :ok = call(two, Application, :stop, [:tank_store])
    await_listed([one], [])
    assert [_app, _foreign, {:retired, _, _}, {:retired, _, _}] = heard(one)

    :ok = call(two, Application, :start, [:tank_store])
    start_store_on(two, :app)
    await_listed([one, two], app: two)
  end

  test "after a split heals the rows return, once each", %{tmp_dir: dir} do
    [one, two, three] = peers = start_connected(dir, 3)
    for peer <- peers, do: start_store_on(peer, :app)
    await_listed(peers, app: one, app: two, app: three)
    for peer <- peers, do: start_listener(peer)

    split(one, three)
    split(two, three)
    await_listed([one, two], app: one, app: two)
    await_listed([three], app: three)
    # What changes meanwhile is learned when they meet again.
    start_store_on(three, :new)
    :ok = call(two, Tank.Store.Cluster, :stop, [:app])
    await_listed([one], app: one)

    heal(one, three)
    heal(two, three)
    await_listed(peers, app: one, app: three, new: three)

    assert Enum.drop(heard(one), 3) |> Enum.sort() ==
             Enum.sort([
               {:retired, :app, three.node},
               {:retired, :app, two.node},
               {:announced, :app, three.node},
               {:announced, :new, three.node}
             ])

    assert [{:announced, :app, from}] =
             for({:announced, _, _} = event <- Enum.drop(heard(three), 3), do: event) --
               [{:announced, :new, three.node}]

    assert from == one.node
  end

  test "a node cannot bring back what it knows of another", %{tmp_dir: dir} do
    [one, two, three] = peers = start_connected(dir, 3)
    start_store_on(three, :app)
    await_listed(peers, app: three)

    # Two goes on to know it, one does not.
    split(one, three)
    await_listed([one], [])
    await_listed([two], app: three)
    start_listener(one)

    # One asks two for all it has, as a new registry, and as one that meets it again.
    kill_on(one, Stores)
    split(one, two)
    heal(one, two)
    start_store_on(two, :answer)
    await_listed([one], answer: two)
    assert heard(one) == [{:announced, :answer, two.node}]

    # What a message says about a third node is not taken.
    {:ok, [row]} = call(two, Stores, :list_stores_on_node, [three.node])
    registry = whereis(two, Stores)
    forged = {:all, registry, {:another_vm, 1}, 9, [row]}
    send_to_registry(one, {:tank_registry, 1, forged})
    assert {:ok, []} = call(one, Stores, :list_stores_on_node, [three.node])
  end

  test "a killed registry has its node's rows within a second, and nobody hears of it", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    start_store_on(one, :app)
    pid = announce_and_stay(one, :foreign, data_dir: "/foreign", timeout: 70)
    start_store_on(one, :hidden)
    :ok = call(one, Stores, :unannounce_store, [:hidden])
    await_listed(peers, app: one, foreign: one)
    for peer <- peers, do: start_listener(peer)
    before = call(two, Stores, :list_stores, [])

    for _time <- 1..5 do
      old = kill_on(one, Stores)
      # The call is answered by the next one.
      {microseconds, rows} = :timer.tc(fn -> listed(one) end)
      assert rows == [app: one.node, foreign: one.node]
      assert microseconds < 1_000_000
      assert whereis(one, Stores) not in [nil, old]
    end

    # It is met again: what it says is heard, and those it follows are seen by it.
    start_store_on(two, :later)
    await_listed(peers, app: one, foreign: one, later: two)
    {:ok, rows} = call(two, Stores, :list_stores, [])
    assert {:ok, Enum.reject(rows, &(&1.store_id == :later))} == before

    # The next one depends on the same process.
    call(one, Process, :exit, [pid, :kill])
    await_listed(peers, app: one, later: two)

    events = [announced: :app, announced: :foreign, announced: :later, retired: :foreign]
    for peer <- peers, do: assert(for({type, id, _node} <- heard(peer), do: {type, id}) == events)
  end

  test "what happens while there is no registry is known to the next one", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    start_store_on(one, :stops)
    start_store_on(one, :stays)
    await_listed(peers, stops: one, stays: one)
    start_listener(two)
    :ok = call(one, Supervisor, :terminate_child, [Tank.Store.Registry.Supervisor, Tank.Store.Registry.Server])
    await_listed([two], [])
    :ok = call(one, Tank.Store.Cluster, :stop, [:stops])
    start_store_on(one, :starts)
    {:ok, _pid} = call(one, Supervisor, :restart_child, [Tank.Store.Registry.Supervisor, Tank.Store.Registry.Server])
    await_listed(peers, stays: one, starts: one)
    assert {:announced, :starts, one.node} in heard(two)
    refute {:announced, :stops, one.node} in Enum.drop(heard(two), 2)
  end

  test "an unannounce that races with a join does not resurrect", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    start_listener(two)

    for round <- 1..30 do
      for id <- [:gone, :stays], do: announce_and_stay(one, id, data_dir: "/#{round}")
      # The registry of two starts, or is connected, just while the store is unannounced.
      if rem(round, 3) == 0, do: split(one, two)
      joining = Task.async(fn -> if rem(round, 3) == 0, do: heal(one, two), else: kill_on(two, Stores) end)
      :ok = call(one, Stores, :unannounce_store, [:gone])
      Task.await(joining, 60_000)
      # Each node's changes come in order: when this one is there, all before it are.
      announce_and_stay(one, :mark, data_dir: "/#{round}")
      await_row(two, one, :mark, "/#{round}")
      assert {:stays, one.node} in listed(two)
      refute {:gone, one.node} in listed(two)
    end

    assert_consistent(heard_rows(two))
  end

  test "a row goes with the process that announced it", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    start_listener(two)
    pid = announce_and_stay(one, :foreign, data_dir: "/foreign")
    await_listed(peers, foreign: one)
    call(one, Process, :exit, [pid, :kill])
    await_listed(peers, [])
    assert heard(two) == [{:announced, :foreign, one.node}, {:retired, :foreign, one.node}]
  end

  test "a store whose server is killed is retired, and announced when it is open again", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    start_store_on(one, :app)
    await_listed(peers, app: one)
    for peer <- peers, do: start_listener(peer)
    server = call(one, Tank.Store.Server, :whereis, [:app])
    call(one, Process, :exit, [server, :kill])
    events = [{:announced, :app, one.node}, {:retired, :app, one.node}, {:announced, :app, one.node}]
    for peer <- peers, do: await_heard(peer, events)
    :ok = call(one, Tank.Store.Cluster, :stop, [:app])
    await_listed(peers, [])
    for peer <- peers, do: await_heard(peer, events ++ [{:retired, :app, one.node}])
    assert [first, _retired, second, retired] = heard_rows(two)
    assert elem(second, 1).registered_at >= elem(first, 1).registered_at
    assert elem(second, 1) == elem(retired, 1)
  end

  test "the end of the scope is noticed, and the registries meet again", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    start_store_on(one, :app)
    await_listed(peers, app: one)
    for peer <- peers, do: start_listener(peer)

    for peer <- peers do
      registry = whereis(peer, Stores)
      old = kill_on(peer, @scope)
      eventually("a new scope on #{peer.node}", fn -> whereis(peer, @scope) not in [nil, old] end)

      eventually("the registry in it", fn ->
        registry in call(peer, :pg, :get_local_members, [@scope, :registries])
      end)

      assert whereis(peer, Stores) == registry
    end

    # One that starts now is found through it, and finds all.
    [late] = start_connected(Path.join(dir, "late"), 1)
    start_store_on(late, :late)
    connect_all([one, two, late])
    await_listed([one, two, late], app: one, late: late)
    start_store_on(two, :two)
    await_listed([one, two, late], app: one, late: late, two: two)
    events = [{:announced, :app, one.node}, {:announced, :late, late.node}, {:announced, :two, two.node}]
    for peer <- peers, do: assert(heard(peer) == events)
  end

  test "all at once killed, scopes and registries, they meet again without a word", %{tmp_dir: dir} do
    peers = [one, two, three] = start_connected(dir, 3)
    for peer <- peers, do: start_store_on(peer, :app)
    await_listed(peers, app: one, app: two, app: three)
    for peer <- peers, do: start_listener(peer)

    for _time <- 1..3 do
      peers |> Enum.map(&Task.async(fn -> for name <- [@scope, Stores], do: kill_on(&1, name) end)) |> Task.await_many()
      await_listed(peers, app: one, app: two, app: three)
    end

    start_store_on(one, :last)
    await_listed(peers, app: one, app: two, app: three, last: one)
    for peer <- peers, do: assert([_one, _two, _three, {:announced, :last, _node}] = heard(peer))
  end

  test "the rows of a registry that does not come back are retired in the end", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    start_store_on(two, :app)
    await_listed([one], app: two)
    start_listener(one)
    :ok = call(two, Tank.Store.RegistryCase, :local_end_registry, [])
    await_listed([one], [])
    await_heard(one, [{:announced, :app, two.node}, {:retired, :app, two.node}])
  end

  test "a store that gets members is a cluster", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    for peer <- peers, do: start_store_on(peer, :app)
    await_listed(peers, app: one, app: two)
    assert {:ok, [%{mode: :single}]} = call(two, Stores, :list_stores_on_node, [one.node])
    :ok = call(two, Tank.Store.Cluster, :join, [:app, one.node, 30_000])

    for peer <- peers do
      eventually("both to be a cluster on #{peer.node}", fn ->
        {:ok, rows} = call(peer, Stores, :list_stores, [])
        if Enum.map(rows, & &1.mode) == [:cluster, :cluster], do: true, else: {:not_yet, rows}
      end)
    end
  end

  test "a node that becomes distributed has its rows under its name", %{tmp_dir: dir} do
    [other] = start_connected(dir, 1)
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    {:ok, control, _node} = :peer.start(%{connection: :standard_io, args: paths, wait_boot: 60_000})
    os_pid = :peer.call(control, System, :pid, [])
    peer = %Peer{control: control, os_pid: os_pid, node: :nonode@nohost, dir: Path.join(dir, "late")}
    on_exit(fn -> stop_node(peer) end)
    {:ok, _apps} = call(peer, Application, :ensure_all_started, [:tank_store])
    start_store_on(peer, :app)
    start_listener(peer)
    assert listed(peer) == [app: :nonode@nohost]

    name = :"named#{System.unique_integer([:positive])}_#{System.pid()}@127.0.0.1"
    {:ok, _pid} = call(peer, Node, :start, [name, :longnames])
    true = call(peer, Node, :set_cookie, [:tank_cluster_test])
    peer = %{peer | node: name}
    connect(peer, other)
    await_listed([peer, other], app: peer)
    await_heard(peer, [{:announced, :app, :nonode@nohost}, {:retired, :app, :nonode@nohost}, {:announced, :app, name}])
    start_store_on(other, :other)
    await_listed([peer, other], app: peer, other: other)
  end

  test "a subscriber that comes while another node's rows change misses nothing, and hears nothing twice", context do
    [one, two] = start_connected(context.tmp_dir, 2)
    ids = [:a, :b, :c, :d]

    for _round <- 1..10 do
      churning = Task.async(fn -> call(one, Tank.Store.RegistryCase, :local_churn, [ids, 2_000]) end)
      start_listener(two)
      left = Task.await(churning, 60_000)
      await_listed([one, two], for(id <- left, do: {id, one}))
      {:ok, rows} = call(two, Stores, :list_stores, [])
      assert assert_consistent(heard_rows(two)) == rows
      for id <- ids, do: :ok = call(one, Stores, :unannounce_store, [id])
      await_listed([one, two], [])
    end
  end

  test "announcing twice replaces the row on all nodes, and what says the same is not told", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    start_listener(two)
    for data_dir <- ["/a", "/a", "/b", "/b"], do: announce_and_stay(one, :app, data_dir: data_dir)
    await_row(two, one, :app, "/b")
    assert [{:announced, %{data_dir: "/a"}}, {:announced, %{data_dir: "/b"}}] = heard_rows(two)
    assert listed(two) == [app: one.node]
  end

  test "messages of no meaning from another node are ignored", %{tmp_dir: dir} do
    [one, two] = start_connected(dir, 2)
    start_store_on(one, :app)
    await_listed([one, two], app: one)
    registry = whereis(one, Stores)

    for message <- [:unknown, {:tank_registry, 99, {:bye, registry}}, {:tank_registry, 1, :unknown}, {:store_event, 1}] do
      :ok = call(two, Tank.Store.RegistryCase, :local_send, [{Stores, one.node}, message])
    end

    start_store_on(two, :later)
    await_listed([one, two], app: one, later: two)
    assert whereis(one, Stores) == registry
  end

  test "a call from another node may announce", %{tmp_dir: dir} do
    [one, two] = peers = start_connected(dir, 2)
    :ok = call(two, :erpc, :call, [one.node, Stores, :announce_store, [:remote, %{data_dir: "/remote"}]])
    :ok = call(one, Stores, :announce_store, [:direct, %{data_dir: "/direct"}])
    await_listed(peers, direct: one, remote: one)
    # Each is in order: the ends of both processes were told before the answer to a later call.
    announce_and_stay(one, :mark, data_dir: "/mark")
    await_listed(peers, direct: one, mark: one, remote: one)
    :ok = call(one, Stores, :unannounce_store, [:remote])
    await_listed(peers, direct: one, mark: one)
  end

  defp send_to_registry(peer, message), do: call(peer, Tank.Store.RegistryCase, :local_send, [Stores, message])

  defp await_row(peer, of, id, data_dir) do
    eventually("#{id} of #{of.node} on #{peer.node}", fn ->
      {:ok, rows} = call(peer, Stores, :list_stores_on_node, [of.node])
      if Enum.any?(rows, &(&1.store_id == id and &1.data_dir == data_dir)), do: true, else: {:not_yet, rows}
    end)
  end
end
