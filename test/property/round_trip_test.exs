Code.require_file("property.exs", __DIR__)

defmodule Tank.Store.RoundTripTest do
  # What is put comes back the same, whatever it is: at once, after restarts, and when the log it was written to is gone.
  use Tank.Store.TankCase, async: false

  import Tank.Store.Property

  alias Tank.Store.Cluster

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  test "any term comes back at once: as it was written, from the cache, and among its siblings", %{tmp_dir: dir} do
    start_tank(dir)

    check(any_term(), 2_000, fn term ->
      :ok = Tank.Store.put_at([:terms, "one"], term)
      {:ok, first} = Tank.Store.get_at([:terms, "one"])
      {:ok, [{"one", listed}]} = Tank.Store.children_at([:terms])
      {:ok, second} = Tank.Store.get_at([:terms, "one"])
      same?(first, term) and same?(listed, term) and same?(second, term)
    end)
  end

  test "a pod with any terms in it comes back", %{tmp_dir: dir} do
    start_tank(dir)

    check(any_term(), 500, fn term ->
      pod = %Tank.Pod{name: "web", containers: [%Tank.Container{name: term, env: %{term => term}}], volumes: term}
      :ok = Tank.Store.put_pod(pod)
      {:ok, got} = Tank.Store.get_pod("web")
      [listed] = Tank.Store.list_pods()
      same?(got, pod) and same?(listed, pod)
    end)
  end

  test "2,000 terms come back after a clean restart, and after kills", %{tmp_dir: dir} do
    start_tank(dir)
    terms = put_terms(random_terms(2_000))
    stop_tank()
    start_tank(dir)
    assert_terms(terms)
    kill_server(:tank)
    assert_terms(terms)
    kill_tank()
    assert_terms(terms)
  end

  test "2,000 terms come back when the log is purged behind a snapshot", %{tmp_dir: dir} do
    needle = "NEEDLE" <> Base.encode16(:crypto.strong_rand_bytes(16))

    short_log = %{
      cluster_name: :short_log,
      snapshot_interval_entries: 50,
      log_retention_entries: 5,
      purge_batch: 1,
      segment_bytes: 10_000
    }

    long_log = %{cluster_name: :long_log}
    terms = random_terms(2_000)

    for config <- [short_log, long_log], id = config.cluster_name, dir = Path.join(dir, "#{id}") do
      {:ok, ^id} = Cluster.start(dir, config)
      on_exit(fn -> Cluster.stop(id) end)
      start_supervised!({Tank.Store, store_id: id})
      # Overwritten at once, and before all others: it goes as soon as anything does.
      :ok = Tank.Store.put_at([:needle], needle)
      :ok = Tank.Store.put_at([:needle], :gone)
      put_terms(terms)
      # The other store shows that the needle could be found.
      if id == :short_log,
        do: eventually("the log to be purged", fn -> not holds?(Path.join(dir, "log"), needle) end),
        else: assert(holds?(Path.join(dir, "log"), needle))

      restart(dir, config)
      assert_terms(terms)
      assert {:ok, :gone} = Tank.Store.get_at([:needle])
      stop_supervised!(Tank.Store)
    end
  end

  @tag :long
  @tag timeout: :infinity
  test "50,000 terms come back, in a store that is restarted and purged all the time", %{tmp_dir: dir} do
    start_tank(dir, snapshot_interval_entries: 100, log_retention_entries: 10, purge_batch: 10)

    for _ <- 1..25 do
      terms = put_terms(random_terms(2_000))
      Enum.random([&kill_tank/0, fn -> kill_server(:tank) end]).()
      assert_terms(terms)
    end
  end

  test "a large value comes back, also beside small ones", %{tmp_dir: dir} do
    start_tank(dir)
    small = for i <- 1..50, do: i
    # Around the sizes from which on it is read and written on other schedulers.
    sizes = [64 * 1024 - 20, 64 * 1024 + 20, 256 * 1024 - 20, 256 * 1024 + 20, 3_000_000]
    for i <- small, do: :ok = Tank.Store.put_at([:x, "s#{i}"], i)
    for size <- sizes, do: :ok = Tank.Store.put_at([:x, "l#{size}"], large(size))
    for size <- sizes, _ <- 1..3, do: assert({:ok, large(size)} == Tank.Store.get_at([:x, "l#{size}"]))
    {:ok, children} = Tank.Store.children_at([:x])
    assert Map.new(children) == Map.new(Enum.map(small, &{"s#{&1}", &1}) ++ Enum.map(sizes, &{"l#{&1}", large(&1)}))
  end

  # Each write removes some of what is compacted.
  defp restart(dir, %{cluster_name: id} = config) do
    stop_supervised!(Tank.Store)
    :ok = Cluster.stop(id)
    {:ok, ^id} = Cluster.start(dir, config)
    start_supervised!({Tank.Store, store_id: id})
  end

  defp random_terms(count) do
    {:ok, collected} = Agent.start_link(fn -> [] end)
    check(any_term(), count, fn term -> Agent.update(collected, &[term | &1]) == :ok end)
    terms = Agent.get(collected, & &1)
    assert length(terms) == count
    Enum.with_index(terms)
  end

  defp put_terms(terms) do
    terms
    |> Task.async_stream(fn {term, i} -> :ok = Tank.Store.put_at([:terms, "#{i}"], term) end, max_concurrency: 50)
    |> Stream.run()

    terms
  end

  defp assert_terms(terms) do
    {:ok, children} = Tank.Store.children_at([:terms])
    children = Map.new(children)
    assert map_size(children) == length(terms)

    for {term, i} <- terms do
      assert {:ok, got} = Tank.Store.get_at([:terms, "#{i}"])
      assert same?(got, term)
      assert same?(children["#{i}"], term)
    end
  end

  defp holds?(dir, needle) do
    Path.wildcard(Path.join(dir, "**"))
    |> Enum.filter(&File.regular?/1)
    |> Enum.any?(fn file ->
      with {:ok, bytes} <- File.read(file), do: :binary.match(bytes, needle) != :nomatch, else: (_removed -> false)
    end)
  end

  defp large(size), do: {:crypto.hash(:md5, "#{size}"), String.duplicate("x", size)}
end
