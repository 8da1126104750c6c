defmodule Tank.Bench.Store.Khepri do
  @moduledoc """
  Khepri on Ra, one member, with its own defaults: what Tank kept its pods in before.

  Without a projection, as its writes are fastest; `Tank.Bench.Store.KhepriProjected` has one. `PEER_LIBRARIES` names the
  directory with its libraries (bench/peers/run sets it).
  """

  @behaviour Tank.Bench.Store

  @compile {:no_warn_undefined, [:khepri, :khepri_cluster, :khepri_projection, :ra_counters, :ra_leaderboard]}

  @store :khepri
  @every_name {:if_name_matches, :any, :undefined}
  @table :bench_projection
  @libraries ~w(khepri ra aten gen_batch_server horus seshat)

  @impl true
  def version do
    load_code()
    for(name <- [:khepri, :ra], do: "#{name} #{vsn(name)}") |> Enum.join(", ")
  end

  @impl true
  def start(dir) do
    load_code()
    # After a crash it answers callers of its last life, which Erlang reports as errors.
    :logger.set_primary_config(:level, :critical)
    {:ok, _started} = Application.ensure_all_started(:khepri)
    File.mkdir_p!(dir)
    {:ok, @store} = :khepri.start(String.to_charlist(dir))
    :ok
  end

  # With Ra, which would go on with the first directory it was given.
  @impl true
  def stop do
    :ok = :khepri.stop()
    for application <- [:khepri, :ra], do: :ok = Application.stop(application)
    :ok
  end

  @impl true
  def put(pod), do: put_at([:tank, :pods, pod.name], pod)

  @impl true
  def reads do
    [{"get, favor: consistency", &get(&1, %{favor: :consistency})}, {"get", &get(&1, %{})}]
  end

  @impl true
  def lists, do: [{"get_many", &get_many/0}]

  @impl true
  def syncs do
    Enum.find_value(:ra_counters.overview(), fn {key, counters} ->
      if inspect(key) =~ "wal", do: counters[:batches]
    end)
  end

  @impl true
  def join(node), do: :khepri_cluster.join(node)

  @impl true
  def leader do
    with {@store, node} <- :ra_leaderboard.lookup_leader(@store), do: node, else: (:undefined -> nil)
  end

  @impl true
  def leave, do: :khepri_cluster.reset(@store)

  @impl true
  def holds?(name), do: :khepri.exists(@store, [:tank, :pods, name], %{favor: :low_latency}) == true

  @impl true
  def import(path), do: :khepri.import(@store, :khepri_export_erlang, String.to_charlist(path))

  @doc "Writes any value under any path of atoms and strings."
  @spec put_at([atom | String.t()], term) :: :ok
  def put_at(path, value), do: :khepri.put(@store, path, value)

  @doc "Keeps a table of the pods by name current from now on, also after a restart."
  @spec project :: :ok
  def project do
    projection = :khepri_projection.new(@table, &row/2, %{read_concurrency: true})

    case :khepri.register_projection(@store, [:tank, :pods, @every_name], projection) do
      :ok -> :ok
      {:error, {:khepri, :projection_already_exists, _info}} -> :ok
    end
  end

  @doc "The projection's rows of one name."
  @spec lookup(String.t()) :: {:ok, term}
  def lookup(name) do
    [{_name, pod}] = :ets.lookup(@table, name)
    {:ok, pod}
  end

  @doc "All rows of the projection."
  @spec tab2list :: [tuple]
  def tab2list, do: :ets.tab2list(@table)

  # Khepri takes the code of this function from the compiled file of this module.
  defp row([:tank, :pods, name], pod), do: {name, pod}

  defp get(name, options), do: :khepri.get(@store, [:tank, :pods, name], options)

  defp get_many do
    {:ok, pods} = :khepri.get_many(@store, [:tank, :pods, @every_name], %{favor: :low_latency})
    Map.values(pods)
  end

  defp load_code do
    for name <- @libraries, ebin <- Path.wildcard("#{System.fetch_env!("PEER_LIBRARIES")}/#{name}-[0-9]*/ebin") do
      :code.add_patha(String.to_charlist(ebin))
    end
  end

  defp vsn(application) do
    Application.load(application)
    Application.spec(application, :vsn)
  end
end
