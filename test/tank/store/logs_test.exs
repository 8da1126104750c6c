defmodule Tank.Store.LogsTest do
  # Each line that guides/logs.md lists and that one member can log; those of several are in test/cluster/logs_test.exs.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Projection, Tree}

  @moduletag :tmp_dir

  setup do
    me = self()
    :ok = :logger.add_handler(:logs_test, __MODULE__, %{config: %{pid: me}})
    level = Logger.level()
    Logger.configure(level: :info)

    on_exit(fn ->
      :logger.remove_handler(:logs_test)
      Logger.configure(level: level)
    end)
  end

  # A handler of :logger.
  def log(%{level: level, msg: message, meta: meta}, %{config: %{pid: pid}}),
    do: send(pid, {:logged, level, text(message), meta})

  defp text({:string, text}), do: IO.chardata_to_string(text)
  defp text({:report, report}), do: inspect(report)
  defp text({format, arguments}), do: format |> :io_lib.format(arguments) |> IO.chardata_to_string()

  defp await_line(store, level, target, pattern) do
    receive do
      {:logged, ^level, text, %{store_id: ^store, target: ^target, member: member}} ->
        if text =~ pattern do
          assert member == node()
          assert String.starts_with?(text, "store #{inspect(store)}") or text =~ "projection"
          text
        else
          await_line(store, level, target, pattern)
        end
    after
      15_000 -> flunk("no line #{inspect(pattern)}")
    end
  end

  test "a store says when it is opened and closed, and nothing in between", %{tmp_dir: dir} do
    store = start_store(dir)
    await_line(store, :info, :opening, ~r/opened in \d+ ms, 0 entries at revision 0$/)
    for n <- 1..100, do: Tree.put!(store, [:a], n)
    :ok = Cluster.stop(store)
    await_line(store, :info, :closing, ~r/closed in \d+ ms$/)
    refute_received {:logged, _level, _text, %{store_id: ^store}}
  end

  test "a disk that fails, and works again", %{tmp_dir: dir} do
    store = start_store(dir)
    arm("log_error", "1*return")
    {:error, {:storage, _why}} = Tree.put(store, [:a], 1)
    await_line(store, :error, :disk, ~r/the disk failed.*Reads go on from memory/)
    await_line(store, :info, :opening, ~r/opened again after .*:storage/)
  end

  test "a full disk", %{tmp_dir: dir} do
    store = start_store(dir)
    arm("log_full", "1*return")
    {:error, :disk_full} = Tree.put(store, [:a], 1)
    await_line(store, :error, :disk, ~r/no space left/)
  end

  test "a slow disk, from the Rust library, with the store that it is about", %{tmp_dir: dir} do
    store = start_store(dir)
    arm("log_writer", "1*sleep(1200)")
    {:ok, _revision} = Tree.put(store, [:a], 1)

    await_line(
      store,
      :warning,
      "tank_engine::log::writer",
      ~r/the disk is slow: a sync of the log took this long ms=\d{4}/
    )
  end

  test "an engine that fails", %{tmp_dir: dir} do
    store = start_store(dir)
    arm("apply", "1*panic")
    Tree.put(store, [:a], 1)
    await_line(store, :error, :engine, ~r/failed: the engine failed/)
  end

  test "alarms that are raised and cleared", %{tmp_dir: dir} do
    store = start_store(dir)
    File.rename!(dir, dir <> "_away")
    await_line(store, :error, :alarm, ~r/alarm directory_lost: /)
    File.rename!(dir <> "_away", dir)
    await_line(store, :notice, :alarm, ~r/alarm directory_lost is cleared/)
  end

  test "overload is told once in ten seconds", %{tmp_dir: dir} do
    store = start_store(dir, in_flight_max: 1)
    tasks = for n <- 1..50, do: Task.async(fn -> for _ <- 1..20, do: Tree.put(store, [:a, "#{n}"], n) end)
    answers = tasks |> Task.await_many(60_000) |> Enum.concat()
    assert {:error, :overloaded} in answers
    await_line(store, :warning, :overload, ~r/overloaded: more writes are in flight/)
    refute_received {:logged, :warning, _text, %{store_id: ^store, target: :overload}}
  end

  test "a function of a projection that fails", %{tmp_dir: dir} do
    store = start_store(dir)
    {:ok, projection} = Projection.start_link(store_id: store, table: :logs_test, value: fn _entry -> raise "no" end)
    Tree.put!(store, [:a], 1)
    await_line(store, :error, :projection, ~r/no row for the entry at \[:a\]/)
    GenServer.stop(projection)
  end

  test "the rate of the Rust library is limited, and what was left out is counted", %{tmp_dir: dir} do
    store = start_store(dir)
    send(Tank.Store.Logs, {:tank_log, :warning, Atom.to_string(store), "tank_engine::test", "again", 7})
    text = await_line(store, :warning, "tank_engine::test", ~r/again/)
    assert text == "store #{inspect(store)}: again (7 more of these were left out)"
    send(Tank.Store.Logs, {:tank_log, :error, nil, "tank_engine::reclaim", "no thread", 0})
    assert_receive {:logged, :error, "tank_store: no thread", %{store_id: nil, target: "tank_engine::reclaim"}}
  end

  # What changes from line to line (names, numbers, causes) is left out.
  test "each line of the guide is in a test that provokes it" do
    tests = ["test/tank/store/logs_test.exs", "test/cluster/logs_test.exs" | Path.wildcard("test/dashboard/*_test.exs")]
    sources = Enum.map_join(tests, "\n", &File.read!/1)
    [_all, table] = Regex.run(~r/^\|---\|---\|---\|---\|\n((?:\|.*\n)+)/m, File.read!("guides/logs.md"))

    lines =
      for row <- String.split(table, "\n", trim: true),
          [line, _level, _target, _meaning] = row |> String.trim("|") |> String.split(~r/ \| /),
          line <- String.split(line, ";"),
          do: String.trim(line)

    assert length(lines) > 20

    missing =
      for line <- lines,
          words =
            line |> String.split() |> Enum.drop_while(&(&1 =~ ~r/^[A-Z]+$/)) |> Enum.take_while(&(&1 =~ ~r/^[a-z:]+$/)),
          phrase = words |> Enum.take(3) |> Enum.join(" "),
          not String.contains?(sources, phrase),
          do: {line, phrase}

    assert missing == []
  end
end
