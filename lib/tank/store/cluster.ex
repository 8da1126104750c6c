defmodule Tank.Store.Cluster do
  @moduledoc """
  Starts and stops stores, and says how they are.

  A store is known by its id, an atom, and lives in a directory of its own. It runs under this library's supervisor:
  it outlives the process that started it, until `stop/1`.

      iex> dir = Path.join(System.tmp_dir!(), "cluster_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, :cluster_doc} = Tank.Store.Cluster.start(dir, :cluster_doc)
      iex> Tank.Store.Cluster.is_store_running(:cluster_doc)
      true
      iex> Tank.Store.Cluster.stop(:cluster_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true

  Functions without a store id are about the default store (`get_default_store_id/0`). Timeouts are in milliseconds,
  5,000 unless given, and may be `:infinity`.

  ## Options

  The config map of `start/3` takes, besides `:cluster_name`:

  #{Tank.Store.Options.docs()}
  """

  require Logger

  alias Tank.Store.{Call, Error, Instance, Native, Options, Running, Server}

  @timeout 5_000

  # How often a call that waits for a store to be started looks again: there is nothing yet to be told by.
  @look_again_ms 10

  @type store_id :: atom
  @type data_dir_or_system :: String.t() | charlist | atom
  @type config :: store_id | %{required(:cluster_name) => store_id, optional(atom) => term}

  @doc """
  Starts a store, and returns once it answers reads and writes.

  `data_dir_or_system` is a directory, made when it is missing, or the id of a running store, whose directory is meant
  then. `store_id_or_config` is an id, or a map with the id as `:cluster_name` and options.

  A store that runs already in that directory stays as it is. One that was stopped has its data.

  Errors: `{:already_running, dir}` when the store runs in another directory; `:system_not_started` for an atom that
  names no running store; `:timeout`, and the store may still come up; or a `Tank.Store.Error` that says why the
  directory could not be opened.

      iex> dir = Path.join(System.tmp_dir!(), "start_doc_#{System.unique_integer([:positive])}")
      iex> Tank.Store.Cluster.start(dir, %{cluster_name: :start_doc, value_bytes_max: 1024})
      {:ok, :start_doc}
      iex> Tank.Store.Cluster.start(dir <> "_other", :start_doc)
      {:error, {:already_running, dir}}
      iex> Tank.Store.Cluster.stop(:start_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true
  """
  @spec start(data_dir_or_system, config, timeout) :: {:ok, store_id} | {:error, term}
  def start(
        data_dir_or_system \\ get_default_data_dir(),
        store_id_or_config \\ get_default_store_id(),
        timeout \\ @timeout
      ) do
    {store_id, options} = config!(store_id_or_config)

    with {:ok, dir} <- dir(data_dir_or_system) do
      start_within(%{store_id: store_id, data_dir: dir, owner: nil, options: options}, timeout)
    end
  end

  @doc """
  Stops a store, and returns when its directory is free. Its data stays. One that does not run is fine.

      iex> Tank.Store.Cluster.stop(:never_started)
      :ok
  """
  @spec stop(store_id) :: :ok
  def stop(store_id \\ get_default_store_id()) when is_atom(store_id), do: Instance.stop(store_id)

  @doc """
  Whether a store runs on this node.

      iex> Tank.Store.Cluster.is_store_running(:never_started)
      false
  """
  @spec is_store_running(store_id) :: boolean
  def is_store_running(store_id) when is_atom(store_id), do: match?({:ok, _dir}, Server.data_dir(store_id))

  @doc """
  The ids of the stores that run on this node, sorted.

      iex> :never_started in Tank.Store.Cluster.get_store_ids()
      false
  """
  @spec get_store_ids :: [store_id]
  def get_store_ids, do: Server.store_ids() |> Enum.sort()

  @doc """
  Waits until a store has a leader and this node answers reads. May be called before the store is started.

  Takes a store id or `{store_id, node}` with this node. Errors: `:noproc` when the store does not run by then,
  `:timeout` when it runs and has no leader.

      iex> Tank.Store.Cluster.wait_for_leader(:never_started, 50)
      {:error, :noproc}
  """
  @spec wait_for_leader(store_id | {store_id, node}, timeout) :: :ok | {:error, term}
  def wait_for_leader(store_id_or_member \\ get_default_store_id(), timeout \\ @timeout)
  def wait_for_leader({store_id, node}, timeout) when node == node(), do: wait_for_leader(store_id, timeout)

  def wait_for_leader(store_id, timeout) when is_atom(store_id) do
    wait_until_leader(store_id, deadline(timeout))
  end

  @doc """
  Figures about a store, at about one moment.

  | key | |
  |---|---|
  | `store_id`, `member_id`, `cluster_id`, `data_dir` | who this member is, and where its data is |
  | `revision` | the store's revision |
  | `entries` | how many entries there are |
  | `memory_bytes` | bytes of paths and values held in memory |
  | `disk_bytes` | bytes of all files |
  | `in_flight` | writes that are not answered yet |
  | `fsyncs`, `log_entries`, `log_bytes` | what was made durable since the store was opened |
  | `applied_index` | index of the last applied log entry |
  | `digest` | a hash of all entries: equal on members with equal entries |
  | `readable` | whether linearizable reads are answered from memory |

      iex> Tank.Store.Cluster.status(:never_started)
      {:error, :noproc}
  """
  @spec status(store_id) :: {:ok, map} | {:error, Error.reason()}
  def status(store_id \\ get_default_store_id()) when is_atom(store_id) do
    with {:ok, store} <- Running.fetch(store_id), {:ok, dir} <- Server.data_dir(store_id) do
      case Native.status(store) do
        {:ok, status} -> {:ok, Map.merge(status, %{store_id: store_id, data_dir: dir})}
        {:error, reason} -> {:error, Error.public(reason)}
      end
    end
  end

  @doc """
  The id of the default store: the application environment's `:default_store_id`, else `:tank`.

      iex> Tank.Store.Cluster.get_default_store_id()
      :tank
  """
  @spec get_default_store_id :: store_id
  def get_default_store_id do
    case Application.get_env(:tank_store, :default_store_id, :tank) do
      id when is_atom(id) and id not in [nil, true, false] ->
        id

      other ->
        raise ArgumentError, "config :tank_store, :default_store_id must be an atom, got: #{inspect(other)}"
    end
  end

  @doc """
  The default directory: the application environment's `:default_data_dir`, else `"tank#<node>"` in the working
  directory.

      iex> Tank.Store.Cluster.get_default_data_dir()
      "tank#nonode@nohost"
  """
  @spec get_default_data_dir :: data_dir_or_system
  def get_default_data_dir do
    case Application.get_env(:tank_store, :default_data_dir, "tank##{node()}") do
      dir when (is_binary(dir) and dir != "") or (is_list(dir) and dir != []) or (is_atom(dir) and dir != nil) ->
        dir

      other ->
        raise ArgumentError, "config :tank_store, :default_data_dir must be a path, got: #{inspect(other)}"
    end
  end

  @doc "The same as `get_default_data_dir/0`, under the name that `khepri_cluster` gives it."
  @spec get_default_ra_system_or_data_dir :: data_dir_or_system
  def get_default_ra_system_or_data_dir, do: get_default_data_dir()

  @doc false
  # Starts a store that ends with the process `owner`.
  @spec start_owned(String.t(), store_id, map, pid) :: {:ok, pid} | {:error, term}
  def start_owned(dir, store_id, options, owner) do
    with {:ok, dir} <- dir(dir),
         do: Instance.start(%{store_id: store_id, data_dir: dir, owner: owner, options: options})
  end

  defp config!(store_id) when is_atom(store_id) and store_id != nil, do: {store_id, %{}}

  defp config!(%{cluster_name: store_id} = config) when is_atom(store_id) and store_id != nil do
    if Map.has_key?(config, :initial_members) do
      Logger.warning("initial_members is ignored: members are added with join")
    end

    {store_id, Options.validate!(config, [:cluster_name, :initial_members])}
  end

  defp config!(other) do
    raise ArgumentError, "expected a store id or a map with :cluster_name, got: #{inspect(other)}"
  end

  defp dir(system) when is_atom(system) do
    with {:error, :noproc} <- Server.data_dir(system), do: {:error, :system_not_started}
  end

  defp dir(dir) when is_list(dir) and dir != [], do: dir |> List.to_string() |> dir()

  defp dir(dir) when is_binary(dir) and dir != "" do
    # The Rust library reports paths as text.
    if String.valid?(dir), do: {:ok, Path.expand(dir)}, else: no_path(dir)
  end

  defp dir(dir), do: no_path(dir)

  defp no_path(dir), do: {:error, Error.from_native({:invalid_option, :data_dir, "#{inspect(dir)} is not a path"})}

  # Opening cannot be interrupted, so another process does it, and this one waits for as long as it may.
  defp start_within(config, timeout) do
    {pid, monitor} = spawn_monitor(fn -> exit({:started, start_or_compare(config)}) end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:started, result}} -> result
      {:DOWN, ^monitor, :process, ^pid, reason} -> {:error, reason}
    after
      timeout ->
        Process.demonitor(monitor, [:flush])
        {:error, :timeout}
    end
  end

  defp start_or_compare(%{store_id: store_id, data_dir: dir} = config) do
    case Instance.start(config) do
      {:ok, _pid} -> {:ok, store_id}
      {:error, {:already_started, _pid}} -> compare(store_id, dir)
      {:error, reason} -> {:error, reason}
    end
  end

  defp compare(store_id, dir) do
    case Server.data_dir(store_id) do
      {:ok, ^dir} -> {:ok, store_id}
      {:ok, other} -> {:error, {:already_running, other}}
      # It is only just starting, or stopping.
      {:error, :noproc} -> {:error, :noproc}
    end
  end

  defp wait_until_leader(store_id, deadline) do
    case Running.fetch(store_id) do
      {:ok, store} ->
        Call.await_readable(store, remaining(deadline))

      {:error, :noproc} ->
        if remaining(deadline) == 0 do
          {:error, :noproc}
        else
          receive after: (@look_again_ms -> wait_until_leader(store_id, deadline))
        end
    end
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp remaining(:infinity), do: :infinity
  defp remaining(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)
end
