defmodule Fleet do
  @moduledoc "What the fleet is asked to do, and by which limits. Call it by `bin/fleet rpc`."

  alias Tank.Store.{Backend, KVPair, Tree}

  @doc "Has a job done. It is on the disks of a majority when this returns."
  def put_job(name, job) do
    with {:ok, _revision} <- Tree.put(:fleet, [:jobs, name], job), do: :ok
  end

  @doc "The jobs, from this node's projection."
  def jobs, do: :jobs |> :ets.tab2list() |> Enum.sort()

  @doc "Sets a limit, which comes to `limits/0` on all nodes."
  def put_limit(name, limit) do
    {:ok, client} = Backend.new(:limits, [:limits])
    with {:ok, _kv} <- Backend.apply(client, %KVPair{key: [name], value: limit}), do: :ok
  end

  @doc "The limits, as this node's syncer has mirrored them."
  def limits, do: Fleet.Limits.all()

  @doc "The epoch in which this node plans, or nil."
  def planner_epoch, do: Application.get_env(:fleet, :planner_epoch)
end
