defmodule Tank.Store.LeaseFight do
  @moduledoc """
  20 clients on three nodes want the same lease. Whoever has it writes to a register, guarded by the epoch, and renews
  it now and then; while nodes are stopped (SIGSTOP) for longer than the lease lasts.

  Afterwards: epochs rose with every grant, each grant was released or over before the next one, and the register's
  writes, in the order of the revisions at which they were made, have epochs that never go back.
  """

  import ExUnit.Assertions
  import Tank.Store.{ClusterCase, TankCase}

  alias Tank.Store.{Lease, Tree}

  @store :cluster_test
  @name "fight"
  @ttl 1_000
  @clients 20

  @doc "Stops a node `stops` times, by turns the leader and the holder's."
  def run(peers, stops) do
    await_leader(peers)

    for {peer, number} <- Enum.with_index(peers),
        do: :ok = call(peer, __MODULE__, :start_clients, [clients_of(number, length(peers))])

    for n <- 1..stops, do: stop_one(peers, n)
    notes = Enum.flat_map(peers, &call(&1, __MODULE__, :stop_clients, []))
    await_agreement(peers)
    judge(notes, stops)
  end

  defp clients_of(number, count), do: for(n <- 1..@clients, rem(n, count) == number, do: n)

  defp stop_one(peers, n) do
    victim = if rem(n, 2) == 0, do: await_leader(peers), else: holder(peers)
    writes_before = writes(peers)
    signal(victim, "STOP")
    stopped = now()
    others = peers -- [victim]
    others_before = writes(others)
    # Past the lease's time; and until somebody else writes.
    eventually("the time of the lease to go by", fn -> now() - stopped > @ttl + 500 end)
    eventually("writes while #{victim.node} is stopped", fn -> writes(others) > others_before end, 30_000)
    signal(victim, "CONT")
    eventually("writes after that", fn -> writes(peers) > writes_before end, 30_000)
  end

  # The node of the one who holds the lease, or any.
  defp holder(peers) do
    [peer | _others] = peers

    case call(peer, Lease, :read, [@store, @name, [favor: :low_latency]]) do
      {:ok, %{holder: {node, _client}}} -> Enum.find(peers, &(&1.node == node))
      _nobody -> peer
    end
  end

  defp writes(peers), do: peers |> Enum.map(&call(&1, __MODULE__, :write_count, [])) |> Enum.sum()

  defp judge(notes, stops) do
    grants = for {:granted, epoch, client} <- notes, do: {epoch, client}
    writes = for {:wrote, revision, epoch} <- notes, do: {revision, epoch}
    refused = for {:refused, epoch} <- notes, do: epoch
    epochs = Enum.map(grants, &elem(&1, 0))
    assert Enum.uniq(epochs) == epochs, "an epoch was granted twice"
    in_order = writes |> Enum.sort() |> Enum.map(&elem(&1, 1))
    assert in_order == Enum.sort(in_order), "a stale holder wrote"
    assert Enum.all?(in_order, &(&1 in epochs or &1 > 0))
    overlaps = overlaps(notes)
    assert overlaps == [], "two holders at a time, by their own clocks: #{inspect(overlaps)}"
    assert length(grants) > stops, "the lease hardly changed hands: #{length(grants)} grants"

    IO.puts(
      "#{stops} stops, #{length(grants)} grants, #{length(writes)} guarded writes, #{length(refused)} of stale holders refused"
    )
  end

  # Nodes of one machine have one monotonic clock: `{:safe, epoch, from, to}` is when a holder believed in its lease.
  defp overlaps(notes) do
    spans = for({:safe, epoch, from, to} <- notes, do: {epoch, from, to}) |> Enum.group_by(&elem(&1, 0))

    spans =
      for {epoch, parts} <- spans,
          do: {parts |> Enum.map(&elem(&1, 1)) |> Enum.min(), parts |> Enum.map(&elem(&1, 2)) |> Enum.max(), epoch}

    spans
    |> Enum.sort()
    |> Enum.chunk_every(2, 1, :discard)
    |> Enum.filter(fn [{_from1, to1, _epoch1}, {from2, _to2, _epoch2}] -> from2 < to1 end)
  end

  # -- On the nodes

  @doc false
  def start_clients(numbers) do
    me = self()

    spawn(fn ->
      Process.register(self(), __MODULE__)
      :ets.new(__MODULE__, [:named_table, :public, :duplicate_bag])
      :ets.new(:lease_fight_writes, [:named_table, :public])
      :ets.insert(:lease_fight_writes, {:count, 0})
      clients = for n <- numbers, do: spawn_link(fn -> client(n) end)
      send(me, :started)
      receive do: ({:stop, from} -> stop(clients, from))
    end)

    receive do: (:started -> :ok)
  end

  @doc false
  def stop_clients do
    send(__MODULE__, {:stop, self()})
    receive do: ({:notes, notes} -> notes)
  end

  @doc false
  def write_count, do: :ets.lookup_element(:lease_fight_writes, :count, 2)

  defp stop(clients, from) do
    monitors = for client <- clients, do: Process.monitor(client)
    for client <- clients, do: send(client, :stop)
    for monitor <- monitors, do: receive(do: ({:DOWN, ^monitor, :process, _pid, _reason} -> :ok))
    send(from, {:notes, :ets.tab2list(__MODULE__)})
  end

  defp client(number) do
    case Lease.acquire(@store, @name, holder: {node(), number}, ttl: @ttl, timeout: 2_000) do
      {:ok, lease} ->
        note({:granted, lease.epoch, number})
        hold(lease, monotonic() + Lease.remaining(lease), :rand.uniform(20))

      # Held by another; or by this one, when the answer was lost.
      _nothing ->
        :ok
    end

    receive do
      :stop -> :ok
    after
      :rand.uniform(30) -> client(number)
    end
  end

  defp hold(lease, _safe_until, 0) do
    _released_or_not = Lease.release(lease, timeout: 2_000)
    :ok
  end

  defp hold(lease, safe_until, rounds) do
    now = monotonic()
    if now < safe_until, do: note({:safe, lease.epoch, now, now})
    # It writes without a look at the clock: the guard has to refuse it.
    write(lease)

    case Lease.renew(lease, timeout: 2_000) do
      {:ok, safe_ms} ->
        now = monotonic()
        if safe_ms > 0, do: note({:safe, lease.epoch, now, now})
        Process.sleep(20)
        hold(lease, now + safe_ms, rounds - 1)

      {:error, :lease_ended} ->
        # A stale holder goes on trying for a moment.
        write(lease)

      {:error, _unknown} ->
        hold(lease, safe_until, rounds - 1)
    end
  end

  defp write(lease) do
    guard = [{:lease, @name, :epoch, lease.epoch}]

    case Tree.txn(@store, guard, [{:put, [:fight, "register"], lease.epoch}], [], timeout: 2_000) do
      {:ok, %{succeeded: true, revision: revision}} ->
        :ets.update_counter(:lease_fight_writes, :count, 1)
        note({:wrote, revision, lease.epoch})

      {:ok, %{succeeded: false}} ->
        note({:refused, lease.epoch})

      {:error, _unknown} ->
        :ok
    end
  end

  defp note(note), do: :ets.insert(__MODULE__, note)

  defp now, do: System.monotonic_time(:millisecond)

  # Of the machine, so that it can be compared between its nodes.
  defp monotonic, do: :os.perf_counter(:millisecond)
end
