defmodule Tank.Store.TelemetryTest do
  # Where the library is not there, a module of its name takes its place.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Cluster, Lease, Telemetry, Tree, Watch}

  @moduletag :tmp_dir

  setup do
    unless Code.ensure_loaded?(:telemetry), do: make_telemetry()
    :persistent_term.put(:telemetry_test, self())
    :ok = Telemetry.detect()
    attach()

    on_exit(fn ->
      :persistent_term.put(Telemetry, false)
    end)
  end

  defp make_telemetry do
    Module.create(
      :telemetry,
      quote do
        def execute(event, measurements, metadata),
          do: send(:persistent_term.get(:telemetry_test), {:event, event, measurements, metadata})
      end,
      Macro.Env.location(__ENV__)
    )
  end

  # With the library itself.
  defp attach do
    if function_exported?(:telemetry, :attach_many, 4) do
      me = self()
      handler = fn event, measurements, metadata, _config -> send(me, {:event, event, measurements, metadata}) end
      apply(:telemetry, :attach_many, [__MODULE__, events(), handler, nil])
    end
  end

  defp events do
    {:docs_v1, _line, _language, _format, %{"en" => doc}, _meta, _functions} = Code.fetch_docs(Telemetry)

    for [_all, names] <- Regex.scan(~r/^\| `\[([^\]]+)\]`/m, doc),
        do: for([_colon, name] <- Regex.scan(~r/:(\w+)/, names), do: String.to_atom(name))
  end

  defp receive_event(name, match \\ fn _measurements, _metadata -> true end) do
    event = [:tank_store | name]

    receive do
      {:event, ^event, measurements, metadata} ->
        if match.(measurements, metadata), do: {measurements, metadata}, else: receive_event(name, match)
    after
      10_000 -> flunk("no event #{inspect(event)}")
    end
  end

  test "each documented event comes, with what is documented", %{tmp_dir: dir} do
    store = start_store(Path.join(dir, "store"))
    {opened, %{store_id: ^store, again: false}} = receive_event([:store, :opened])
    assert %{entries: 0, revision: 0, duration: duration} = opened
    assert duration > 0

    {:ok, _revision} = Tree.put(store, [:a], 1)
    {%{duration: duration}, metadata} = receive_event([:call, :stop])
    assert metadata == %{store_id: store, call: :put, result: :ok}
    assert duration > 0

    {:error, {:conflict, _entry}} = Tree.put(store, [:a], 2, if_revision: 99)

    assert {_duration, %{result: {:conflict, _entry}}} =
             receive_event([:call, :stop], &(&2.result != :ok and &1 != nil))

    {:ok, lease} = Lease.acquire(store, "l", holder: 1, ttl: 10_000)
    receive_event([:call, :stop], &(&2.call == :acquire_lease and &1 != nil))
    :ok = Lease.release(lease)

    receive_event([:cluster, :leader], &(&2.leader == node() and &1.term > 0))
    receive_event([:cluster, :quorum], &(&2.quorum == :ok and &1 == %{}))
    {%{count: 1}, %{joined: joined, left: []}} = receive_event([:cluster, :members])
    assert joined == [node()]

    writer = Task.async(fn -> write_until_stopped(store, 1) end)
    for name <- [:sync, :apply], do: receive_event([:engine, name], &(&1.count > 0 and &2.store_id == store))
    send(writer.pid, :stop)
    Task.await(writer)

    file = Path.join(dir, "backup")
    {:ok, _about} = Backup.create(store, file)
    assert {_duration, %{kind: :create, result: :ok, store_id: ^store}} = receive_event([:backup, :stop])
    # A backup is made of a checkpoint.
    receive_event([:engine, :checkpoint], &(&1.count > 0 and &2.store_id == store))
    {:error, {:file, _path}} = Backup.restore("/nowhere", Path.join(dir, "restored"))
    assert {_duration, %{kind: :restore, result: {:file, "/nowhere"}}} = receive_event([:backup, :stop])

    {:ok, _watch} = Watch.start(store, [:b], mailbox_max: 1, lag_timeout_ms: 20)
    for n <- 1..50, do: Tree.put!(store, [:b], n)
    {%{revisions: revisions}, %{store_id: ^store, pattern: [:b]}} = receive_event([:watch, :lagged])
    assert revisions > 0

    :ok = Cluster.stop(store)
    {%{duration: _native}, %{store_id: ^store}} = receive_event([:store, :closed])
  end

  test "a disk that fails and comes back is told", %{tmp_dir: dir} do
    store = start_store(dir)
    arm("log_error", "1*return")
    {:error, _reason} = Tree.put(store, [:a], 1)
    {_none, %{store_id: ^store, reason: {:storage, _why}}} = receive_event([:store, :failed])
    receive_event([:store, :opened], &(&2.again and &1.duration > 0))
  end

  test "without the library nothing is told, and nothing fails", %{tmp_dir: dir} do
    :persistent_term.put(Telemetry, false)
    store = start_store(dir)
    Tree.put!(store, [:a], 1)
    refute_received {:event, _event, _measurements, _metadata}
  end

  defp write_until_stopped(store, n) do
    Tree.put!(store, [:w], n)
    receive do: (:stop -> :ok), after: (0 -> write_until_stopped(store, n + 1))
  end
end
