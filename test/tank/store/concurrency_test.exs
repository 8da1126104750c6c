defmodule Tank.Store.ConcurrencyTest do
  # Many processes at once, and what each of them may rely on.
  use Tank.Store.TankCase, async: false

  setup_all do
    start_supervised!({Tank.Store, data_dir: module_dir(__MODULE__)})
    :ok
  end

  setup do
    :ok = Tank.Store.delete_at([])
  end

  test "of 100 processes that create a pod, exactly one does, and it is the one that is stored" do
    for round <- 1..20, name = "pod#{round}" do
      outcomes = at_once(100, fn i -> {i, Tank.Store.create_pod(pod(name, volumes: i))} end)
      assert [winner] = for({i, :ok} <- outcomes, do: i)
      assert Enum.count(outcomes, &match?({_, {:error, :exists}}, &1)) == 99
      assert Tank.Store.get_pod(name) == {:ok, pod(name, volumes: winner)}
    end
  end

  test "of 100 processes that put a pod, each sees a put that is not older than its own, and one is left" do
    seen =
      at_once(100, fn i ->
        :ok = Tank.Store.put_pod(pod("web", volumes: i))
        {:ok, pod} = Tank.Store.get_pod("web")
        pod.volumes
      end)

    {:ok, %{volumes: last}} = Tank.Store.get_pod("web")
    assert last in 1..100
    assert last in seen
    assert [%{volumes: ^last}] = Tank.Store.list_pods()
  end

  test "create and delete make a lock that one process holds at a time" do
    holders = :counters.new(2, [])

    at_once(20, fn _ ->
      for _ <- 1..20 do
        acquire("lock")
        :counters.add(holders, 1, 1)
        if :counters.get(holders, 1) != 1, do: :counters.add(holders, 2, 1)
        :counters.sub(holders, 1, 1)
        :ok = Tank.Store.delete_pod("lock")
      end
    end)

    assert :counters.get(holders, 2) == 0, "the lock was held twice"
  end

  defp acquire(name) do
    if Tank.Store.create_pod(pod(name)) == {:error, :exists}, do: acquire(name), else: :ok
  end

  @last 300

  test "readers never go back: neither get_pod, nor list_pods, nor from one to the other" do
    :ok = Tank.Store.put_pod(pod("clock", volumes: 0))
    written = :atomics.new(1, [])

    writer =
      Task.async(fn ->
        for i <- 1..@last do
          :ok = Tank.Store.put_pod(pod("clock", volumes: i))
          :atomics.put(written, 1, i)
        end
      end)

    at_once(4, fn reader ->
      Enum.reduce_while(Stream.cycle([:ok]), 0, fn :ok, last ->
        acknowledged = :atomics.get(written, 1)
        now = read(reader)
        assert now >= last, "read #{now} after #{last}"
        assert now >= acknowledged, "read #{now} when #{acknowledged} was acknowledged"
        if now == @last, do: {:halt, now}, else: {:cont, now}
      end)
    end)

    Task.await(writer)
  end

  defp read(reader) do
    pod =
      if rem(reader + System.unique_integer([:positive]), 2) == 0,
        do: elem(Tank.Store.get_pod("clock"), 1),
        else: hd(Tank.Store.list_pods())

    pod.volumes
  end

  test "writers of different pods do not disturb each other" do
    at_once(50, fn i ->
      for version <- 1..20 do
        :ok = Tank.Store.put_pod(pod("pod#{i}", volumes: version))
        assert Tank.Store.get_pod("pod#{i}") == {:ok, pod("pod#{i}", volumes: version)}
      end
    end)

    assert length(Tank.Store.list_pods()) == 50
    assert Enum.all?(Tank.Store.list_pods(), &(&1.volumes == 20))
  end

  test "a subtree is deleted at once, for readers of all of it" do
    stop = :atomics.new(1, [])
    names = for i <- 1..9, do: "#{i}"

    reader =
      Task.async(fn ->
        Enum.reduce_while(Stream.cycle([:ok]), 0, fn :ok, reads ->
          {:ok, children} = Tank.Store.children_at([:tree])
          seen = children |> Enum.map(&elem(&1, 0)) |> Enum.sort()
          # They are written in this order, and deleted together.
          assert seen == Enum.take(names, length(seen))
          if :atomics.get(stop, 1) == 1, do: {:halt, reads}, else: {:cont, reads + 1}
        end)
      end)

    for _ <- 1..100 do
      for name <- names, do: :ok = Tank.Store.put_at([:tree, name], name)
      :ok = Tank.Store.delete_at([:tree])
    end

    :atomics.put(stop, 1, 1)
    assert Task.await(reader) > 0
  end

  # Runs `fun` in `count` processes that begin together, and gives what they return.
  defp at_once(count, fun) do
    tasks =
      for i <- 1..count do
        Task.async(fn ->
          receive do: (:go -> fun.(i))
        end)
      end

    for task <- tasks, do: send(task.pid, :go)
    Task.await_many(tasks, 60_000)
  end
end
