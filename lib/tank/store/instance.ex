defmodule Tank.Store.Instance do
  @moduledoc false
  # One store's supervisor: restarts the store's server when the engine fails, and gives up when that does not help.
  # It has one of its own, so that a store that keeps failing takes no other one with it.
  #
  #     Tank.Store.Supervisor
  #     └── Tank.Store.Instances        (dynamic, one for each running store; several, for one that is slow to open)
  #         └── Tank.Store.Instance     (temporary: whoever started the store decides what comes after)
  #             ├── Tank.Store.Events   (tells subscribers about the cluster)
  #             ├── Tank.Store.Peers    (the way to other nodes: relays)
  #             ├── Tank.Store.Inbox    (the way from other nodes)
  #             ├── Tank.Store.Server   (owns the open directory)
  #             ├── Tank.Store.ReadIndex   (asks the leader, for readers)
  #             ├── Tank.Store.OtherClusters   (notices another cluster of this store id)
  #             └── Tank.Store.Reporter   (tells an operator what happens in the cluster)

  use Supervisor, restart: :temporary

  alias Tank.Store.{
    Counters,
    Deadline,
    Events,
    Identity,
    Inbox,
    LastView,
    Names,
    OtherClusters,
    Peers,
    ReadIndex,
    Reopening,
    Reporter,
    Server
  }

  # Twice what closing may take: the server is killed after 30 s, and its supervisor may be busy with another store.
  @stop_timeout 120_000

  @doc "Starts a store and waits until it answers. `owner` is the process whose end closes it, or nil."
  @spec start(Server.config()) :: {:ok, pid} | {:error, term}
  def start(config) do
    config = Map.put(config, :reopening, Reopening.new())

    case DynamicSupervisor.start_child(instances(config.store_id), {__MODULE__, config}) do
      {:ok, pid} ->
        {:ok, pid}

      {:error, {:shutdown, {:failed_to_start_child, _child, {:already_started, orphan}}}} ->
        with :ok <- await_end(orphan, Deadline.in_ms(@stop_timeout)), do: start(config)

      {:error, {:shutdown, {:failed_to_start_child, Server, reason}}} ->
        {:error, reason}

      {:error, reason} ->
        {:error, reason}
    end
  end

  @doc """
  Stops whatever store runs under this id, waits until its directory is free, and forgets what it was; `:ok` if none runs.

  For users, who know a store by its id. What started a store or looked at one stops that instance (`stop/2`).
  """
  @spec stop(atom) :: :ok | {:error, :timeout}
  def stop(store_id) do
    with :ok <- stop_any(store_id, whereis(store_id)) do
      LastView.forget(store_id)
      Counters.forget(store_id)
      Identity.forget(store_id)
    end
  end

  defp stop_any(store_id, nil), do: await_end(Server.whereis(store_id), Deadline.in_ms(@stop_timeout))
  defp stop_any(store_id, pid), do: stop(store_id, pid)

  @doc """
  Stops this instance of a store, and none that came after it. After a timeout it is still being stopped.
  """
  @spec stop(atom, pid | nil, Deadline.t()) :: :ok | {:error, :timeout}
  def stop(store_id, instance, deadline \\ Deadline.in_ms(@stop_timeout))
  def stop(_store_id, nil, _deadline), do: :ok

  # The supervisor is asked by another process, which goes on when this one gives up.
  def stop(store_id, instance, deadline) do
    spawn(fn -> DynamicSupervisor.terminate_child(instances(store_id), instance) end)
    await_end(instance, deadline)
  end

  @doc "The supervisor of a store, from the moment it begins to start."
  @spec whereis(atom) :: pid | nil
  def whereis(store_id), do: GenServer.whereis(name(store_id))

  def start_link(config), do: Supervisor.start_link(__MODULE__, config, name: name(config.store_id))

  @impl true
  def init(config) do
    # In this order: an engine sends over the link that it was opened with, and an inbox forgets where to deliver.
    children = for child <- [Events, Peers, Inbox, Server, ReadIndex, OtherClusters, Reporter], do: {child, config}
    Supervisor.init(children, strategy: :rest_for_one, max_restarts: 3, max_seconds: 10)
  end

  # A child whose supervisor was killed is about to end; its server closes the store before.
  defp await_end(nil, _deadline), do: :ok

  defp await_end(pid, deadline) do
    monitor = Process.monitor(pid)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      Deadline.remaining(deadline) ->
        Process.demonitor(monitor, [:flush])
        {:error, :timeout}
    end
  end

  defp instances(store_id), do: {:via, PartitionSupervisor, {Tank.Store.Instances, store_id}}

  defp name(store_id), do: {:via, Registry, {Names, {:instance, store_id}}}
end
