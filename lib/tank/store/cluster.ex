defmodule Tank.Store.Cluster do
  @moduledoc """
  Starts and stops stores, adds and removes members of clusters, and reports their status.

  A store has an id, which is an atom, and its own directory. As a child of your supervisor (`start_link/1`) it starts and
  stops with the supervisor. A store that `start/3` started outlives the calling process, and runs until `stop/1`.

      children = [{Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app"}, MyApp.Worker]

      iex> dir = Path.join(System.tmp_dir!(), "cluster_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, :cluster_doc} = Tank.Store.Cluster.start(dir, :cluster_doc)
      iex> Tank.Store.Cluster.is_store_running(:cluster_doc)
      true
      iex> Tank.Store.Cluster.stop(:cluster_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true

  ## Clusters

  Stores with the same id on several nodes can form a cluster: `join/2` makes a store a member of another node's cluster.
  Every member then takes writes and linearizable reads. An acknowledged write is on the disks of a majority. The cluster
  works while a majority of its voters is alive and connected. Functions return a member as `{store_id, node}`. Members
  communicate over Erlang distribution.

  With three or more nodes, start Erlang with `-kernel prevent_overlapping_partitions false`. Otherwise, when one connection
  breaks, `:global` also disconnects nodes that can still reach each other, and the cluster can lose its quorum without need.

  ### Automatic formation

  The option `:cluster` is a list of nodes, or a function that returns one. The stores on these nodes form one cluster, in
  whatever order the nodes boot. The list must be the same on all nodes; this node is added to it.

  A store whose directory holds a member opens that member. A store whose directory is empty has no engine, and takes no
  calls, until it knows what to become. If a listed node holds a cluster, the store joins it as a new member once the
  cluster has a quorum; the cluster removes the member that this node had before. If the directories of all listed nodes
  are empty at the same time, the first voter of the sorted list founds the cluster. With `forming: :majority`, a majority
  of the listed nodes is enough; but if the nodes that are down hold a cluster, this founds a second one.

  While the store waits, calls return `:noproc`, `status/1` returns `role: :forming`, and the alarm `:forming` names the
  nodes that it waits for.

  Nodes that hold different clusters with the same store id raise the alarm `:other_cluster` on both sides. A store that was
  restored from a backup, or has only run without a list, does not start while other nodes of its list hold another
  cluster. See the guide on clusters.

  ### Witnesses

  A cluster of two members stops when either is lost. A third member on a small device solves this: a witness (`join/4` with
  `role: :witness`, or `role: :witness` in addition to `:cluster` in the config of `start/3`). It votes, and keeps the log
  and the state on its disk. Its reads and writes return `{:error, :witness}`. It leads only if it alone has writes that the
  lost leader acknowledged; it then sends them to the others and hands leadership over. It never founds a cluster, so it must
  not be the first of the list. A member keeps the role with which it joined; to change it, join again.

  Functions without a store id use the default store (`get_default_store_id/0`). The last argument can be a timeout, as a
  number of milliseconds or as `timeout: ms`. The default is 5,000. `:infinity` means a day, because no call waits longer.

  ## Options

  The config of `start/3` and `start_link/1` takes these options in addition to `:store_id`:

  #{Tank.Store.Options.docs()}

  It also takes `:cluster`, the nodes to form a cluster with; `:role`, the role in it (`:voter` by default); and `:forming`,
  whether the directories of `:all` nodes (the default) or of a `:majority` must be empty to found a cluster.
  """

  alias Tank.Store.Cluster.{Arguments, Start, Unready}
  alias Tank.Store.{Alarms, Deadline, Error, Events, Instance, Join, Leave, Membership, Native, Options, Owner}
  alias Tank.Store.{ReadCache, Recovery, Remote, Running, Server, Status}

  @timeout 5_000
  # Stopping a store takes two minutes at the most.
  @shutdown 150_000

  @type store_id :: atom
  @type data_dir_or_system :: String.t() | charlist | atom
  @type member :: {store_id, node}
  @typedoc "Milliseconds or `:infinity`, as a plain value or as an option."
  @type call_timeout :: timeout | [timeout: timeout]
  @type query_options :: timeout | %{optional(:timeout | :favor) => term} | keyword
  @type config :: store_id | %{optional(atom) => term}

  @doc """
  The child specification of a store. Its id is `{Tank.Store.Cluster, store_id}`, so a supervisor can have several stores.

      iex> spec = Tank.Store.Cluster.child_spec(store_id: :app, data_dir: "/var/lib/app")
      iex> {spec.id, spec.type, spec.shutdown}
      {{Tank.Store.Cluster, :app}, :worker, 150_000}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    id = {__MODULE__, Options.store_id!(options, get_default_store_id())}
    %{id: id, start: {__MODULE__, :start_link, [options]}, type: :worker, shutdown: @shutdown}
  end

  @doc """
  Starts a store for a supervisor, or attaches to a running one. Returns once the store answers reads and writes.

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app", cluster: [:"app@10.0.0.1", :"app@10.0.0.2"]},
        {Tank.Store.Cluster, store_id: :cache, data_dir: "/var/lib/cache", value_bytes_max: 65_536}
      ]

  Options:

    * `:store_id` - the store's id; the default is `get_default_store_id/0`
    * `:data_dir` - its directory. The store starts and stops with this process, which has 150 seconds to stop. Without this
      option, the store must already run (`start/3`); this process uses it, and leaves it running
    * `:timeout` - milliseconds until the store must answer, 30,000 by default. If the store waits for other nodes of its
      `:cluster`, they must be up within this time; with `:infinity` it waits for as long as needed
    * the options of the config of `start/3`

  The process ends when the store does. Errors are `{:store_init_failed, error}` with a `Tank.Store.Error`. An unknown option
  raises `ArgumentError`.

      iex> Process.flag(:trap_exit, true)
      iex> {:error, {:store_init_failed, error}} = Tank.Store.Cluster.start_link(store_id: :never_started)
      iex> Exception.message(error)
      "no :data_dir given, and no store :never_started runs: give a :data_dir, or start that store with " <>
        "Tank.Store.Cluster.start/2 before"
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: Owner.start_child(options)

  @doc """
  Starts a store, and returns once it answers reads and writes.

  `data_dir_or_system` is a directory, which is created if it does not exist, or the id of a running store, which stands for
  that store's directory. `store_id_or_config` is an id, or a map with the id as `:store_id` (or `:cluster_name`, as Khepri
  calls it) and options.

  If the store already runs in that directory, nothing changes. If the store ran in this VM before and was not stopped, its
  directory must still hold it; otherwise the error is `{:lost, what}`. With `create: false`, a missing or empty directory is the
  error `{:no_store, path}`. See the guide "When a disk, a mount or a name is lost".

  Errors: `{:already_running, dir}` if the store runs in another directory; `:system_not_started` for an atom that names
  no running store; a `Tank.Store.Error` that says why the directory could not be opened;
  `{:tank, :other_cluster, %{store_id: _, clusters: _}}` and `{:tank, :no_list_of_nodes, %{store_id: _, why: _}}`, which
  concern `:cluster`. After these errors nothing runs. After `:timeout` the store is still being opened or waits for its
  cluster, and may answer later; `stop/1` ends that.

      iex> dir = Path.join(System.tmp_dir!(), "start_doc_#{System.unique_integer([:positive])}")
      iex> Tank.Store.Cluster.start(dir, %{store_id: :start_doc, value_bytes_max: 1024})
      {:ok, :start_doc}
      iex> Tank.Store.Cluster.start(dir <> "_other", :start_doc)
      {:error, {:already_running, dir}}
      iex> Tank.Store.Cluster.stop(:start_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true
  """
  @spec start(data_dir_or_system, config, call_timeout) :: {:ok, store_id} | {:error, term}
  def start(
        data_dir_or_system \\ get_default_data_dir(),
        store_id_or_config \\ get_default_store_id(),
        timeout \\ @timeout
      ) do
    {store_id, options, formation} = Arguments.config!(store_id_or_config)

    with {:ok, dir} <- Arguments.dir(data_dir_or_system) do
      config = %{store_id: store_id, data_dir: dir, owner: nil, options: options, formation: formation}
      Start.within(config, Arguments.timeout!(timeout))
    end
  end

  @doc """
  Stops a store, and returns when its directory is free. Its data stays. Returns `:ok` if the store does not run.

  After this, a store whose directory is lost (`{:lost, what}`) can be started again, which creates a new one.

  Returns `{:error, :timeout}` if the store is not closed after two minutes, for example because the disk does not answer. The
  store continues to close; call this again to wait for it.

      iex> Tank.Store.Cluster.stop(:never_started)
      :ok
  """
  @spec stop(store_id) :: :ok | {:error, :timeout}
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
  Waits until a store has a leader and this node answers reads. You may call it before the store is started.

  Takes a store id, or `{store_id, node}` for the store of another node. Errors: `:noproc` if the store does not run by then,
  `:timeout` if it runs and has no leader, `:nodedown` if the other node cannot be reached.

      iex> Tank.Store.Cluster.wait_for_leader(:never_started, 50)
      {:error, :noproc}
  """
  @spec wait_for_leader(store_id | {store_id, node}, call_timeout) :: :ok | {:error, :noproc | :timeout | :nodedown}
  def wait_for_leader(store_id_or_member \\ get_default_store_id(), timeout \\ @timeout)
  def wait_for_leader({store_id, node}, timeout) when node == node(), do: wait_for_leader(store_id, timeout)

  def wait_for_leader({store_id, node}, timeout) when is_atom(store_id) and is_atom(node) do
    Start.await_leader_on(node, store_id, Arguments.deadline!(timeout))
  end

  def wait_for_leader(store_id, timeout) when is_atom(store_id) do
    Start.await_leader(store_id, Arguments.deadline!(timeout))
  end

  @doc """
  Returns the status of a store, as a `Tank.Store.Status`. All figures are from about the same moment.

  | key | meaning |
  |---|---|
  | `store_id`, `member_id`, `cluster_id`, `data_dir` | the ids of this member, and its directory |
  | `revision` | the store's revision |
  | `history` | the id of the history to which the revision belongs; a restore, `force_new_cluster/2` and an import that replaces all data begin a new one (`Tank.Store.Tree.history/2`) |
  | `entries` | number of entries |
  | `value_bytes` | bytes of paths and values |
  | `memory_bytes` | bytes of memory for values, encoded and decoded |
  | `disk_bytes` | bytes of all files: the log now, with the space that it has reserved; the others when they were last measured. Each call starts a new measurement |
  | `in_flight` | writes that wait for their answer |
  | `fsyncs`, `log_entries`, `log_bytes` | syncs of the log, and what they made durable, since the store was opened |
  | `applied_index` | index of the last applied log entry |
  | `digest` | a hash of all entries: equal on members with equal entries |
  | `readable` | whether linearizable reads are answered from memory |
  | `failure` | nil, or the disk's failure (`:disk_full`, `{:storage, why}`, `{:lost, what}`). The store then answers reads from memory, refuses writes with this reason, and opens again by itself once the disk takes writes |
  | `alarms` | problems during which the store continues: a list of `{name, details}`, empty if there are none. `details` is a map with a `:message` that says what happened and what to do, with figures, and with the `:member_id` if one member is concerned. An alarm is logged once, as an error, and ends when its cause is gone |
  | `role` | `:leader`, `:follower`, `:candidate` or `:learner`; or `:forming` while the store waits for its cluster, when the other figures are 0, nil or empty |
  | `term`, `leader` | the raft term, and the node of the leader that this member follows, or nil |
  | `last_log_index` | index of the last log entry here |
  | `purged_index` | index of the last purged log entry, or nil; a member that needs it receives a snapshot |
  | `quorum` | whether this member and a majority reached each other a moment ago |
  | `members` | a map for each: `node`, `role` (`:leader`, `:voter`, `:learner`, `:witness`), `member_id`; and `lag`, the number of log entries that it lacks, and `reachable`, whether it answered a moment ago. Only the leader knows these two; elsewhere they are nil |
  | `malformed_frames`, `foreign_frames` | messages of other nodes that were dropped, because they could not be decoded or were not for this member |

      iex> Tank.Store.Cluster.status(:never_started)
      {:error, :noproc}
  """
  @spec status(store_id) :: {:ok, Status.t()} | {:error, Error.reason()}
  def status(store_id \\ get_default_store_id()) when is_atom(store_id) do
    with {:ok, store, cache} <- Running.fetch_with_cache(store_id),
         {:ok, dir} <- Server.data_dir(store_id),
         {:ok, cluster} <- Membership.status(store_id) do
      case Native.status(store) do
        {:ok, status} ->
          status =
            status
            |> Map.update!(:memory_bytes, &(&1 + ReadCache.bytes(cache)))
            |> Map.update!(:failure, &(&1 && Error.public(&1)))
            |> Map.update!(:alarms, &Enum.sort(&1 ++ Alarms.list(store_id)))

          {:ok, status |> Map.merge(cluster) |> Map.merge(%{store_id: store_id, data_dir: dir}) |> Status.new()}

        {:error, reason} ->
          {:error, Error.public(reason)}
      end
    else
      {:error, :noproc} -> Unready.status(store_id)
      {:error, reason} -> {:error, reason}
    end
  end

  @doc """
  Makes a store of this node a member of the cluster that `node` is in.

  The local store must run. It **loses its data** and gets the cluster's. It is a learner until it has caught up, and then a
  voter; then this function returns. The local data is erased only after the cluster has admitted the member: after an
  error, the store continues with its data. While the store joins, calls on it return `:noproc`. This also holds after a
  `:timeout` at the last step, when it is unknown whether the cluster already counts this member as a voter, until the cluster
  has answered and the store is a voter. A store that is stopped or killed meanwhile starts as a learner, and becomes a voter
  by itself.

  If the store is already a member of a cluster, it leaves that cluster first, even if it is the same one. If a later step
  fails, the store keeps its data and is a member of no cluster; join again. Joining the own node does nothing.

  The arguments are a node, `{store_id, node}`, or a store id and a node, each with an optional timeout. The fourth argument
  takes `role: :learner`, for a member that gets all the data and never votes (`promote/3`), or `role: :witness`.

  Errors: `{:tank, :not_a_tank_store, %{store_id: _}}` if the local store does not run,
  `{:tank, :failed_to_join_remote_node, %{store_id: _, node: _}}` if the node cannot be reached, `:noproc` if the store does
  not run there, `:timeout`; `{:tank, :cluster_has_other_members, _}` if another node joined the local store meanwhile;
  `{:tank, :members_in_another_cluster, _}`, see `reset/1`; `{:tank, :members_missing, _}` if the former cluster would lose its
  majority, see `remove_member/2`; `:state_differs` if the state that arrived is not the cluster's.

      iex> Tank.Store.Cluster.join(:never_started, :"tank@nowhere")
      {:error, {:tank, :not_a_tank_store, %{store_id: :never_started}}}
  """
  @spec join(node | member) :: :ok | {:error, term}
  def join(node_or_member), do: join(node_or_member, @timeout)

  @spec join(store_id, node) :: :ok | {:error, term}
  @spec join(node | member, call_timeout) :: :ok | {:error, term}
  def join({store_id, node}, timeout), do: join(store_id, node, timeout)

  def join(node, timeout) when is_integer(timeout) or timeout == :infinity or is_list(timeout),
    do: join(get_default_store_id(), node, timeout)

  def join(store_id, node), do: join(store_id, node, @timeout)

  @spec join(store_id, node, call_timeout, role: :voter | :learner | :witness) :: :ok | {:error, term}
  def join(store_id, node, timeout, options \\ []) when is_atom(store_id) and is_atom(node) do
    Options.known!(options, [:role])
    Join.join(store_id, node, Arguments.role!(options), Arguments.deadline!(timeout))
  end

  @doc """
  Leaves the cluster, stops the store, and erases its data. The other members continue.

  Takes a store id, a timeout, or both. Needs a majority of the members, and a majority of the members that remain. Without
  them it returns `{:error, :timeout}`, and the store continues unchanged. Returns `{:error, :only_witnesses_left}` if only
  witnesses would remain. If there is no majority, and all other members that answer are in another cluster by now
  (`force_new_cluster/2`), it returns `{:tank, :members_in_another_cluster, %{store_id: _, nodes: _}}` at once; call
  `force_new_cluster/2` on this member too, so that it can continue alone or join.

      iex> Tank.Store.Cluster.reset(:never_started)
      {:error, {:tank, :not_a_tank_store, %{store_id: :never_started}}}
  """
  @spec reset(store_id | call_timeout) :: :ok | {:error, term}
  def reset(store_id_or_timeout \\ get_default_store_id())

  def reset(timeout) when is_integer(timeout) or timeout == :infinity or is_list(timeout),
    do: reset(get_default_store_id(), timeout)

  def reset(store_id), do: reset(store_id, @timeout)

  @spec reset(store_id, call_timeout) :: :ok | {:error, term}
  def reset(store_id, timeout) when is_atom(store_id), do: Leave.reset(store_id, Arguments.deadline!(timeout))

  @doc """
  Makes this node's member, with its data, the only member of a new cluster. Use it only when a majority is lost **for
  good**.

  Writes that only the lost members had are lost, even if they were acknowledged. Other members of the old cluster are not
  part of the new one. If a majority of them comes back, they continue as the old cluster. To add one of them to the new
  cluster, erase its directory, or call this function there too, and then `join/2`.

  The store begins a new history. Clients may have seen writes that are lost, so new revisions and lease epochs are higher
  than all that clients can have seen, and all earlier revisions are compacted. Watches and `Tank.Store.Tree.list_since/4`
  return `{:compacted, min}` for earlier positions; `Tank.Store.Syncer` and `Tank.Store.Projection` list again by themselves.
  Holders cannot renew leases of the old cluster or write with them; such a lease is free once its time is over.

  Returns `{:tank, :quorum_is_there, %{store_id: _}}` while a majority answers. With `force: true` it does not ask. `:timeout` is
  also how long it waits for a majority to answer.

      iex> Tank.Store.Cluster.force_new_cluster(:never_started)
      {:error, {:tank, :not_a_tank_store, %{store_id: :never_started}}}
  """
  @spec force_new_cluster(store_id, force: boolean, timeout: timeout) :: :ok | {:error, term}
  def force_new_cluster(store_id, options \\ []) when is_atom(store_id) do
    options = Options.with_defaults!(options, force: false, timeout: @timeout)
    Recovery.force_new_cluster(store_id, options[:force], Arguments.deadline!(options[:timeout]))
  end

  @doc """
  Returns the members of the cluster, sorted, as `{:ok, [{store_id, node}]}`. The list includes members that are down.

  Takes a store id, options, or both. Options are a timeout, or a map or keyword list with `:timeout` and `:favor`. With
  `:consistency` (the default) it asks a majority whether the list is current. With `:low_latency` it returns what this member
  knows, at once and without a majority.

      iex> Tank.Store.Cluster.members(:never_started)
      {:error, :noproc}
  """
  @spec members(store_id | query_options) :: {:ok, [member, ...]} | {:error, term}
  def members(store_id_or_options \\ get_default_store_id())
  def members(store_id) when is_atom(store_id) and store_id != :infinity, do: members(store_id, @timeout)
  def members(options), do: members(get_default_store_id(), options)

  @spec members(store_id, query_options) :: {:ok, [member, ...]} | {:error, term}
  def members(store_id, options) when is_atom(store_id) do
    {favor, timeout} = Arguments.query!(options)
    Membership.members(store_id, favor, Arguments.deadline!(timeout))
  end

  @doc """
  As `members/1`, but returns only the nodes.

      iex> Tank.Store.Cluster.nodes(:never_started)
      {:error, :noproc}
  """
  @spec nodes(store_id | query_options) :: {:ok, [node, ...]} | {:error, term}
  def nodes(store_id_or_options \\ get_default_store_id()), do: only_nodes(members(store_id_or_options))

  @spec nodes(store_id, query_options) :: {:ok, [node, ...]} | {:error, term}
  def nodes(store_id, options), do: only_nodes(members(store_id, options))

  @doc """
  The members as this one knows them, at once: `members/2` with `favor: :low_latency`.

      iex> Tank.Store.Cluster.locally_known_members(:never_started)
      {:error, :noproc}
  """
  @spec locally_known_members(store_id | query_options, query_options) :: {:ok, [member, ...]} | {:error, term}
  def locally_known_members(store_id_or_options \\ get_default_store_id(), options \\ @timeout)

  def locally_known_members(store_id, options) when is_atom(store_id) and store_id != :infinity do
    {_favor, timeout} = Arguments.query!(options)
    members(store_id, favor: :low_latency, timeout: timeout)
  end

  def locally_known_members(options, _default), do: locally_known_members(get_default_store_id(), options)

  @doc """
  The nodes as this member knows them, at once.

      iex> Tank.Store.Cluster.locally_known_nodes(:never_started)
      {:error, :noproc}
  """
  @spec locally_known_nodes(store_id | query_options, query_options) :: {:ok, [node, ...]} | {:error, term}
  def locally_known_nodes(store_id_or_options \\ get_default_store_id(), options \\ @timeout),
    do: only_nodes(locally_known_members(store_id_or_options, options))

  @doc """
  Returns the node of the leader that this member follows, or nil if it knows of none. The answer may be out of date.

      iex> Tank.Store.Cluster.leader(:never_started)
      {:error, :noproc}
  """
  @spec leader(store_id) :: {:ok, node | nil} | {:error, Error.reason()}
  def leader(store_id \\ get_default_store_id()) when is_atom(store_id), do: Membership.leader(store_id)

  @doc """
  Makes the member on `node` the leader, without an election timeout. The member must be a voter and up.

  Errors: `{:tank, :not_a_member, %{store_id: _, node: _}}`, `{:tank, :is_a_witness, %{store_id: _, node: _}}`,
  `:timeout`.
  """
  @spec transfer_leader(store_id, node, call_timeout) :: :ok | {:error, term}
  def transfer_leader(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.transfer_leader(store_id, node, Arguments.deadline!(timeout))

  @doc """
  Removes the member on `node` from the cluster. The member may be dead; its votes and acknowledgements no longer count. A new
  store on a node with that name can then join. (`join/2` also removes the former member of its node by itself.)

  The data of the removed member stays in its directory. If the member still runs, it answers no calls: stop it, `reset/1` it,
  or let it join again. To remove a member that is up, call `reset/1` on it instead.

  Errors: `{:tank, :not_a_member, %{store_id: _, node: _}}`; `:timeout`, also if no majority answers;
  `{:tank, :members_missing, %{store_id: _, nodes: _}}` if the remaining members would have no majority because these nodes
  do not answer (remove dead members first); `:only_witnesses_left`.
  """
  @spec remove_member(store_id, node, call_timeout) :: :ok | {:error, term}
  def remove_member(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.remove(store_id, node, Arguments.deadline!(timeout))

  @doc """
  Lets the running store of `node` join this cluster as a learner, which gets all the data and never votes. It calls `join/4`
  there, so the store loses its own data.
  """
  @spec add_learner(store_id, node, call_timeout) :: :ok | {:error, term}
  def add_learner(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node) do
    deadline = Arguments.deadline!(timeout)
    args = [store_id, node(), Deadline.remaining(Deadline.before(deadline)), [role: :learner]]
    Remote.call(node, __MODULE__, :join, args, deadline)
  end

  @doc "Makes the learner on `node` a voter. The errors are those of `remove_member/3`."
  @spec promote(store_id, node, call_timeout) :: :ok | {:error, term}
  def promote(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.change(store_id, :promote, node, Arguments.deadline!(timeout))

  @doc "Makes the voter on `node` a learner. The errors are those of `remove_member/3`."
  @spec demote(store_id, node, call_timeout) :: :ok | {:error, term}
  def demote(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.change(store_id, :demote, node, Arguments.deadline!(timeout))

  @doc """
  Sends the calling process the current leader, members and quorum, and then each change that this member sees, until
  `unsubscribe/1` or until the process ends. Messages are `{:store_cluster, store_id, event}` with the events

    * `{:leader, node | nil, term}`
    * `{:members, [{store_id, node}]}`
    * `{:quorum, :ok | :lost}`

  Messages arrive a moment late. A state that lasts only for a moment may not be reported.

      iex> Tank.Store.Cluster.subscribe(:never_started)
      {:error, :noproc}
  """
  @spec subscribe(store_id) :: :ok | {:error, :noproc | :timeout}
  def subscribe(store_id \\ get_default_store_id()) when is_atom(store_id), do: Events.subscribe(store_id, self())

  @doc "Unsubscribes the calling process."
  @spec unsubscribe(store_id) :: :ok | {:error, :noproc | :timeout}
  def unsubscribe(store_id \\ get_default_store_id()) when is_atom(store_id), do: Events.unsubscribe(store_id, self())

  @doc """
  Returns the id of the default store: the application environment's `:default_store_id`, otherwise `:tank`.

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
  Returns the default directory: the application environment's `:default_data_dir`, otherwise `"tank#<node>"` in the working
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

  defp only_nodes({:ok, members}), do: {:ok, for({_store_id, node} <- members, do: node)}
  defp only_nodes({:error, reason}), do: {:error, reason}
end
