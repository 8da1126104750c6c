defmodule Tank.Store.SchedulersTest do
  # No call keeps a scheduler for long: `:erlang.system_monitor` stays silent under load.
  #
  # It measures wall time, so it also tells of processes whose scheduler the operating system took off the CPU, and of
  # garbage collections; on a busy machine these come at any time and anywhere. A call that takes long by itself takes
  # long each time. So the schedulers go before others, where we may say so; each kind of call has a few attempts, and
  # must be silent in one of them; and it is shown that the monitor tells of calls that are too long.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Call, Native, Running}

  @long_ms 5
  @attempts 5
  @pods 10_000

  setup_all do
    renice(-15)
    on_exit(fn -> renice(0) end)
    start_supervised!({Tank.Store, data_dir: module_dir(__MODULE__)})

    1..@pods
    |> Task.async_stream(&(:ok = Tank.Store.put_pod(large_pod(&1))), max_concurrency: 200)
    |> Stream.run()

    {:ok, large: :binary.copy("x", 2_000_000)}
  end

  # Only root may.
  defp renice(niceness) do
    for thread <- File.ls!("/proc/self/task"), scheduler?(thread) do
      System.cmd("renice", ["-n", "#{niceness}", "-p", thread], stderr_to_stdout: true)
    end
  end

  defp scheduler?(thread) do
    case File.read("/proc/self/task/#{thread}/comm") do
      {:ok, name} -> name =~ ~r/^(erts_sched_\d+|\d+_scheduler)$/m
      {:error, _it_has_ended} -> false
    end
  end

  test "the monitor tells of a call that is too long" do
    {:ok, store} = Running.fetch(:tank)
    # Far more than is ever written by this function: copying it takes long before its size is refused.
    payload = :binary.copy("x", 100_000_000)

    write = fn ->
      {:error, {:too_large, :value, _}} = Native.write(store, make_ref(), :put, "\x02a\0", payload, nil, 5_000)
    end

    for _ <- 1..@attempts, do: assert([_, _, _, _ | _] = monitored(write))
  end

  for {what, load} <- [
        {"writers", quote(do: for(i <- 1..20, do: :ok = Tank.Store.put_pod(large_pod(i))))},
        {"readers of pods", quote(do: for(i <- 1..500, do: {:ok, _} = Tank.Store.get_pod("pod#{i}")))},
        {"readers of all 10,000 pods", quote(do: @pods = length(Tank.Store.list_pods()))},
        {"readers of all 10,000 children", quote(do: {:ok, [_ | _]} = Tank.Store.children_at([:tank, :pods]))},
        {"writers of large values", quote(do: :ok = Tank.Store.put_at([:large], var!(large)))},
        {"readers of large values", quote(do: {:ok, _} = Tank.Store.get_at([:large]))}
      ] do
    test "#{what} keep no scheduler for #{@long_ms} ms", %{large: large} do
      :ok = Tank.Store.put_at([:large], large)
      assert_silent(fn -> unquote(load) end)
    end
  end

  test "all of them together keep no scheduler for #{@long_ms} ms", %{large: large} do
    assert_silent(fn ->
      :ok = Tank.Store.put_pod(large_pod(1))
      {:ok, _} = Tank.Store.get_pod("pod7")
      @pods = length(Tank.Store.list_pods())
      :ok = Tank.Store.put_at([:large], large)
      {:ok, _} = Tank.Store.get_at([:large])
      {:ok, []} = Tank.Store.children_at([:nothing])
      {:error, :not_found} = Call.get(:tank, "\x02nothing\0", &{:ok, &1}, 1_000)
    end)
  end

  defp assert_silent(load) do
    events = Enum.reduce_while(1..@attempts, [], fn _, _ -> attempt(load) end)
    assert events == [], "in each of #{@attempts} attempts, at last: #{inspect(events, pretty: true)}"
  end

  defp attempt(load) do
    case monitored(load) do
      [] -> {:halt, []}
      events -> {:cont, events}
    end
  end

  # Runs `load` in four processes, three times in each, and gives what the monitor told of these.
  defp monitored(load) do
    test = self()
    :erlang.system_monitor(test, [{:long_schedule, @long_ms}])

    body = fn ->
      for _ <- 1..3 do
        load.()
        # The monitor tells of a process when it leaves its scheduler.
        :erlang.yield()
      end

      send(test, {:done, self()})
    end

    # Heaps that need no garbage collection: it would count as theirs.
    pids = for _ <- 1..4, do: :erlang.spawn_opt(body, [:link, min_heap_size: 8_000_000])
    for pid <- pids, do: assert_receive({:done, ^pid}, 60_000)
    :erlang.system_monitor(:undefined)
    reports(pids, [])
  end

  defp reports(pids, found) do
    receive do
      {:monitor, pid, :long_schedule, info} ->
        reports(pids, if(pid in pids, do: [info | found], else: found))
    after
      0 -> found
    end
  end

  defp large_pod(i) do
    %Tank.Pod{
      name: "pod#{i}",
      containers: [
        %Tank.Container{
          name: "app",
          image: "registry.example.com/app:#{i}",
          env: %{"A" => "1", "B" => "2"},
          args: ["--port", "#{i}"],
          limits: %{memory: 1_000_000, cpu: {100_000, 50_000}}
        }
      ]
    }
  end
end
