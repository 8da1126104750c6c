defmodule Tank.Bench.Store.KhepriApi do
  @moduledoc "Khepri's API on a store of ours (`Tank.Khepri`), one member: what the translation costs."

  @behaviour Tank.Bench.Store

  @store :khepri_api
  @every_name {:if_name_matches, :any, :undefined}

  @impl true
  def version, do: "Tank.Khepri of #{Tank.Bench.Store.Tank.version()}"

  @impl true
  def start(dir) do
    {:ok, _started} = Application.ensure_all_started(:tank_store)
    {:ok, @store} = Tank.Khepri.start(dir, @store)
    :ok
  end

  @impl true
  def stop, do: Tank.Khepri.stop(@store)

  @impl true
  def put(pod), do: put_at([:tank, :pods, pod.name], pod)

  @doc "Writes any value under any path of atoms and strings."
  @spec put_at([atom | String.t()], term) :: :ok
  def put_at(path, value), do: Tank.Khepri.put(@store, path, value)

  @impl true
  def reads do
    [{"get, favor: consistency", &get(&1, %{favor: :consistency})}, {"get", &get(&1, %{})}]
  end

  @impl true
  def lists, do: [{"get_many", &get_many/0}]

  @impl true
  def syncs do
    {:ok, status} = Tank.Store.Cluster.status(@store)
    status.fsyncs
  end

  @doc "Runs a transaction."
  @spec transaction((() -> term)) :: {:ok, term}
  def transaction(change), do: Tank.Khepri.transaction(@store, change, :rw)

  @doc "Replaces `{count, _}` at a path by `{count + 1, pod}`."
  @spec swap([atom | String.t()], non_neg_integer, map) :: :ok
  def swap(path, count, pod), do: Tank.Khepri.compare_and_swap(@store, path, {count, :_}, {count + 1, pod})

  defp get(name, options), do: Tank.Khepri.get(@store, [:tank, :pods, name], options)

  defp get_many do
    {:ok, pods} = Tank.Khepri.get_many(@store, [:tank, :pods, @every_name], %{favor: :low_latency})
    Map.values(pods)
  end
end
