defmodule Tank.Store do
  @moduledoc """
  Keeps Tank's pods through restarts, crashes and power cuts.

  Put it under your supervisor, before the children that use it:

      children = [
        {Tank.Store, data_dir: "/var/lib/tank"},
        MyApp.Reconciler
      ]

  Once it has started, it answers reads and writes, so a later child can write pods in its `init`.

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

    * `:data_dir` - the directory of the store, which is created if it does not exist. The store starts and stops with this
      process. Without this option, the store named by `:store_id` must already run (`Tank.Store.Cluster.start/2`); this
      process then uses it, and leaves it running when it stops.
    * `:create` - `false` refuses a directory that is missing or empty with `{:no_store, path}`, instead of creating a store
      there. Use it where the directory is on a mount that may be missing. The default is the application environment's
      `:create`, which is `true`.
    * `:store_id` - the store's id; the default is `Tank.Store.Cluster.get_default_store_id/0`, which is `:tank`.
    * `:timeout` - milliseconds until the store must answer; the default is 30,000.
    * `:pods_table` - `true` also keeps the pods in the ETS table `:tank_pods`, as `{name, pod}`. The table is named and
      protected: any process can read it. The default is `false`, because with the table each write waits for its row.
    * with a `:data_dir`, the options of `Tank.Store.Cluster`.

  A start that fails returns `{:error, {:store_init_failed, error}}`. Usually `error` is a `Tank.Store.Error` that says what
  is wrong with the directory.

  ## Promises

  A write that returned `:ok` is synced to disk: it survives a `kill -9` of the VM and a power cut. `get_pod/1` returns the
  newest acknowledged pod. `list_pods/0` reads this node's memory, which has at least all acknowledged writes of this node's
  processes. After `{:error, :timeout}` the outcome of a write is unknown. `Tank.Store.Error` lists the other errors.

  A call before the first start of `Tank.Store` raises "Tank.Store is not started". When it is stopped later, functions that
  write return `{:error, :noproc}`, and functions that read raise `Tank.Store.Error` with that reason. After a crash, while
  the supervisor restarts the store, `list_pods/0` returns what this node knew, for at most 30 seconds. Every call waits for
  at most 5 seconds.

  With `pods_table: true`, a write that this module makes on this node waits until the table has it, for at most 5 seconds
  more; it is acknowledged even if the table is late. Writes of other nodes appear in the table a moment later. The table
  ends with the process `Tank.Store`. It does not change while the store is being opened again.
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

  Returns once the store answers reads and writes. Raises `ArgumentError` for an invalid option.

      iex> {:error, {:already_started, pid}} = Tank.Store.start_link(data_dir: "elsewhere")
      iex> pid == Process.whereis(Tank.Store)
      true
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts \\ []), do: Owner.start_link(opts)

  @doc """
  Creates a pod, or overwrites the pod with the same name.

  Takes a `Tank.Pod`; anything else raises `FunctionClauseError`. The pod's name is a string or an atom of at most 255 bytes
  (`{:error, {:too_large, :path_component, 255}}`), which may be any bytes. The pod's external term format has at most
  16 MiB (`{:error, {:too_large, :value, limit}}`).

      iex> Tank.Store.put_pod(%Tank.Pod{name: "job", restart: :never})
      :ok
      iex> Tank.Store.put_pod(%Tank.Pod{name: 7})
      {:error, {:invalid_name, 7}}
  """
  @spec put_pod(pod) :: :ok | {:error, term}
  def put_pod(%{__struct__: Tank.Pod, name: name} = pod), do: write_pod(:put, name, pod)

  @doc """
  Creates a pod. Returns `{:error, :exists}` and changes nothing if there is a pod with the same name.

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
  Returns the pod with this name.

  The read is linearizable: it sees every write that was acknowledged before, on any node. Returns `{:error, :not_found}`
  only if there is no such pod. If the store cannot know that, because it has no quorum or does not run, it raises
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
  Deletes the pod with this name. Returns `:ok` if there is no such pod.

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
  Returns all pods that this node knows, in no particular order.

  It reads this node's memory, and costs as much as copying the pods. It sees every acknowledged write of this node's
  processes. Raises `Tank.Store.Error` if the store does not run.

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
