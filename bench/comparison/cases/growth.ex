defmodule Tank.Bench.Comparison.Cases.Growth do
  @moduledoc """
  How the cost of a call grows: with the pods that are stored, on one member; and with the members, of 1,000 pods.

  A million pods only with `--million`, and for ours alone: Khepri would need some 20 GB of memory.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Members, Pods, Store, Workload}
  alias Tank.Bench.Comparison.Cases.Cluster

  @sides [tank: Store.Tank, khepri: Store.Khepri]
  @clients 64

  @impl true
  def title, do: "How costs grow"

  @impl true
  def metrics, do: [{:rate, "1/s", :more}, {:p50, "us", :less}, {:p99, "us", :less}]

  @impl true
  def stages(settings) do
    {pods, members} = if settings.quick?, do: {[50, 100], [1, 2]}, else: {[1_000, 10_000, 100_000], [1, 3, 5]}
    million = if settings.million?, do: [stage(%{pods: 1_000_000, members: 1}, Keyword.take(@sides, [:tank]))], else: []
    few = hd(pods)

    for(n <- pods, do: stage(%{pods: n, members: 1}, @sides)) ++
      million ++ for(n <- members, n > 1, do: stage(%{pods: few, members: n}, @sides))
  end

  defp stage(setup, sides) do
    points =
      for {way, clients} <- [{"put", 1}, {"put", @clients}, {"authoritative get", 1}], do: %{way: way, clients: clients}

    %{sides: sides, setup: setup, points: points, warm_up: true}
  end

  @impl true
  def prepare(store, dir, %{pods: pods, members: members}) do
    :ok = Members.start(store, dir, members)
    :ok = Members.call(leader(), Store, :fill, [store, pods])
    :ok = Members.call(leader(), Workload.Get, :warm, [store, Pods.names(pods)])
  end

  @impl true
  def measure(store, _dir, params, seconds), do: Members.call(leader(), Cluster, :load, [store, params, seconds])

  defp leader, do: hd(Members.members())
end
