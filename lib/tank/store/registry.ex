defmodule Tank.Store.Registry do
  @moduledoc """
  Knows which stores run on which nodes. Every node has the list of the running stores of all connected nodes.

  Each store that this library starts is announced when it opens. It is retired when it stops or crashes, or when its node
  disconnects. You configure and start nothing: each node that runs the application `:tank_store` has one registry process, and
  the registries find each other. A node without a store can follow the stores of other nodes, for example a gateway that
  forwards requests to the node of a store:

      :ok = Tank.Store.Registry.subscribe(self(), snapshot: true)

      receive do
        {:store_event, :announced, row} -> # the store row.store_id runs on row.node
        {:store_event, :retired, row} -> # it no longer does
      end

  `examples/registry.exs` is such a gateway.

  ## Rows

  A row is a map with what is known about a store on a node:

  | key | meaning |
  |---|---|
  | `store_id` | the store's id |
  | `node` | the node on which it runs |
  | `mode` | `:cluster` if it has other members, otherwise `:single` |
  | `data_dir` | its directory, on that node |
  | `timeout` | how long calls on it should wait, in milliseconds |
  | `registered_at` | when it was announced, in milliseconds of that node's system time |

  A store of a cluster has a row for each node on which it runs. `announce_store/2` announces other stores.

      iex> dir = Path.join(System.tmp_dir!(), "registry_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, :registry_doc} = Tank.Store.Cluster.start(dir, :registry_doc)
      iex> {:ok, row} = Tank.Store.Registry.get_store_info(:registry_doc)
      iex> {row.store_id, row.node == node(), row.mode, row.data_dir == dir, row.timeout}
      {:registry_doc, true, :single, true, 5000}
      iex> Tank.Store.Cluster.stop(:registry_doc)
      :ok
      iex> Tank.Store.Registry.get_store_info(:registry_doc)
      {:error, :not_found}
      iex> File.rm_rf!(dir) |> is_list()
      true

  ## Promises

    * Each node announces only its own stores, directly to the others. When the connection to a node is lost, its rows are
      retired here. They come back, once, when the node is connected again.
    * Connected nodes agree after the time that a message takes. If a node disappears without closing its connection, its
      stores are retired when Erlang gives up the connection (`net_ticktime`, one minute by default; at once if its VM ends).
    * Subscribers get each change once, in the order of each node's changes. They stay subscribed, and get no change twice, when
      the registry or the `:pg` scope is killed and restarted. (There is one exception: if the registry is killed in the
      microsecond between sending a change and noting that, the change is sent twice.)
    * An answer describes the moment of the call. The registry says where a store runs; use
      `Tank.Store.Cluster.wait_for_leader/2` to find out whether it has a leader.

  The registry needs Erlang/OTP 25.1. Hidden nodes (`-hidden`) do not take part, because `:pg` does not see them. Calls wait for
  at most 5 seconds, which includes a restart of the registry. They return `{:error, :noproc}` if no registry runs, and
  `{:error, :timeout}` if it does not answer.
  """

  alias Tank.Store.{Deadline, ProcessCall}
  alias Tank.Store.Registry.{Row, Server}

  @timeout 5_000
  # A killed registry is back within milliseconds.
  @absent_ms 1_000
  @look_again_ms 5

  @typedoc "A store on a node; see \"Rows\"."
  @type row :: %{
          store_id: atom,
          node: node,
          mode: :single | :cluster,
          data_dir: String.t(),
          timeout: timeout,
          registered_at: integer
        }

  @typedoc "No registry runs on this node, or it does not answer."
  @type no_answer :: {:error, :noproc | :timeout}

  @typedoc "What a subscriber gets."
  @type event :: {:store_event, :announced | :retired, row}

  @doc """
  A child specification, for supervisors that start the registry.

  The library's supervisor already runs the registry, so this child starts nothing.

      iex> Tank.Store.Registry.child_spec([])
      %{id: Tank.Store.Registry, start: {Tank.Store.Registry, :start_child, []}, type: :worker}
  """
  @spec child_spec(term) :: Supervisor.child_spec()
  def child_spec(_options), do: %{id: __MODULE__, start: {__MODULE__, :start_child, []}, type: :worker}

  @doc false
  @spec start_child :: GenServer.on_start()
  def start_child do
    with {:error, {:already_started, _pid}} <- start_link(), do: :ignore
  end

  @doc """
  Starts the registry of this node, under the name `Tank.Store.Registry`.

  The library's application does this. Only a node that does not run the application needs this function. Such a registry
  knows only its own node's rows until the application is started, which runs the `:pg` scope.

      iex> {:error, {:already_started, pid}} = Tank.Store.Registry.start_link()
      iex> pid == Process.whereis(Tank.Store.Registry)
      true
  """
  @spec start_link :: GenServer.on_start()
  def start_link, do: Server.start_link()

  @doc """
  Announces a store of this node. The library does this for its own stores.

  `config` is a map, a keyword list or a struct with `data_dir`, a string or charlist, and optionally `mode`
  (`:single`, the default, or `:cluster`) and `timeout` (milliseconds, 5,000 by default, or `:infinity`). Other keys,
  such as pool sizes and `options`, are ignored. Raises `ArgumentError` for an invalid value.

  The row is retired when the calling process crashes, is killed or is shut down. If the process ends normally, the row stays
  until `unannounce_store/1`. Announcing a store again replaces its row and the process on which it depends. If the row does
  not change, subscribers get no event, and `registered_at` stays the same.

      iex> Tank.Store.Registry.announce_store(:announce_doc, data_dir: "/var/lib/other", mode: :cluster, timeout: 800)
      :ok
      iex> {:ok, row} = Tank.Store.Registry.get_store_info(:announce_doc)
      iex> Map.take(row, [:store_id, :mode, :data_dir, :timeout])
      %{store_id: :announce_doc, mode: :cluster, data_dir: "/var/lib/other", timeout: 800}
      iex> Tank.Store.Registry.unannounce_store(:announce_doc)
      :ok
  """
  @spec announce_store(atom, map | keyword | struct) :: :ok | no_answer
  def announce_store(store_id, config) when is_atom(store_id), do: call({:announce, Row.new(store_id, config), self()})

  @doc """
  Retires a store of this node, regardless of which process announced it. Returns `:ok` if the store is not announced.

  If you retire a running store of this library, it is announced again when it is next opened.

      iex> Tank.Store.Registry.unannounce_store(:never_announced)
      :ok
  """
  @spec unannounce_store(atom) :: :ok | no_answer
  def unannounce_store(store_id) when is_atom(store_id), do: call({:unannounce, store_id})

  @doc """
  Returns all rows, sorted by store id and node.

      iex> {:ok, rows} = Tank.Store.Registry.list_stores()
      iex> is_list(rows)
      true
  """
  @spec list_stores :: {:ok, [row]} | no_answer
  def list_stores, do: call(:list)

  @doc """
  Returns the rows of one node, sorted by store id. The list is empty if the node is not connected.

      iex> Tank.Store.Registry.list_stores_on_node(:nobody@nowhere)
      {:ok, []}
  """
  @spec list_stores_on_node(node) :: {:ok, [row]} | no_answer
  def list_stores_on_node(node) when is_atom(node) do
    with {:ok, rows} <- list_stores(), do: {:ok, Enum.filter(rows, &(&1.node == node))}
  end

  @doc """
  Returns the row of a store. If it runs on several nodes, returns the row that was registered last.

      iex> Tank.Store.Registry.get_store_info(:never_announced)
      {:error, :not_found}
  """
  @spec get_store_info(atom) :: {:ok, row} | {:error, :not_found} | no_answer
  def get_store_info(store_id) when is_atom(store_id) do
    with {:ok, rows} <- list_stores() do
      case Enum.filter(rows, &(&1.store_id == store_id)) do
        [] -> {:error, :not_found}
        rows -> {:ok, Enum.max_by(rows, & &1.registered_at)}
      end
    end
  end

  @doc """
  Subscribes a process: it gets `{:store_event, :announced | :retired, row}` for each change, until it ends.

  An `:announced` event for a known store and node means that the row has changed.

  With `snapshot: true` the process first gets an `:announced` event for each existing row. No change between the snapshot and
  the following events is missed or sent twice. Subscribing again changes nothing, but a subscriber without a snapshot can
  get one in this way.

      iex> Tank.Store.Registry.subscribe(self())
      :ok
      iex> Tank.Store.Registry.announce_store(:subscribe_doc, data_dir: "/var/lib/other")
      :ok
      iex> receive do: ({:store_event, type, %{store_id: :subscribe_doc}} -> type)
      :announced
      iex> Tank.Store.Registry.unannounce_store(:subscribe_doc)
      :ok
      iex> receive do: ({:store_event, type, %{store_id: :subscribe_doc}} -> type)
      :retired
      iex> Tank.Store.Registry.unsubscribe(self())
      :ok
  """
  @spec subscribe(pid, snapshot: boolean) :: :ok | no_answer
  def subscribe(pid \\ self(), opts \\ []) when is_pid(pid) and is_list(opts) do
    call({:subscribe, pid, snapshot!(opts)})
  end

  @doc """
  Unsubscribes a process. Events in its mailbox stay there. Returns `:ok` if the process is not subscribed.

      iex> Tank.Store.Registry.unsubscribe(self())
      :ok
  """
  @spec unsubscribe(pid) :: :ok | no_answer
  def unsubscribe(pid \\ self()) when is_pid(pid), do: call({:unsubscribe, pid})

  defp snapshot!([]), do: false
  defp snapshot!(snapshot: snapshot?) when is_boolean(snapshot?), do: snapshot?

  defp snapshot!(other),
    do: raise(ArgumentError, "the only option is :snapshot, true or false; got: #{inspect(other)}")

  defp call(request), do: call(request, Deadline.in_ms(@absent_ms))

  # All calls may be made twice. So one that meets a registry that has just ended goes to the next one.
  defp call(request, deadline) do
    with {:error, :noproc} <- ProcessCall.call(__MODULE__, request, @timeout) do
      if Deadline.remaining(deadline) == 0 do
        {:error, :noproc}
      else
        Process.sleep(@look_again_ms)
        call(request, deadline)
      end
    end
  end
end
