defmodule Tank.Store.LongCallTest do
  # Calls that take long hold no scheduler: what needs one meanwhile does not wait.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Cluster, LongCall, Native, Options, Reopening, Tree}

  @moduletag :tmp_dir

  # As many as the VM has dirty I/O schedulers, unless it is told otherwise.
  @backups 10
  @value_bytes 1_000_000
  @values 48

  @wait_ms_max 100
  @attempts 4

  test "files are read, and the status is told, while there are ten backups", %{tmp_dir: dir} do
    assert :erlang.system_info(:dirty_io_schedulers) <= @backups
    store = start_store(Path.join(dir, "store"))
    for n <- 1..@values, do: {:ok, _revision} = Tree.put(store, [:item, "#{n}"], :rand.bytes(@value_bytes))
    file = Path.join(dir, "file")
    File.write!(file, "content")

    # Whoever waits for a scheduler waits each time; what else the machine does comes and goes.
    longest =
      Enum.reduce_while(1..@attempts, [], fn _attempt, longest ->
        case attempt(store, file, dir) do
          {ms, besides_ms, _rounds} when ms <= @wait_ms_max + besides_ms -> {:halt, []}
          attempt -> {:cont, [attempt | longest]}
        end
      end)

    assert longest == [], "milliseconds, those by copying alone, and rounds, in each attempt: #{inspect(longest)}"
  end

  # The longest that a read or a status took, and how long it took while other processes of the operating system copied as
  # many bytes: on a machine that is busy, or has few processors, both take their time.
  defp attempt(store, file, dir) do
    backups = for n <- 1..@backups, do: Task.async(fn -> Backup.create(store, Path.join(dir, "backup#{n}")) end)
    {longest_ms, rounds} = measure(backups, file, store, 0, 0)
    assert rounds >= 3, "the backups were too quick: #{rounds} rounds"
    for backup <- backups, do: assert({:ok, %{entries: @values}} = Task.await(backup, 60_000))
    backup = Path.join(dir, "backup1")
    copies = for n <- 1..@backups, do: Task.async(fn -> System.cmd("cp", [backup, Path.join(dir, "copy#{n}")]) end)
    {besides_ms, _rounds} = measure(copies, file, store, 0, 0)
    for copy <- copies, do: assert({"", 0} = Task.await(copy, 60_000))
    {longest_ms, besides_ms, rounds}
  end

  test "a store whose owner ends while it is opened is closed", %{tmp_dir: dir} do
    config = %{store_id: unique_id(), data_dir: dir, owner: nil, options: %{}, reopening: Reopening.new()}
    options = Options.to_native(config)
    link = Native.link()
    test = self()

    owner =
      spawn(fn ->
        {:ok, _call} = Native.open(make_ref(), options, link)
        send(test, :handed_over)
      end)

    monitor = Process.monitor(owner)
    assert_receive :handed_over
    assert_receive {:DOWN, ^monitor, :process, ^owner, :normal}
    # It waits until the directory is free.
    assert {:ok, store} = LongCall.open(options, link)
    assert :ok = LongCall.close(store)
  end

  # Reads a file and asks for the status until the backups are done; gives what took longest, and how often it did so.
  defp measure(backups, file, store, longest_ms, rounds) do
    if Enum.any?(backups, &Process.alive?(&1.pid)) do
      {read_us, {:ok, "content"}} = :timer.tc(fn -> File.read(file) end)
      {status_us, {:ok, _status}} = :timer.tc(fn -> Cluster.status(store) end)
      Process.sleep(5)
      measure(backups, file, store, Enum.max([longest_ms, div(read_us, 1_000), div(status_us, 1_000)]), rounds + 1)
    else
      {longest_ms, rounds}
    end
  end
end
