defmodule Tank.Bench.Workload.Cluster do
  @moduledoc """
  Three members, each a VM on this machine: durable puts by 1, 16, 64 and 256 processes at the leader and at a follower,
  which forwards them; and how long nothing is acknowledged after a `kill -9` of the leader. All three sync to one disk
  and share its processors: on machines of their own they would not.
  """

  alias Tank.Bench.{Load, Nodes, Pods, Report, Store, Workload}

  @writers [1, 16, 64, 256]
  @failover_writers 16

  # Longer than any election takes.
  @failover_ms 3_000

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(%{store: store} = settings) do
    pods = if settings.quick?, do: 200, else: 10_000
    nodes = Nodes.start(store, Path.join(settings.dir, "cluster"), 3)
    {leader, _others} = Nodes.leader(nodes)
    :ok = Nodes.call(leader, Store, :fill, [store, pods])
    rounds = for _round <- 1..settings.rounds, do: round(nodes, settings, pods)

    {nodes, pauses} =
      Enum.reduce(1..settings.rounds, {nodes, []}, fn _round, found -> fail_over(store, pods, found) end)

    Nodes.stop(nodes)
    report(rounds, Enum.reverse(pauses))
  end

  defp round(nodes, settings, pods) do
    {leader, [follower | _other]} = Nodes.leader(nodes)

    for writers <- @writers, {at, node} <- [leader: leader, follower: follower], into: %{} do
      {{writers, at}, Nodes.call(node, __MODULE__, :puts, [settings.store, pods, writers, settings.seconds])}
    end
  end

  @doc false
  def puts(store, pods, writers, seconds), do: Load.run(writers, seconds, Workload.Put.writer(store, Pods.names(pods)))

  defp fail_over(store, pods, {nodes, pauses}) do
    {leader, [follower | _other] = others} = Nodes.leader(nodes)
    pause = Nodes.call(follower, __MODULE__, :kill_and_wait, [store, pods, leader.os_pid])
    {[Nodes.restart(leader, store, others) | others], [pause | pauses]}
  end

  @doc false
  # Kills the leader's VM while this node writes: the longest time without an acknowledgement from then on, in ms.
  def kill_and_wait(store, pods, os_pid) do
    make = Workload.Put.writer(store, Pods.names(pods))
    writers = for client <- 1..@failover_writers, do: Task.async(fn -> write_on(make.(client), []) end)
    Process.sleep(500)
    killed = System.monotonic_time()
    {_output, 0} = System.cmd("kill", ["-9", os_pid])
    Process.sleep(@failover_ms)
    for writer <- writers, do: send(writer.pid, :stop)
    acknowledged = writers |> Task.await_many(:infinity) |> Enum.concat() |> Enum.filter(&(&1 > killed))

    [killed | Enum.sort(acknowledged)]
    |> Enum.chunk_every(2, 1, :discard)
    |> Enum.map(fn [from, to] -> System.convert_time_unit(to - from, :native, :microsecond) / 1_000 end)
    |> Enum.max()
  end

  defp write_on(put, acknowledged) do
    receive do
      :stop -> acknowledged
    after
      0 ->
        :ok = put.(0)
        write_on(put, [System.monotonic_time() | acknowledged])
    end
  end

  defp report(rounds, pauses) do
    of = fn writers, at, field -> for round <- rounds, do: round[{writers, at}][field] end

    rows =
      for writers <- @writers do
        label = if writers == 1, do: "1 writer", else: "#{writers} writers"

        [
          label
          | Enum.flat_map([:leader, :follower], &[Report.spread(of.(writers, &1, :rate)), micros(of, writers, &1)])
        ]
      end

    head = ["durable puts", "at the leader, per second", "p50 / p99 us", "at a follower, per second", "p50 / p99 us"]
    killed = [["kill -9 of the leader to the next acknowledged put, ms", Report.spread(pauses)]]

    %{
      tables: [
        %{title: "Three members, pods of 1.6 KB", head: head, rows: rows},
        %{title: "Losing the leader under #{@failover_writers} writers", head: ["", "ms"], rows: killed}
      ],
      series: series(of) ++ [Report.series("cluster.failover", %{writers: @failover_writers}, "ms", pauses)]
    }
  end

  defp micros(of, writers, at),
    do: "#{Report.median(of.(writers, at, :p50))} / #{Report.median(of.(writers, at, :p99))}"

  defp series(of) do
    for writers <- @writers, at <- [:leader, :follower], {field, unit} <- [rate: "1/s", p50: "us", p99: "us"] do
      Report.series("cluster.put.#{field}", %{writers: writers, at: at}, unit, of.(writers, at, field))
    end
  end
end
