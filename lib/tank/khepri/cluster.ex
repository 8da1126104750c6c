defmodule Tank.Khepri.Cluster do
  @moduledoc """
  Starts, stops and clusters stores by Khepri's API: `Tank.Store.Cluster` with Khepri's arguments and errors.

  A store lives in a directory of its own, `tank-<store id>`, below the data directory, or below that of the Ra system that
  an atom names. `start/3` refuses a directory that holds the store of the real Khepri: `{error, {khepri,
  data_of_another_khepri, _}}` says how to move it over.
  """

  alias Tank.Khepri.{App, Directory, Error, Member, Stores}
  alias Tank.Store.Cluster

  @type store :: atom
  @type error :: {:error, term}

  defguardp is_timeout(timeout) when timeout == :infinity or (is_integer(timeout) and timeout >= 0)

  # -- Starting and stopping

  @doc "Starts the default store in the default directory."
  @spec start :: {:ok, store} | error
  def start, do: start(App.get_default_ra_system_or_data_dir())

  @doc "Starts the default store."
  @spec start(atom | charlist | binary) :: {:ok, store} | error
  def start(dir_or_system), do: start(dir_or_system, App.get_default_store_id())

  @doc "As `start/3`, with the default timeout."
  @spec start(atom | charlist | binary, store | map) :: {:ok, store} | error
  def start(dir_or_system, store_or_config), do: start(dir_or_system, store_or_config, App.get_default_timeout())

  @doc """
  Starts a store. `dir_or_system` is a directory, or the name of a Ra system that runs. `store_or_config` is the store's
  id or a map with it as `cluster_name`, and with options of `Tank.Store.Cluster.start/3`; what only Ra knows is ignored.

  A store that runs already stays as it is.
  """
  @spec start(atom | charlist | binary, store | map, timeout) :: {:ok, store} | error
  def start(dir_or_system, store_or_config, timeout)
      when (is_atom(dir_or_system) or is_list(dir_or_system) or is_binary(dir_or_system)) and
             (is_atom(store_or_config) or is_map(store_or_config)) and is_timeout(timeout) do
    config = config(store_or_config)

    with {:ok, _applications} <- start_applications(),
         {:ok, dir} <- Directory.of(dir_or_system, config.cluster_name) do
      start_in(dir, config, timeout)
    end
  end

  # Khepri's name is that of the application in `khepri/` only where that is there: it may be the real one's.
  defp start_applications do
    with {:ok, _applications} <- Application.ensure_all_started(:tank_store),
         true <- Code.ensure_loaded?(Tank.Khepri.Application) do
      Application.ensure_all_started(:khepri)
    else
      false -> {:ok, []}
      error -> error
    end
  end

  defp start_in(dir, %{cluster_name: store} = config, timeout) do
    case Cluster.start(dir, config, timeout) do
      {:ok, ^store} -> with :ok <- Stores.opened(store), do: {:ok, store}
      {:error, {:already_running, _dir}} -> {:ok, store}
      {:error, reason} -> {:error, reason}
    end
  end

  defp config(store) when is_atom(store), do: %{cluster_name: store}

  defp config(%{} = config) do
    known = [:cluster, :role, :forming | Tank.Store.Options.names()]
    config |> Map.take([:cluster_name | known]) |> Map.put_new_lazy(:cluster_name, &App.get_default_store_id/0)
  end

  @doc "Stops the default store."
  @spec stop :: :ok | error
  def stop, do: stop(App.get_default_store_id())

  @doc "Stops a store. Its data stays."
  @spec stop(store) :: :ok | error
  def stop(store) when is_atom(store) do
    Stores.closing(store)
    Cluster.stop(store)
  end

  # -- Joining and leaving

  @doc "As `join/3`, of a node, or of `{store, node}`."
  @spec join(node | {store, node}) :: :ok | error
  def join({store, node}), do: join(store, node)
  def join(node) when is_atom(node), do: join(App.get_default_store_id(), node)

  @doc "As `join/3`, without the store's id or without a timeout."
  @spec join(node | {store, node} | store, timeout | node) :: :ok | error
  def join({store, node}, timeout), do: join(store, node, timeout)

  def join(node, timeout) when is_atom(node) and is_timeout(timeout),
    do: join(App.get_default_store_id(), node, timeout)

  def join(store, node) when is_atom(store), do: join(store, node, App.get_default_timeout())

  @doc "Makes a store of this node a member of the cluster of another node. Its data is lost."
  @spec join(store, node | {store, node}, timeout) :: :ok | error
  def join(store, {store, node}, timeout), do: join(store, node, timeout)
  def join(store, node, timeout) when is_atom(node), do: store |> Cluster.join(node, timeout) |> translated()

  @doc "As `reset/2`, of the default store."
  @spec reset :: :ok | error
  def reset, do: reset(App.get_default_store_id())

  @doc "As `reset/2`, of a store or with a timeout."
  @spec reset(store | timeout) :: :ok | error
  def reset(timeout) when is_timeout(timeout), do: reset(App.get_default_store_id(), timeout)
  def reset(store), do: reset(store, App.get_default_timeout())

  @doc "Leaves the cluster, and erases and stops the store."
  @spec reset(store, timeout) :: :ok | error
  def reset(store, timeout) when is_atom(store) do
    with :ok <- store |> Cluster.reset(timeout) |> translated() do
      Stores.closing(store)
      :ok
    end
  end

  # -- Members

  @doc "As `members/2`, of the default store."
  @spec members :: {:ok, [{store, node}, ...]} | error
  def members, do: members(App.get_default_store_id())

  @doc "As `members/2`, of a store or with options."
  @spec members(store | map) :: {:ok, [{store, node}, ...]} | error
  def members(store) when is_atom(store), do: members(store, %{})
  def members(options) when is_map(options), do: members(App.get_default_store_id(), options)

  @doc "The members, sorted. Options: `timeout`, `favor`."
  @spec members(store, map) :: {:ok, [{store, node}, ...]} | error
  def members(store, options) when is_map(options) do
    query = options |> Map.take([:favor, :timeout]) |> Map.put_new_lazy(:timeout, &App.get_default_timeout/0)

    case Cluster.members(store, query) do
      {:error, :no_quorum} -> {:error, :timeout}
      answer -> noted(answer, store)
    end
  end

  # What Ra's tables say of the leader is as new as this answer.
  defp noted({:ok, _members} = answer, store) do
    :ok = Member.note_now(store)
    answer
  end

  defp noted(error, _store), do: error

  @doc "As `members/0`, with the nodes alone."
  @spec nodes :: {:ok, [node, ...]} | error
  def nodes, do: only_nodes(members())

  @doc "As `members/1`, with the nodes alone."
  @spec nodes(store | map) :: {:ok, [node, ...]} | error
  def nodes(store_or_options), do: only_nodes(members(store_or_options))

  @doc "As `members/2`, with the nodes alone."
  @spec nodes(store, map) :: {:ok, [node, ...]} | error
  def nodes(store, options), do: only_nodes(members(store, options))

  defp only_nodes({:ok, members}), do: {:ok, for({_store, node} <- members, do: node)}
  defp only_nodes(error), do: error

  @doc "As `wait_for_leader/2`, of the default store."
  @spec wait_for_leader :: :ok | error
  def wait_for_leader, do: wait_for_leader(App.get_default_store_id())

  @doc "As `wait_for_leader/2`, with the default timeout."
  @spec wait_for_leader(store | {store, node}) :: :ok | error
  def wait_for_leader(store_or_member), do: wait_for_leader(store_or_member, App.get_default_timeout())

  @doc "Waits until a store has a leader. It may not be started yet."
  @spec wait_for_leader(store | {store, node}, timeout) :: :ok | error
  def wait_for_leader(store_or_member, timeout), do: Cluster.wait_for_leader(store_or_member, timeout)

  @doc "As `wait_for_effective_machine_version/3`, with the default timeout."
  @spec wait_for_effective_machine_version(store | {store, node}, non_neg_integer | :latest) :: :ok | error
  def wait_for_effective_machine_version(store_or_member, version),
    do: wait_for_effective_machine_version(store_or_member, version, App.get_default_timeout())

  @doc "Whether the store behaves as a version of Khepri's state machine, of which this is the third."
  @spec wait_for_effective_machine_version(store | {store, node}, non_neg_integer | :latest, timeout) :: :ok | error
  def wait_for_effective_machine_version({store, _node}, version, timeout),
    do: wait_for_effective_machine_version(store, version, timeout)

  def wait_for_effective_machine_version(store, version, _timeout) when is_atom(store) do
    cond do
      not is_store_running(store) -> not_defined(store)
      version == :latest or version <= Tank.Khepri.Machine.version() -> :ok
      true -> {:error, :timeout}
    end
  end

  @doc "As `wait_for_effective_behaviour/3`, with the default timeout."
  @spec wait_for_effective_behaviour(store | {store, node}, atom) :: :ok | error
  def wait_for_effective_behaviour(store_or_member, name),
    do: wait_for_effective_behaviour(store_or_member, name, App.get_default_timeout())

  @doc "Whether the store has a behaviour that Khepri's state machine got with some version."
  @spec wait_for_effective_behaviour(store | {store, node}, atom, timeout) :: :ok | error
  def wait_for_effective_behaviour({store, _node}, name, timeout),
    do: wait_for_effective_behaviour(store, name, timeout)

  def wait_for_effective_behaviour(store, name, _timeout) when is_atom(store) do
    cond do
      not Tank.Khepri.Machine.has_behaviour?(name) -> {:error, Error.new(:unknown_api_hehaviour, %{behaviour: name})}
      is_store_running(store) -> :ok
      true -> not_defined(store)
    end
  end

  defp not_defined(store) do
    props = %{store_id: store, ra_server: this_member(store)}
    {:error, Error.new(:effective_machine_version_not_defined, props)}
  end

  # -- What is known here

  @doc "The ids of the stores that run here."
  @spec get_store_ids :: [store]
  defdelegate get_store_ids(), to: Cluster

  @doc "Whether a store runs here."
  @spec is_store_running(store) :: boolean
  defdelegate is_store_running(store), to: Cluster

  @doc "The member of a store on a node."
  @spec node_to_member(store, node) :: {store, node}
  def node_to_member(store, node), do: {store, node}

  @doc "The member of a store on this node."
  @spec this_member(store) :: {store, node}
  def this_member(store), do: {store, node()}

  defdelegate get_default_store_id(), to: App
  defdelegate get_default_ra_system_or_data_dir(), to: App

  defp translated({:error, {:tank, :not_a_tank_store, props}}), do: {:error, Error.new(:not_a_khepri_store, props)}

  defp translated({:error, {:tank, :failed_to_join_remote_node, props}}),
    do: {:error, Error.new(:failed_to_join_remote_khepri_node, props)}

  defp translated({:error, {:tank, name, props}}), do: {:error, Error.new(name, props)}
  defp translated({:error, :no_quorum}), do: {:error, :timeout}
  defp translated(answer), do: answer
end
