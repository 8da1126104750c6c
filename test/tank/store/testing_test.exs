defmodule Tank.Store.TestingTest do
  use ExUnit.Case, async: true
  use Tank.Store.Testing, as: [:tank, :testing_app]

  alias Tank.Store.{Cluster, Error, Lease, Projection, Testing, Tree, Watch}

  # Code under test: it knows nothing of tests.
  defmodule Deployer do
    use GenServer
    def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)
    def deploy(server, name), do: GenServer.call(server, {:deploy, name})
    def init(nil), do: {:ok, nil}

    def handle_call({:deploy, name}, _from, state) do
      pod = Tank.Pod.new!(name: name, containers: [[name: "app", image: "app"]])
      {:reply, Tank.Store.put_pod(pod), state}
    end
  end

  doctest Testing

  # Each of them finds an empty store, at the same time as the others of this VM.
  for n <- 1..5 do
    test "a test has a store of its own, #{n}", %{store: store} do
      assert Tank.Store.list_pods() == []
      :ok = Tank.Store.put_at([:a], unquote(n))
      assert Tank.Store.get_at([:a]) == {:ok, unquote(n)}
      assert Tree.get(:testing_app, [:a]) == {:ok, unquote(n)}
      assert Tree.get(store, [:a]) == {:ok, unquote(n)}
      assert {:ok, %{revision: 1}} = Cluster.status(store)
    end
  end

  test "processes that the test started use its store, and others only once they are allowed" do
    supervised = start_supervised!(Deployer)
    assert Deployer.deploy(supervised, "web") == :ok
    assert [%{name: "web"}] = Tank.Store.list_pods()

    assert [{:ok, [%{name: "web"}]}] =
             ["x"] |> Task.async_stream(fn _name -> Tank.Store.list_pods() end) |> Enum.to_list()

    me = self()
    spawn(fn -> send(me, GenServer.start(Deployer, nil)) end)
    assert_receive {:ok, stranger}
    assert Deployer.deploy(stranger, "db") == {:error, :noproc}
    :ok = allow(stranger)
    assert Deployer.deploy(stranger, "db") == :ok
    assert length(Tank.Store.list_pods()) == 2
    GenServer.stop(stranger)

    assert_raise ArgumentError, ~r/^no process :nobody runs/, fn -> allow(:nobody) end
  end

  test "watches, projections and leases take the names of the code under test" do
    start_supervised!({Projection, store_id: :testing_app, table: :testing_projection})
    {:ok, watch} = Watch.start(:testing_app, [], from: :now)
    {:ok, lease} = Lease.acquire(:testing_app, "one", holder: 1, ttl: 10_000)
    {:ok, revision} = Tree.put(:testing_app, [:a], 1)
    %{ref: ref} = watch
    assert_receive {:store_watch, ^ref, {:changes, ^revision, [%{value: 1}]}}, 5_000
    eventually("the row", fn -> :ets.lookup(:testing_projection, [:a]) == [{[:a], 1}] end)
    :ok = Lease.release(lease)
  end

  test "each fault is what callers would see, and ends", %{store: store} do
    :ok = Tank.Store.put_at([:a], 1)

    with_fault(store, :no_quorum, fn ->
      assert Tank.Store.put_at([:a], 2) == {:error, :no_quorum}
      assert_raise Error, ~r/no leader that a majority/, fn -> Tank.Store.get_at([:a]) end
      assert Tank.Store.list_pods() == []
      assert Tree.get(:tank, [:a], favor: :low_latency) == {:ok, 1}
      assert {:error, :no_quorum} = Lease.acquire(:tank, "one", holder: 1, ttl: 1_000)
      # Also by its own id, and in other processes.
      assert Task.await(Task.async(fn -> Tree.put(store, [:a], 2) end)) == {:error, :no_quorum}
    end)

    with_fault(store, :full, fn ->
      assert Tank.Store.put_at([:a], 2) == {:error, :disk_full}
      assert Tank.Store.get_at([:a]) == {:ok, 1}
    end)

    with_fault(store, {:slow, 50}, fn ->
      assert {micros, :ok} = :timer.tc(fn -> Tank.Store.put_at([:a], 2) end)
      assert micros >= 50_000
    end)

    {:ok, watch} = Watch.start(:tank, [], from: :now)
    %{ref: ref} = watch

    with_fault(store, :stopped, fn ->
      assert Tank.Store.put_at([:a], 3) == {:error, :noproc}
      assert_raise Error, fn -> Tank.Store.list_pods() end
      assert_receive {:store_watch, ^ref, {:cancelled, :store_stopped}}, 5_000
    end)

    assert Tank.Store.get_at([:a]) == {:ok, 2}
  end

  test "leases end when their time is skipped, with what was put with them", %{store: store} do
    {:ok, kept} = Lease.acquire(:tank, "kept", holder: 1, ttl: 60_000)
    {:ok, lost} = Lease.acquire(:tank, "lost", holder: 1, ttl: 5_000)
    {:ok, _revision} = Tree.put(:tank, [:with, "it"], 1, lease: lost)
    {:ok, watch} = Watch.start(:tank, [:with], from: :now)
    %{ref: ref} = watch
    advance_leases(store, 6_000)
    assert_receive {:store_watch, ^ref, {:changes, _revision, [%{type: :expired}]}}, 5_000
    assert Lease.renew(lost) == {:error, :lease_ended}
    assert {:ok, _safe_ms} = Lease.renew(kept)
  end

  test "a fault ends also when the function raises", %{store: store} do
    assert_raise RuntimeError, fn -> with_fault(store, :full, fn -> raise "no" end) end
    assert Tank.Store.put_at([:a], 1) == :ok
  end

  @tag tank_store: [value_bytes_max: 100]
  test "a test has options of its own" do
    assert Tank.Store.put_at([:a], String.duplicate("x", 200)) == {:error, {:too_large, :value, 100}}
  end

  @tag tank_store: false
  test "a test without a store finds none" do
    assert Tree.get(:testing_app, [:a]) == {:error, :noproc}
  end

  test "two stores in one test", %{store: store} do
    second = Testing.start_supervised(as: [:testing_second])
    assert second != store
    :ok = Tank.Store.put_at([:a], 1)
    assert Tree.get(:testing_second, [:a]) == {:error, :not_found}
  end

  test "nothing is left of a store that was stopped" do
    store = Testing.start(as: [:testing_left])
    {:ok, %{data_dir: dir}} = Cluster.status(store)
    :ok = Testing.stop(store)
    refute File.exists?(dir) or Cluster.is_store_running(store)
    assert Testing.stop(store) == :ok
    assert Tree.get(:testing_left, [:a]) == {:error, :noproc}
  end

  test "what is waited for in vain says what was seen last" do
    assert_raise ExUnit.AssertionError, ~r/waited for rain; last saw :sun/, fn ->
      eventually("rain", fn -> {:not_yet, :sun} end, 20)
    end
  end
end
