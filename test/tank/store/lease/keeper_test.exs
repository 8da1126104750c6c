defmodule Tank.Store.Lease.KeeperTest do
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Cluster, Lease}
  alias Tank.Store.Lease.Keeper

  @moduletag :tmp_dir

  setup %{tmp_dir: dir}, do: {:ok, store: start_store(dir)}

  test "one of several holds the lease, and another one gets it when that one stops", %{store: store} do
    keepers = for n <- 1..3, do: start_supervised!({Keeper, options(store, n)}, id: n)

    assert_receive {first, {:acquired, lease}}, 5_000
    assert Keeper.lease(Enum.at(keepers, first - 1)) == {:ok, lease}
    for n <- [1, 2, 3] -- [first], do: assert(Keeper.lease(Enum.at(keepers, n - 1)) == {:error, :lease_ended})

    :ok = stop_supervised(first)
    assert_receive {^first, {:lost, ^lease, :stopped}}
    assert_receive {second, {:acquired, %{epoch: epoch}}}, 5_000
    assert second != first and epoch > lease.epoch
    refute_received {_other, {:acquired, _lease}}
  end

  test "it is renewed for longer than its ttl, with the same epoch", %{store: store} do
    keeper = start_supervised!({Keeper, Keyword.put(options(store, 1), :ttl, 300)})
    {:ok, lease} = Keeper.await(keeper)
    deadline = System.monotonic_time(:millisecond) + 1_500

    eventually("five times its ttl to be over", fn ->
      assert {:ok, %{epoch: epoch}} = Keeper.lease(keeper)
      assert epoch == lease.epoch
      System.monotonic_time(:millisecond) > deadline
    end)

    assert_received {1, {:acquired, ^lease}}
    refute_received {1, _lost}
  end

  test "it is lost in time when the store cannot be asked, and held again after that", %{store: store, tmp_dir: dir} do
    keeper = start_supervised!({Keeper, Keyword.put(options(store, 1), :ttl, 1_000)})
    {:ok, lease} = Keeper.await(keeper)
    :ok = Cluster.stop(store)
    stopped = System.monotonic_time(:millisecond)
    assert_receive {1, {:lost, %{epoch: epoch}, :not_renewed}}, 5_000
    assert epoch == lease.epoch
    # 2 % earlier than the store may grant it to another.
    assert System.monotonic_time(:millisecond) - stopped <= 1_100
    assert Keeper.lease(keeper) == {:error, :lease_ended}

    start_store(dir, store_id: store)
    assert {:ok, _lease} = Keeper.await(keeper, 10_000)
  end

  test "a lease that the store has ended is lost, and acquired again with another epoch", %{store: store} do
    start_supervised!({Keeper, Keyword.put(options(store, 1), :ttl, 600)})
    assert_receive {1, {:acquired, lease}}, 5_000
    :ok = Lease.release(lease)
    assert_receive {1, {:lost, _lease, :lease_ended}}, 5_000
    assert_receive {1, {:acquired, %{epoch: epoch}}}, 5_000
    assert epoch > lease.epoch
  end

  test "a handler that is slow delays no renewal", %{store: store} do
    me = self()

    slow = fn event ->
      send(me, event)
      if match?({:acquired, _lease}, event), do: receive(do: (:go_on -> :ok), after: (1_500 -> :ok))
    end

    keeper = start_supervised!({Keeper, Keyword.merge(options(store, 1), ttl: 300, handler: slow)})
    assert_receive {:acquired, lease}, 5_000
    refute_receive {:lost, _lease, _reason}, 1_000
    assert {:ok, %{epoch: epoch}} = Keeper.lease(keeper)
    assert epoch == lease.epoch
  end

  @tag :capture_log
  test "a handler that raises ends the keeper, and the lease is not free at once", %{store: store} do
    Process.flag(:trap_exit, true)
    options = Keyword.merge(options(store, 1), ttl: 60_000, handler: fn _event -> raise "cannot" end)
    {:ok, keeper} = Keeper.start_link(options)
    assert_receive {:EXIT, ^keeper, {%RuntimeError{}, _stacktrace}}, 5_000
    assert {:ok, %Lease{}} = Lease.read(store, "lease")
  end

  test "what makes no sense raises" do
    for {wrong, message} <- [
          {[ttl: 0], ~r/^option :ttl must be milliseconds, from 1/},
          {[lease: nil], ~r/^option :lease must be a path or one component, got: nil/},
          {[handler: 7], ~r/^option :handler must be a function of one argument/},
          {[retry_ms: 0], ~r/^option :retry_ms must be milliseconds from 1 on/},
          {[store_id: "x"], ~r/^option :store_id must be an atom/}
        ] do
      assert_raise ArgumentError, message, fn -> Keeper.start_link(Keyword.merge(options(:none, 1), wrong)) end
    end
  end

  defp options(store, n) do
    me = self()
    [store_id: store, lease: "lease", ttl: 5_000, retry_ms: 20, handler: &send(me, {n, &1})]
  end
end
