defmodule Tank.Bench.Comparison.Cases.Watch do
  @moduledoc """
  From before a put to when the last of so many watchers has its change, one put after the other. Khepri has no watches:
  the row is ours alone.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Histogram, Load, Pods, Store}

  @impl true
  def title, do: "Watching"

  @impl true
  def metrics, do: [{:rate, "puts/s", :more}, {:p50, "us to the last", :less}, {:p99, "us to the last", :less}]

  @impl true
  def stages(settings) do
    watchers = if settings.quick?, do: [1, 3], else: [1, 100, 1_000]
    points = for n <- watchers, do: %{watchers: n}
    [%{sides: [tank: Store.Tank], setup: %{pods: 100}, points: points, warm_up: true}]
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = store.start(dir)
    Store.fill(store, pods)
  end

  @impl true
  def measure(store, _dir, %{pods: pods, watchers: watchers}, seconds) do
    # The writer counts the changes that have arrived.
    parent = self()
    writer = spawn_link(fn -> send(parent, {:found, write(store, pods, watchers, seconds)}) end)
    watching = for _ <- 1..watchers, do: spawn_link(fn -> watch(writer) end)
    found = receive do: ({:found, found} -> found)
    for pid <- watching, do: send(pid, :stop)
    found
  end

  defp write(store, pods, watchers, seconds) do
    for _ <- 1..watchers, do: receive(do: (:watching -> :ok))
    Load.settle()
    latencies = Histogram.new()
    begin = now()
    count = loop(store, pods, watchers, latencies, begin + trunc(seconds * 1.0e9), 0)
    [p50, p99] = Histogram.percentiles(latencies, [0.5, 0.99])
    %{rate: count / ((now() - begin) / 1.0e9), p50: p50, p99: p99}
  end

  defp loop(store, pods, watchers, latencies, deadline, count) do
    begin = now()
    :ok = store.put(Pods.pod(Pods.name(1 + rem(count, pods))))
    for _ <- 1..watchers, do: receive(do: (:changed -> :ok))
    ended = now()
    Histogram.add(latencies, ended - begin)
    if ended < deadline, do: loop(store, pods, watchers, latencies, deadline, count + 1), else: count + 1
  end

  defp watch(writer) do
    {:ok, watch} = Tank.Store.Watch.start(:tank, [:tank, :pods], from: :now)
    send(writer, :watching)
    changes(watch.ref, writer)
  end

  defp changes(ref, writer) do
    receive do
      {:store_watch, ^ref, {:changes, _revision, changes}} ->
        for _change <- changes, do: send(writer, :changed)
        changes(ref, writer)

      {:store_watch, ^ref, {:cancelled, reason}} ->
        exit({:cancelled, reason})

      {:store_watch, ^ref, _other} ->
        changes(ref, writer)

      :stop ->
        :ok
    end
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
