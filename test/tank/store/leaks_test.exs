defmodule Tank.Store.LeaksTest do
  # Stores that come and go leave nothing: no thread, no descriptor, no lock, no process, no atom, and no memory.
  #
  # Threads and descriptors are counted in /proc/self, once all stores are closed. Memory is the VM's anonymous resident
  # memory (RssAnon in /proc/self/status), after a garbage collection of all processes; allocators keep some of what
  # they got, so its growth is compared between two halves of equal work: a leak grows as much in the second one.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Cluster

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  # What a cycle may leave for good. A store's threads and tables are megabytes.
  @bytes_per_cycle_max 100_000

  for {count, tags} <- [{30, []}, {200, [:long]}] do
    for tag <- tags, do: @tag(tag)

    test "#{count} starts and stops leave nothing", %{tmp_dir: dir} do
      leaves_nothing(unquote(count), fn _i ->
        start_tank(dir)
        use_store()
        stop_tank()
      end)
    end

    for tag <- tags, do: @tag(tag)

    test "#{count} kills of Tank.Store leave nothing", %{tmp_dir: dir} do
      leaves_nothing(unquote(count), fn _i ->
        start_tank(dir)
        use_store()
        kill_tank()
        use_store()
        stop_tank()
      end)
    end

    for tag <- tags, do: @tag(tag)

    test "#{count} starts that fail leave nothing", %{tmp_dir: dir} do
      start_tank(dir)
      stop_tank()

      leaves_nothing(unquote(count), fn _i ->
        assert {:error, %{reason: {:wrong_store, "tank"}}} = Cluster.start(dir, :not_tank)
      end)
    end
  end

  test "stores in new directories leave nothing", %{tmp_dir: dir} do
    leaves_nothing(20, fn i ->
      {:ok, :fresh} = Cluster.start(Path.join(dir, "#{i}"), :fresh)
      :ok = Cluster.stop(:fresh)
      File.rm_rf!(Path.join(dir, "#{i}"))
    end)
  end

  test "names make no atoms", %{tmp_dir: dir} do
    start_tank(dir)
    use_store()
    before = :erlang.system_info(:atom_count)

    for i <- 1..2_000, name = "name that no atom has #{i}-#{System.unique_integer()}" do
      :ok = Tank.Store.put_pod(pod(name))
      :ok = Tank.Store.put_at([:tree, name, "below"], i)
      {:ok, _pod} = Tank.Store.get_pod(name)
      {:error, :not_found} = Tank.Store.get_at([:tree, name <> "x"])
      {:ok, _children} = Tank.Store.children_at([:tree, name])
      {:error, _too_large} = Tank.Store.put_pod(pod(String.duplicate(name, 20)))
    end

    # Those of use_store, too.
    2_020 = length(Tank.Store.list_pods())
    {:ok, []} = Tank.Store.children_at([:tree])
    # Code that is loaded meanwhile has atoms of its own.
    assert :erlang.system_info(:atom_count) - before < 100
  end

  # RocksDB gathers up to 96 MB of writes before it writes tables; reading gathers nothing.
  for {what, writes, bytes_max, tags} <- [{"read", 5, 8_000_000, []}, {"overwritten", 200, 128_000_000, [:long]}] do
    for tag <- tags, do: @tag(tag)

    test "values that are #{what} again and again leave no memory", %{tmp_dir: dir} do
      start_tank(dir, snapshot_interval_entries: 500, log_retention_entries: 10, purge_batch: 100)
      pods = for i <- 1..200, do: pod("pod#{i}", volumes: String.duplicate("#{i}", 500))
      for pod <- pods, do: :ok = Tank.Store.put_pod(pod)

      grows_less(unquote(bytes_max), 50, fn round ->
        pods
        |> Enum.take(unquote(writes))
        |> Task.async_stream(&(:ok = Tank.Store.put_pod(%{&1 | restart: round})), max_concurrency: 50)
        |> Stream.run()

        for _ <- 1..5, do: 200 = length(Tank.Store.list_pods())
        for pod <- pods, do: {:ok, _} = Tank.Store.get_pod(pod.name)
      end)
    end
  end

  test "two stores in one VM never mix", %{tmp_dir: dir} do
    a = start_store(Path.join(dir, "a"))
    b = start_store(Path.join(dir, "b"))
    {:ok, %{member_id: member_a, cluster_id: cluster_a}} = Cluster.status(a)
    {:ok, %{member_id: member_b, cluster_id: cluster_b}} = Cluster.status(b)
    assert member_a != member_b and cluster_a != cluster_b

    for _ <- 1..3 do
      for {id, i} <- [{a, 1}, {b, 2}] do
        start_supervised!({Tank.Store, store_id: id})
        for n <- 1..50, do: :ok = Tank.Store.put_pod(pod("pod#{n}", volumes: i * n))
        :ok = Tank.Store.put_pod(pod("only#{i}"))
        stop_tank()
      end

      :ok = Cluster.stop(a)
      {:ok, ^a} = Cluster.start(Path.join(dir, "a"), a)
    end

    for {id, i} <- [{a, 1}, {b, 2}] do
      start_supervised!({Tank.Store, store_id: id})
      assert listed_names() == Enum.sort(["only#{i}" | for(n <- 1..50, do: "pod#{n}")])
      for n <- 1..50, do: assert(Tank.Store.get_pod("pod#{n}") == {:ok, pod("pod#{n}", volumes: i * n)})
      stop_tank()
    end
  end

  defp use_store do
    for i <- 1..20, do: :ok = Tank.Store.put_pod(pod("pod#{i}"))
    20 = length(Tank.Store.list_pods())
    {:ok, _pod} = Tank.Store.get_pod("pod1")
  end

  # Runs `cycle` often, and compares what there is with what there was after the first few.
  defp leaves_nothing(count, cycle) do
    for i <- 1..3, do: cycle.(-i)
    before = settled()
    half = div(count, 2)
    grows_less(half * @bytes_per_cycle_max + 4_000_000, half, cycle)

    eventually("threads, descriptors and processes to be no more than before", fn ->
      now = settled()
      # Tokio ends threads that had nothing to do for a while.
      Enum.all?(before, fn {what, count} -> now[what] <= count end) or {:not_yet, now: now, before: before}
    end)
  end

  # The second half of twice `count` cycles takes less memory than that for good.
  defp grows_less(bytes_max, count, cycle) do
    for i <- 1..count, do: cycle.(i)
    # What is large is freed a moment later, on a thread of its own.
    before = 1..20 |> Enum.map(fn _reading -> memory() end) |> Enum.min()
    for i <- 1..count, do: cycle.(count + i)

    eventually("memory to be what it was, and less than #{bytes_max} bytes", fn ->
      grown = memory() - before
      grown < bytes_max or {:not_yet, grown: grown, cycles: count}
    end)
  end

  defp settled do
    %{
      threads: length(File.ls!("/proc/self/task")),
      descriptors: length(File.ls!("/proc/self/fd")),
      processes: length(Process.list()),
      stores: length(Cluster.get_store_ids()),
      running: Enum.count(:persistent_term.get(), &match?({{Tank.Store.Running, _id}, _store}, &1))
    }
  end

  defp memory do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    [_, kilobytes] = Regex.run(~r/RssAnon:\s+(\d+) kB/, File.read!("/proc/self/status"))
    String.to_integer(kilobytes) * 1024
  end
end
