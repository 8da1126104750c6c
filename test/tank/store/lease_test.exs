defmodule Tank.Store.LeaseTest do
  # One member. With three, and holders and leaders that are stopped: test/cluster/lease_test.exs.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Call, Change, Cluster, Lease, Native, Running, Tree, Watch, Watched}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir}, do: %{store: start_store(dir, store_id: :tank)}

  doctest Tank.Store.Lease

  defp acquire(name, holder, ttl \\ 60_000), do: Lease.acquire(:tank, name, holder: holder, ttl: ttl)

  defp put_attached(name, lease) do
    {:ok, native} = Running.fetch(:tank)
    {:ok, key} = Tank.Store.Path.to_key([:attached, name])
    put = {key, :erlang.term_to_binary(name), lease.epoch}
    Call.request(&Native.put_all(native, &1, [put], nil, &2), 5_000)
  end

  defp attached do
    {:ok, key} = Tank.Store.Path.to_key([:attached])
    {:ok, children} = Call.children(:tank, key)
    for {:string, name, name} <- children, do: name
  end

  defp await_end(name) do
    eventually("the lease #{inspect(name)} to end", fn -> Lease.read(:tank, name) == {:error, :not_found} end, 30_000)
    System.monotonic_time(:millisecond)
  end

  test "a lease is granted to one, and its epoch rises with every grant and not with renewals" do
    {:ok, first} = acquire("a", :me)
    {:ok, other} = acquire("b", :me)
    assert other.epoch > first.epoch
    assert {:error, {:held, held}} = acquire("a", :you)
    assert {held.name, held.holder, held.epoch, held.ttl, held.store} == {["a"], :me, first.epoch, 60_000, :tank}
    assert {:ok, _ms} = Lease.renew(first)
    assert {:ok, %{epoch: epoch}} = Lease.read(:tank, "a")
    assert epoch == first.epoch
    assert Lease.release(first) == :ok
    {:ok, second} = acquire("a", :you)
    assert second.epoch > other.epoch

    # The first holder can do nothing any more.
    assert Lease.renew(first) == {:error, :lease_ended}
    assert Lease.release(first) == :ok
    assert {:ok, %{holder: :you}} = Lease.read(:tank, "a", favor: :low_latency)
  end

  test "names are paths; atoms and strings differ" do
    {:ok, string} = acquire("a", 1)
    {:ok, atom} = acquire(:a, 2)
    {:ok, path} = acquire([:a, "b"], 3)
    assert Enum.map([string, atom, path], & &1.name) == [["a"], [:a], [:a, "b"]]
    assert {:ok, %{holder: 1}} = Lease.read(:tank, ["a"])
    assert {:error, {:invalid_path, _why}} = acquire(7, 1)
    assert {:error, {:too_large, :lease_name, 1024}} = acquire(List.duplicate("abcdefgh", 200), 1)
    assert {:error, {:too_large, :lease_holder, 1024}} = acquire("large", String.duplicate("x", 2_000))
    for ttl <- [0, -1, 1.5, nil], do: assert_raise(ArgumentError, ~r/:ttl/, fn -> acquire("a", 1, ttl) end)
    assert Lease.acquire(:no_such_store, "a", holder: 1, ttl: 10) == {:error, :noproc}
  end

  test "a lease that nobody renews ends, not before its time, with what is attached to it" do
    asked = System.monotonic_time(:millisecond)
    {:ok, lease} = acquire("a", :me, 400)
    for name <- ["x", "y"], do: assert({:ok, {:txn, true, _revision, _responses}} = put_attached(name, lease))
    assert attached() == ["x", "y"]
    {:ok, %{revision: before}} = Cluster.status(:tank)
    assert await_end("a") - asked >= 400
    assert attached() == []
    {:ok, %{revision: revision}} = Cluster.status(:tank)
    assert revision == before + 1, "the lease and both entries at one revision"
    assert Lease.remaining(lease) == 0
    assert Lease.renew(lease) == {:error, :lease_ended}
    assert {:error, :lease_ended} = put_attached("z", lease)
  end

  test "a release takes what is attached" do
    {:ok, lease} = acquire("a", :me)
    {:ok, _done} = put_attached("x", lease)
    assert Lease.release(lease) == :ok
    assert attached() == []
  end

  test "a renewal changes no entry, so that it wakes nobody who looks at entries" do
    {:ok, lease} = acquire("a", :me)
    {:ok, _done} = put_attached("x", lease)
    {:ok, before} = Cluster.status(:tank)
    for _ <- 1..10, do: {:ok, _ms} = Lease.renew(lease)
    {:ok, later} = Cluster.status(:tank)
    assert later.revision == before.revision
    assert later.applied_index > before.applied_index
  end

  test "what goes with a lease is told as expired, or as deleted by a release; renewals are not told" do
    {:ok, watch} = Watch.start(:tank, [:attached], from: :now)
    assert {:synced, _revision} = Watched.next(watch)
    {:ok, lease} = acquire("a", :me, 1_000)
    {:ok, r1} = Tree.put(:tank, [:attached, "x"], 1, lease: lease)
    {:ok, r2} = Tree.create(:tank, [:attached, "y"], 2, lease: lease)
    assert Tree.get_entry!(:tank, [:attached, "x"]).lease == lease.epoch
    for _ <- 1..5, do: assert({:ok, _ms} = Lease.renew(lease))
    # A write without it lets go of it.
    {:ok, r3} = Tree.put(:tank, [:attached, "y"], 3)
    for revision <- [r1, r2, r3], do: assert({:changes, ^revision, [_change]} = Watched.next(watch))

    assert {:changes, _revision, [%Change{type: :expired, path: [:attached, "x"], value: nil, previous: 1}]} =
             Watched.next(watch)

    assert Lease.read(:tank, "a") == {:error, :not_found}
    assert Tree.put(:tank, [:attached, "x"], 1, lease: lease) == {:error, :lease_ended}
    assert Tree.get!(:tank, [:attached, "y"]) == 3
    {:ok, lease} = acquire("a", :me)
    {:ok, r4} = Tree.put(:tank, [:attached, "x"], 1, lease: lease)
    :ok = Lease.release(lease)
    assert {:changes, ^r4, [%Change{type: :created}]} = Watched.next(watch)
    assert {:changes, _revision, [%Change{type: :deleted, previous: 1}]} = Watched.next(watch)
  end

  test "how long a holder may go on is never longer than the lease" do
    before = System.monotonic_time(:millisecond)
    {:ok, lease} = acquire("a", :me, 10_000)
    assert lease.deadline <= before + 9_800 + (System.monotonic_time(:millisecond) - before)
    assert Lease.remaining(lease) in 5_000..9_800
    {:ok, safe_ms} = Lease.renew(lease)
    assert safe_ms in 5_000..9_800
    {:ok, read} = Lease.read(:tank, "a")
    assert Lease.remaining(read) == 0
    # One that was read can be renewed by its epoch: that is how an unknown acquire is resolved.
    assert {:ok, _ms} = Lease.renew(read)
  end

  test "an acquire whose outcome is unknown is resolved by asking again" do
    arm("apply", "pause")
    holder = {node(), make_ref()}
    assert Lease.acquire(:tank, "a", holder: holder, ttl: 60_000, timeout: 300) == {:error, :timeout}
    disarm("apply")
    assert {:error, {:held, %{holder: ^holder} = lease}} = acquire("a", holder)
    assert {:ok, safe_ms} = Lease.renew(lease)
    assert safe_ms > 0
  end

  @tag :long
  test "10,000 leases: all are kept by renewals, and all end without" do
    leases = for n <- 1..10_000, do: acquire("l#{n}", n, 20_000) |> elem(1)
    started = System.monotonic_time(:millisecond)
    leases |> Task.async_stream(&({:ok, _} = Lease.renew(&1)), max_concurrency: 64) |> Stream.run()
    IO.puts("10,000 renewals: #{System.monotonic_time(:millisecond) - started} ms")
    renewed = System.monotonic_time(:millisecond)
    for lease <- leases, do: await_end(lease.name)
    took = System.monotonic_time(:millisecond) - renewed
    assert took in 15_000..40_000
  end
end
