defmodule Tank.Store.Registry do
  @moduledoc """
  Which stores run where: on every node, at any time, the running stores of all connected nodes.

  Every store that this library starts is announced when it opens, and retired when it stops or crashes, or when its
  node goes. There is nothing to configure, and nothing to start: each node on which the application `:tank_store` runs
  has one registry process, and the registries find each other. A node needs no store of its own to follow those of
  others, such as a gateway that sends requests to where a store is:

      :ok = Tank.Store.Registry.subscribe(self(), snapshot: true)

      receive do
        {:store_event, :announced, row} -> # the store row.store_id runs on row.node
        {:store_event, :retired, row} -> # it does not any more
      end

  `examples/registry.exs` is such a gateway.

  ## Rows

  What is known about a store on a node is a map:

  | key | |
  |---|---|
  | `store_id` | the store's id |
  | `node` | where it runs |
  | `mode` | `:cluster` when it has other members, on whatever node, else `:single` |
  | `data_dir` | its directory, on that node |
  | `timeout` | how long calls on it should wait, in milliseconds |
  | `registered_at` | when it was announced, in milliseconds of that node's system time |

  A store of a cluster has a row for each node that it runs on. Besides the library's own stores, anything can be
  announced with `announce_store/2`.

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

  ## What is promised

    * A node speaks for itself only. What a node says about its stores comes from that node, directly; when the
      connection to it is lost its rows are retired here, and come back, once, when it is connected again.
    * All nodes that stay connected agree, after as long as a message takes. A `:retired` of a node that was lost
      without a word comes when Erlang gives the connection up (`net_ticktime`, a minute by default; at once when its
      VM ends).
    * Subscribers hear each change once, in the order of each node's changes, and nothing that did not change. They stay
      subscribed, and hear nothing twice, when the registry is killed and started anew, and when the `:pg` scope is.
      (Should it be killed in the microsecond between telling of a change and noting that it did, that one is told
      twice.)
    * An answer is about now, and what it says may end the next moment. The registry says where a store is; whether it
      has a leader, `Tank.Store.Cluster.wait_for_leader/2` says.

  It needs Erlang/OTP 25.1. Hidden nodes (`-hidden`) take no part: `:pg` does not see them. Calls wait for 5 seconds at
  the most, and a moment for a registry that is being restarted. `{:error, :noproc}` when none runs, `{:error, :timeout}`
  when it does not answer.
  """

  alias Tank.Store.{Deadline, ProcessCall}
  alias Tank.Store.Registry.{Row, Server}

  @timeout 5_000
  # A killed registry is back within milliseconds.
  @absent_ms 1_000
  @look_again_ms 5

  @typedoc "A store on a node; see above."
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
  A child specification, for existing supervisors that start the registry.

  The library's own supervisor runs it already: such a child is ignored, and does no harm.

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

  The library's application does that. Only a node on which it does not run needs this; such a registry knows its own
  node's rows alone until the application is started, which runs the `:pg` scope.

      iex> {:error, {:already_started, pid}} = Tank.Store.Registry.start_link()
      iex> pid == Process.whereis(Tank.Store.Registry)
      true
  """
  @spec start_link :: GenServer.on_start()
  def start_link, do: Server.start_link()

  @doc """
  Announces a store of this node: what this library does for its own stores by itself.

  `config` is a map, a keyword list or a struct with `data_dir`, a string or charlist, and optionally `mode`
  (`:single`, the default, or `:cluster`) and `timeout` (milliseconds, 5,000 by default, or `:infinity`). Other keys,
  such as pool sizes and `options`, are accepted and not kept. Raises `ArgumentError` for what is wrong.

  The row is retired when the calling process crashes, is killed or shut down. One that ends normally leaves it, until
  `unannounce_store/1`. Announcing a store again replaces its row, and the process that it depends on; when the row
  says the same as before, nobody hears of it, and it stays registered since then.

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
  Retires a store of this node, whoever announced it. One that is not announced is fine.

  A store of this library that is unannounced while it runs stays so until it is opened anew.

      iex> Tank.Store.Registry.unannounce_store(:never_announced)
      :ok
  """
  @spec unannounce_store(atom) :: :ok | no_answer
  def unannounce_store(store_id) when is_atom(store_id), do: call({:unannounce, store_id})

  @doc """
  All rows, sorted by store id and node.

      iex> {:ok, rows} = Tank.Store.Registry.list_stores()
      iex> is_list(rows)
      true
  """
  @spec list_stores :: {:ok, [row]} | no_answer
  def list_stores, do: call(:list)

  @doc """
  The rows of one node, sorted by store id; none for a node that is not connected.

      iex> Tank.Store.Registry.list_stores_on_node(:nobody@nowhere)
      {:ok, []}
  """
  @spec list_stores_on_node(node) :: {:ok, [row]} | no_answer
  def list_stores_on_node(node) when is_atom(node) do
    with {:ok, rows} <- list_stores(), do: {:ok, Enum.filter(rows, &(&1.node == node))}
  end

  @doc """
  The row of a store; of several nodes', the one that was registered last.

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
  Sends `{:store_event, :announced | :retired, row}` to a process for each change from now on, until it ends.

  An `:announced` for a store and node that are known already means that the row has changed.

  With `snapshot: true` it first gets an `:announced` for each row that there is, in order: no change is missed between
  these and the following, and none is told twice. Subscribing again changes nothing; with a snapshot, one who has had
  none gets it.

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
  Ends that. What is in the process's mailbox stays there. One that is not subscribed is fine.

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
