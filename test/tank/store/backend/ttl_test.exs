defmodule Tank.Store.Backend.TtlTest do
  # The leases behind ttls: that they are given back when a write or a delete takes the place of theirs, and never under
  # a key that still needs them.
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Backend, KVPair, Lease, Tree}
  alias Tank.Store.Backend.{Event, Ttl, UpdateConflict}

  @moduletag :tmp_dir
  @hour 3_600

  setup %{tmp_dir: dir} do
    store = start_store(dir)
    {:ok, client} = Backend.new(store, [:calico])
    %{store: store, client: client}
  end

  test "a key that is written again and again has one lease", %{client: client} do
    {:ok, _kv} = Backend.create(client, pair(0))

    for n <- 1..10, write <- [&Backend.update/2, &Backend.apply/2] do
      {:ok, _kv} = write.(client, pair(n))
      assert leases(client) == [lease_of(client)]
    end
  end

  test "a write without a ttl, and a delete, give the lease back", %{client: client} do
    for give_back <- [
          fn kv -> Backend.update(client, %{kv | ttl: nil}) end,
          fn kv -> Backend.apply(client, %{kv | ttl: nil}) end,
          fn kv -> Backend.delete(client, kv) end,
          fn kv -> Backend.delete(client, kv.key) end
        ] do
      {:ok, kv} = Backend.create(client, pair(1))
      assert [_one] = leases(client)
      refute match?({:error, _reason}, give_back.(kv))
      assert leases(client) == []
      Backend.delete(client, kv.key)
    end
  end

  test "a write that is refused leaves the lease that is there, and none of its own", %{client: client} do
    {:ok, first} = Backend.create(client, pair(1))
    {:ok, second} = Backend.update(client, pair(2))
    held = leases(client)
    assert {:error, %UpdateConflict{}} = Backend.update(client, %{first | value: 3})
    assert {:error, %UpdateConflict{}} = Backend.delete(client, first)
    assert {:error, %Backend.AlreadyExists{}} = Backend.create(client, pair(3))
    assert leases(client) == held
    assert Backend.get(client, ["k"]) == {:ok, %{second | ttl: nil}}
  end

  test "writers at the same moment never end what another one wrote", %{client: client} do
    {:ok, _kv} = Backend.create(client, pair(0))
    {:ok, [_one], revision} = Backend.list(client, [])
    {:ok, watch} = Backend.watch(client, [], revision)

    1..8
    |> Task.async_stream(fn n -> for m <- 1..20, do: {:ok, _kv} = Backend.apply(client, pair({n, m})) end,
      timeout: 60_000,
      max_concurrency: 8
    )
    |> Stream.run()

    assert for(_n <- 1..160, do: next(watch).type) |> Enum.uniq() == [:modified]
    assert {:ok, %KVPair{}} = Backend.get(client, ["k"])
    # With one writer again, all but its own are found: what no slot was free for ends with its time.
    for n <- 1..3, do: {:ok, _kv} = Backend.apply(client, pair(n))
    assert lease_of(client) > 0
  end

  defp pair(value), do: %KVPair{key: ["k"], value: value, ttl: @hour}

  defp lease_of(client) do
    {:ok, entry} = Tree.get_entry(client.store, client.prefix ++ ["k"])
    entry.lease
  end

  # The epochs of the leases that are held under a name of this key.
  defp leases(client) do
    for name <- Ttl.slots(client.prefix ++ ["k"]), {:ok, lease} <- [Lease.read(client.store, name)], do: lease.epoch
  end

  defp next(%{ref: ref}) do
    receive do
      {:backend_watch, ^ref, %Event{} = event} -> event
    after
      10_000 -> flunk("no event in 10 s")
    end
  end
end
