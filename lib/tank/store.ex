defmodule Tank.Store do
  @moduledoc """
  The desired state of Tank: pods, kept through restarts, crashes and power cuts.

  Put it under your supervisor, before whatever reads it:

      children = [
        {Tank.Store, data_dir: "/var/lib/tank"},
        MyApp.Reconciler
      ]

  When it has started it answers reads and writes, so that a child after it can seed pods in its `init`.

      iex> web = Tank.Pod.new!(name: "web", containers: [[name: "nginx", image: "nginx:1.27"]])
      iex> Tank.Store.put_pod(web)
      :ok
      iex> Tank.Store.get_pod("web") == {:ok, web}
      true
      iex> Tank.Store.list_pods() == [web]
      true
      iex> Tank.Store.delete_pod("web")
      :ok
      iex> Tank.Store.get_pod("web")
      {:error, :not_found}

  ## Options

    * `:data_dir` - the directory of the store, made when it is missing. The store starts and stops with this process.
      Without it, the store named by `:store_id` must be running already (`Tank.Store.Cluster.start/2`); it is used, and
      left running.
    * `:create` - `false` refuses a directory that is missing or empty, with `{:no_store, path}`, instead of making a store
      there: for machines whose mount may be missing. The application environment's unless given, which is true by default.
    * `:store_id` - the store's id; that of `Tank.Store.Cluster.get_default_store_id/0`, `:tank`, unless given.
    * `:timeout` - milliseconds that the start may take until the store answers, 30,000 unless given.
    * `:pods_table` - `true` keeps the pods in the ETS table `:tank_pods` as well, as `{name, pod}`: a named, protected
      table that any process reads. `false` unless given, since each write then waits for its row.
    * those of `Tank.Store.Cluster`, with a `:data_dir`.

  A start that fails gives `{:error, {:store_init_failed, error}}`, mostly with a `Tank.Store.Error` that says what is
  wrong with the directory.

  ## What is promised

  A write that returned `:ok` is on the disk, synced: it survives a `kill -9` of the VM and a power cut. `get_pod/1`
  gives the newest acknowledged pod. `list_pods/0` reads this node's memory, and holds at least all that this node's
  processes have written and been answered. An `{:error, :timeout}` means that the outcome of a write is unknown; the
  other errors are those of `Tank.Store.Error`.

  A call before `Tank.Store` is first started raises "Tank.Store is not started". While it does not run later on, functions
  that write return `{:error, :noproc}`, and those that read raise `Tank.Store.Error` with that reason. After a crash,
  while its supervisor restarts it, `list_pods/0` goes on from what this node knew, for half a minute at the most. Calls
  wait for 5 seconds at the most.

  With `pods_table: true`, a write that this module made on this node is in the table when it returns: it waits for that as
  long again, and is acknowledged all the same when the table is late. Pods that other nodes wrote follow a moment later.
  The table ends with the process `Tank.Store`; it stays as it is while the store is opened again.
  """

  alias Tank.Store.{Call, Error, Owner, Path, PodsTable}

  @timeout 5_000

  {:ok, pods_key} = Path.to_key([:tank, :pods])
  @pods_key pods_key

  @typedoc "A pod: a `Tank.Pod` struct, this package's or Tank's own."
  @type pod :: %{required(:__struct__) => Tank.Pod, required(:name) => String.t(), optional(atom) => term}

  @doc """
  The child specification: a worker with the id `Tank.Store`.

      iex> Tank.Store.child_spec(data_dir: "pods")
      %{id: Tank.Store, start: {Tank.Store, :start_link, [[data_dir: "pods"]]}, type: :worker}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(opts), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [opts]}, type: :worker}

  @doc """
  Starts the store, or attaches to a running one, and registers the name `Tank.Store`. See the options above.

  Returns once the store answers reads and writes. Raises `ArgumentError` for an option that makes no sense.

      iex> {:error, {:already_started, pid}} = Tank.Store.start_link(data_dir: "elsewhere")
      iex> pid == Process.whereis(Tank.Store)
      true
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts \\ []), do: Owner.start_link(opts)

  @doc """
  Creates a pod, or overwrites the one of its name.

  Takes a `Tank.Pod`; anything else raises `FunctionClauseError`. The pod's name is a string or an atom, of at most
  255 bytes (`{:error, {:too_large, :path_component, 255}}`); any bytes will do. The pod's external term format is at
  most 16 MiB (`{:error, {:too_large, :value, limit}}`).

      iex> Tank.Store.put_pod(%Tank.Pod{name: "job", restart: :never})
      :ok
      iex> Tank.Store.put_pod(%Tank.Pod{name: 7})
      {:error, {:invalid_name, 7}}
  """
  @spec put_pod(pod) :: :ok | {:error, term}
  def put_pod(%{__struct__: Tank.Pod, name: name} = pod), do: write_pod(:put, name, pod)

  @doc """
  Creates a pod, unless there is one of its name: that one stays untouched.

      iex> Tank.Store.create_pod(%Tank.Pod{name: "once"})
      :ok
      iex> Tank.Store.create_pod(%Tank.Pod{name: "once", restart: :never})
      {:error, :exists}
  """
  @spec create_pod(pod) :: :ok | {:error, :exists | term}
  def create_pod(%{__struct__: Tank.Pod, name: name} = pod) do
    with {:error, {:exists, _revisions}} <- write_pod(:create, name, pod), do: {:error, :exists}
  end

  @doc """
  The pod of a name.

  Linearizable: it gives what the last acknowledged write left, whoever made it. `{:error, :not_found}` only when there
  is no such pod. When that cannot be known, because the store has no quorum or does not run, it raises
  `Tank.Store.Error`.

      iex> Tank.Store.get_pod("nobody")
      {:error, :not_found}
  """
  @spec get_pod(String.t()) :: {:ok, pod} | {:error, :not_found}
  def get_pod(name) when is_binary(name) or is_atom(name) do
    found_or_raise(Call.get(Owner.store_id!(), name, &pod_key/1, @timeout))
  end

  defp pod_key(name), do: {:ok, Path.child_key(@pods_key, name)}

  @doc """
  Deletes the pod of a name. One that is missing is fine.

      iex> Tank.Store.delete_pod("nobody")
      :ok
  """
  @spec delete_pod(String.t()) :: :ok | {:error, term}
  def delete_pod(name) when is_binary(name) or is_atom(name) do
    case Call.delete(Owner.store_id!(), Path.child_key(@pods_key, name), nil, @timeout) do
      # No pod can have such a name.
      {:error, {:too_large, _what, _limit}} -> :ok
      result -> done(result)
    end
  end

  @doc """
  All pods, as this node knows them, in no particular order.

  Reads memory, and costs as much as copying the pods. It holds every write that a process of this node was answered.
  Raises `Tank.Store.Error` when the store does not run.

      iex> is_list(Tank.Store.list_pods())
      true
  """
  @spec list_pods() :: [pod]
  def list_pods do
    case Call.values(Owner.store_id_to_read!(), @pods_key) do
      {:ok, pods} -> pods
      {:error, reason} -> raise Error, reason
    end
  end

  # The accessors that later versions of Tank call. `Tank.Store.Tree` is the public way to the same entries.

  @doc false
  @spec put_at(Path.t(), term) :: :ok | {:error, term}
  def put_at(path, value) do
    store_id = Owner.store_id!()
    with {:ok, key} <- Path.to_key(path), do: done(Call.write(store_id, :put, key, value, nil, @timeout))
  end

  @doc false
  @spec get_at(Path.t()) :: {:ok, term} | {:error, :not_found}
  def get_at(path) when is_list(path), do: found_or_raise(Call.get(Owner.store_id!(), path, &Path.to_key/1, @timeout))
  def get_at(path), do: raise(Error, elem(Path.to_key(path), 1))

  @doc false
  @spec delete_at(Path.t()) :: :ok | {:error, term}
  def delete_at(path) do
    store_id = Owner.store_id!()
    with {:ok, key} <- Path.to_key(path), do: done(Call.delete(store_id, key, nil, @timeout))
  end

  @doc false
  @spec children_at(Path.t()) :: {:ok, [{Path.component(), term}]}
  def children_at(path) do
    case Call.children(Owner.store_id_to_read!(), key!(path)) do
      {:ok, children} -> {:ok, for({kind, name, value} <- children, do: {Path.component(kind, name), value})}
      {:error, reason} -> raise Error, reason
    end
  end

  defp write_pod(kind, name, pod) when is_binary(name) or (is_atom(name) and name != nil) do
    done(Call.write(Owner.store_id!(), kind, Path.child_key(@pods_key, name), pod, nil, @timeout))
  end

  defp write_pod(_kind, name, _pod) do
    Owner.store_id!()
    {:error, {:invalid_name, name}}
  end

  defp done({:ok, revision}), do: PodsTable.await(revision)
  defp done({:error, _reason} = error), do: error

  defp found_or_raise({:ok, _value} = found), do: found
  defp found_or_raise({:error, :not_found} = error), do: error
  defp found_or_raise({:error, reason}), do: raise(Error, reason)

  defp key!(path) do
    case Path.to_key(path) do
      {:ok, key} -> key
      {:error, reason} -> raise Error, reason
    end
  end
end
