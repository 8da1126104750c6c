defmodule Tank.Bench.Comparison.Cases.Cluster do
  @moduledoc """
  Three members on one machine: puts and reads that cannot be stale, at the leader and at a follower.

  For context, beside the reads, what a message to the leader's node and back takes, which does nothing else.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Load, Members, Pods, Store, Workload}

  @sides [tank: Store.Tank, khepri: Store.Khepri, message: Store.Message]

  @impl true
  def title, do: "Three members"

  @impl true
  def metrics, do: [{:rate, "1/s", :more}, {:p50, "us", :less}, {:p99, "us", :less}]

  @impl true
  def stages(settings) do
    {pods, puts, gets} = if settings.quick?, do: {100, [2], [1]}, else: {10_000, [1, 64, 256], [1, 4, 64]}

    points =
      for {what, numbers} <- [{"put", puts}, {"authoritative get", gets}],
          where <- ["leader", "follower"],
          clients <- numbers,
          do: %{way: what, at: where, clients: clients}

    [%{sides: @sides, setup: %{pods: pods}, points: points, warm_up: true}]
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = Members.start(store, dir)
    [leader | _followers] = Members.members()
    :ok = Members.call(leader, Store, :fill, [store, pods])
  end

  @impl true
  def measure(Store.Message, _dir, %{way: "put"}, _seconds), do: %{}

  def measure(store, _dir, params, seconds) do
    [leader, follower | _other] = Members.members()
    member = if params.at == "leader", do: leader, else: follower
    Members.call(member, __MODULE__, :load, [store, params, seconds])
  end

  @doc "Runs on a member."
  @spec load(module, map, float) :: map
  def load(store, %{pods: pods, way: way, clients: clients}, seconds) do
    Load.run(clients, seconds, call(way, store, Pods.names(pods))) |> Map.take([:rate, :p50, :p99])
  end

  defp call("put", store, names), do: Workload.Put.writer(store, names)

  defp call("authoritative get", store, names) do
    [{_label, read} | _others] = store.reads()

    fn client ->
      Process.put(:seed, client * 104_729)
      fn _count -> elem(read.(Workload.Put.pick(names)), 0) end
    end
  end
end
