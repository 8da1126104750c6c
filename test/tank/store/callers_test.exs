defmodule Tank.Store.CallersTest do
  # Callers that give up, die, are too many, or wait while the store ends. The log's writer is held up where a call must
  # stay unanswered for as long as the test wants.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Call, Cluster}

  @moduletag :tmp_dir

  test "a caller that gives up has an empty mailbox, also later", %{tmp_dir: dir} do
    id = start_store(dir)
    arm("log_writer", "pause")
    assert put(id, "a", 1, 20) == {:error, :timeout}
    assert put(id, "b", 1, 0) == {:error, :timeout}
    disarm("log_writer")
    # Answered after the two, so theirs would be here.
    assert {:ok, _revision} = put(id, "c", 1)
    await_idle(id)
    assert Process.info(self(), :messages) == {:messages, []}
    # Unknown means that it may well have been written.
    assert get(id, "a") == {:ok, 1}
  end

  test "callers that give up just when the answer comes get one or the other, never both", %{tmp_dir: dir} do
    id = start_store(dir)

    outcomes =
      1..20
      |> Task.async_stream(
        fn writer ->
          outcomes = for i <- 1..100, do: elem(put(id, "#{writer}", i, rem(i, 3)), 0)
          await_idle(id)
          assert Process.info(self(), :messages) == {:messages, []}
          outcomes
        end,
        max_concurrency: 20,
        timeout: 60_000
      )
      |> Enum.flat_map(fn {:ok, outcomes} -> outcomes end)
      |> Enum.frequencies()

    assert %{error: _, ok: _} = outcomes, "both should have happened: #{inspect(outcomes)}"
  end

  test "messages that a caller has are left alone", %{tmp_dir: dir} do
    id = start_store(dir)
    others = [:hello, {make_ref(), :ok}, {make_ref(), {:ok, 1}}, {:error, :timeout}]
    for message <- others, do: send(self(), message)
    assert {:ok, 1} = put(id, "a", 1)
    arm("log_writer", "pause")
    assert put(id, "b", 1, 10) == {:error, :timeout}
    disarm("log_writer")
    await_idle(id)
    assert Process.info(self(), :messages) == {:messages, others}
  end

  test "a caller that dies leaves nothing behind, and its write may have happened", %{tmp_dir: dir} do
    id = start_store(dir)
    arm("log_writer", "pause")
    callers = for i <- 1..50, do: spawn(fn -> put(id, "#{i}", i, :infinity) end)
    eventually("50 writes in flight", fn -> in_flight(id) == 50 end)
    for caller <- callers, do: kill(caller)
    disarm("log_writer")
    await_idle(id)
    assert {:ok, _revision} = put(id, "a", 1)
    assert get(id, "50") == {:ok, 50}
  end

  test "more than in_flight_max writes are refused at once, and those were not written", %{tmp_dir: dir} do
    id = start_store(dir, in_flight_max: 8)
    arm("log_writer", "pause")
    waiting = for i <- 1..8, do: Task.async(fn -> put(id, "in#{i}", i) end)
    eventually("8 writes in flight", fn -> in_flight(id) == 8 end)
    {micros, refused} = :timer.tc(fn -> for i <- 1..100, do: put(id, "out#{i}", i, :infinity) end)
    assert Enum.uniq(refused) == [{:error, :overloaded}]
    assert micros < 1_000_000
    assert in_flight(id) == 8
    # Reads are still answered.
    assert get(id, "out1") == {:error, :not_found}
    disarm("log_writer")
    assert [{:ok, _} | _] = outcomes = Task.await_many(waiting)
    assert Keyword.keys(outcomes) == List.duplicate(:ok, 8)
    await_idle(id)
    for i <- 1..100, do: assert(get(id, "out#{i}") == {:error, :not_found})
    assert {:ok, _revision} = put(id, "in", 1)
  end

  test "Tank.Store says :overloaded, too", %{tmp_dir: dir} do
    start_tank(dir, in_flight_max: 1)
    arm("log_writer", "pause")
    waiting = Task.async(fn -> Tank.Store.put_pod(pod("in")) end)
    eventually("a write in flight", fn -> in_flight(:tank) == 1 end)
    assert Tank.Store.put_pod(pod("out")) == {:error, :overloaded}
    assert Tank.Store.create_pod(pod("out")) == {:error, :overloaded}
    assert Tank.Store.delete_pod("out") == {:error, :overloaded}
    disarm("log_writer")
    assert Task.await(waiting) == :ok
    assert Tank.Store.list_pods() == [pod("in")]
  end

  test "a caller that was answered has left its place", %{tmp_dir: dir} do
    id = start_store(dir, in_flight_max: 1)
    assert Enum.frequencies_by(1..500, &elem(put(id, "a", &1), 0)) == %{ok: 500}
  end

  test "writes of more than in_flight_bytes_max are refused, and a single larger one is not", %{tmp_dir: dir} do
    id = start_store(dir, in_flight_bytes_max: 10_000)
    assert {:ok, _revision} = put(id, "large", String.duplicate("x", 20_000))
    await_idle(id)
    arm("log_writer", "pause")
    waiting = Task.async(fn -> put(id, "a", String.duplicate("x", 9_000)) end)
    eventually("a write in flight", fn -> in_flight(id) == 1 end)
    assert put(id, "b", String.duplicate("x", 2_000)) == {:error, :overloaded}
    disarm("log_writer")
    assert {:ok, _revision} = Task.await(waiting)
  end

  for {what, stop} <- [
        {"is stopped", quote(do: fn id -> Cluster.stop(id) end)},
        {"loses its server", quote(do: fn id -> kill(server(id)) end)},
        {"loses its supervisor", quote(do: fn id -> kill(instance(id)) end)}
      ] do
    test "calls that wait when the store #{what} are answered", %{tmp_dir: dir} do
      id = start_store(dir)
      for i <- 1..100, do: {:ok, _revision} = put(id, "before#{i}", i)
      await_idle(id)
      arm("log_writer", "pause")
      waiting = for i <- 1..50, do: Task.async(fn -> put(id, "during#{i}", i, 30_000) end)
      eventually("50 writes in flight", fn -> in_flight(id) == 50 end)
      # It waits for the writer, which is held up.
      stopping = Task.async(fn -> unquote(stop).(id) end)
      eventually("the store to close", fn -> match?({:error, _}, put(id, "after", 1, 0)) end)
      disarm("log_writer")
      Task.await(stopping, 30_000)
      outcomes = Task.await_many(waiting, 10_000)

      eventually("the store to end or to be opened anew", fn -> Cluster.stop(id) == :ok and instance(id) == nil end)
      {:ok, ^id} = Cluster.start(dir, id)
      for i <- 1..100, do: assert(get(id, "before#{i}") == {:ok, i})

      for {outcome, i} <- Enum.with_index(outcomes, 1) do
        case outcome do
          {:ok, _revision} -> assert get(id, "during#{i}") == {:ok, i}
          {:error, reason} -> assert reason in [:timeout, :noproc, :engine_failed]
        end
      end
    end
  end

  test "a caller with a full mailbox does not look through it for its answer", %{tmp_dir: dir} do
    id = start_store(dir)
    {micros, _} = :timer.tc(fn -> for i <- 1..200, do: put(id, "a", i) end)
    for i <- 1..200_000, do: send(self(), {:noise, i})
    {with_noise, _} = :timer.tc(fn -> for i <- 1..200, do: put(id, "a", i) end)
    # Looking through 200,000 messages takes a millisecond each time.
    assert with_noise < 5 * micros + 100_000
  end

  defp put(id, name, value, timeout \\ 10_000), do: Call.write(id, :put, key(name), value, nil, timeout)
  defp get(id, name), do: Call.get(id, key(name), &{:ok, &1}, 5_000)
  defp key(name), do: Tank.Store.Path.child_key("", name)

  defp in_flight(id) do
    {:ok, status} = Cluster.status(id)
    status.in_flight
  end

  defp await_idle(id) do
    eventually("no write to be in flight", fn -> in_flight(id) == 0 or {:not_yet, in_flight(id)} end)
  end
end
