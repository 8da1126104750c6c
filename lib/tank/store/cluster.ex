defmodule Tank.Store.Cluster do
  @moduledoc """
  Starts and stops stores, joins them to clusters, and says how they are.

  A store is known by its id, an atom, and lives in a directory of its own. As a child of your supervisor (`start_link/1`) it
  starts and stops with that. With `start/3` it outlives the process that started it, until `stop/1`.

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

  Stores of the same id on several nodes can form a cluster: `join/2` makes a store a member of another node's cluster.
  Then every member takes writes and linearizable reads, a write that was acknowledged is on the disks of a majority,
  and the store goes on while a majority of the voting members is alive and connected. A member is written
  `{store_id, node}`; members talk over Erlang distribution.

  With three or more nodes, start Erlang with `-kernel prevent_overlapping_partitions false`: otherwise a single broken
  connection makes `:global` cut nodes off that could still talk, and a cluster lose a quorum that it need not lose.

  ### Forming a cluster without a hand

  With the option `:cluster`, a list of nodes or a function that gives one, stores find each other: whatever the order in
  which the nodes boot, they form one cluster. The list must be the same on all nodes; this node is added to it.

  A store whose directory holds a member is opened as that member. One whose directory is blank has no engine, serves
  nobody and takes no writes until it knows what to become. It joins the cluster that a listed node holds, under a new
  identity, once that has a quorum; what its node was in that cluster before is removed. It founds one only when all listed nodes
  say that they are blank, at the same time, and it is the first voter of the sorted list. `forming: :majority` lets a majority
  found: then a cluster that is held only by nodes which are not up may get a second one.

  While it waits, calls give `:noproc`, `status/1` gives `role: :forming`, and the alarm `:forming` says for whom it waits.

  Nodes that hold different clusters of one store id raise the alarm `:other_cluster` on both sides. A store that was
  restored from a backup, or that has only run without a list, is refused instead while other nodes of its list hold another cluster. See the
  guide on clusters.

  ### Witnesses

  With two members, a cluster stops when either is lost. A third one on a small device mends that without serving
  anybody: a witness (`join/4` with `role: :witness`, or `role: :witness` beside `:cluster` in the config of `start/3`)
  votes and keeps the log and the state on its disk. Reads and writes there give `{:error, :witness}`. It never leads,
  except for a moment when it alone has what the lost leader had acknowledged: it brings the others up to date and hands
  over. It never founds a cluster either, so it must not be the first of the list. A member stays what it joined as;
  joining again changes that.

  Functions without a store id are about the default store (`get_default_store_id/0`). Timeouts are in milliseconds,
  5,000 unless given, and may be `:infinity`, which is a day: no call waits longer. They are the last argument, as a number or
  as `timeout: ms`.

  ## Options

  The config map of `start/3` and `start_link/1` take, besides `:store_id`:

  #{Tank.Store.Options.docs()}

  And `:cluster`, the nodes to form a cluster with, `:role`, what to join it as (`:voter`), and `:forming`, whether `:all`
  nodes (the default) or a `:majority` must be blank to found one; see above.
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
  @typedoc "Milliseconds or `:infinity`, as they are or as an option."
  @type call_timeout :: timeout | [timeout: timeout]
  @type query_options :: timeout | %{optional(:timeout | :favor) => term} | keyword
  @type config :: store_id | %{optional(atom) => term}

  @doc """
  The child specification of a store. Its id is `{Tank.Store.Cluster, store_id}`, so that a supervisor can have many.

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
  Starts a store for a supervisor, or attaches to a running one. It has started once the store answers reads and writes.

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app", cluster: [:"app@10.0.0.1", :"app@10.0.0.2"]},
        {Tank.Store.Cluster, store_id: :cache, data_dir: "/var/lib/cache", value_bytes_max: 65_536}
      ]

  Options:

    * `:store_id` - the store's id; that of `get_default_store_id/0` unless given
    * `:data_dir` - its directory. The store starts and stops with this process, which its supervisor gives 150 seconds for
      that. Without it, the store must run already (`start/3`): it is used, and left running
    * `:timeout` - milliseconds that the start may take until the store answers, 30,000 unless given. A member that waits for
      other nodes of its `:cluster` needs them to be up within this time; `:infinity` waits for them
    * those of the config of `start/3`

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

  `data_dir_or_system` is a directory, made when it is missing, or the id of a running store, whose directory is meant
  then. `store_id_or_config` is an id, or a map with the id as `:store_id` (or `:cluster_name`, Khepri's name for it) and
  options.

  A store that runs already in that directory stays as it is. One that was stopped has its data. One that ended otherwise, in
  this VM, must be there again: `{:lost, what}` if it is not. With `create: false` no directory is made:
  `{:no_store, path}` when it is missing or empty. See the guide "When a disk, a mount or a name is lost".

  Errors: `{:already_running, dir}` when the store runs in another directory; `:system_not_started` for an atom that
  names no running store; a `Tank.Store.Error` that says why the directory could not be opened;
  `{:tank, :other_cluster, %{store_id: _, clusters: _}}` and `{:tank, :no_list_of_nodes, %{store_id: _, why: _}}`, which are about
  `:cluster`. After these nothing runs. After `:timeout` the store may still come up: it is being opened, or waits for
  its cluster, and serves nobody until then. `stop/1` ends that.

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

  A store whose directory is lost (`{:lost, what}`) is given up with this: a later start makes a new one.

  `{:error, :timeout}` when the store is not closed after two minutes, as on a disk that does not answer. It goes on
  closing; call this again to wait for it.

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
  Waits until a store has a leader and this node answers reads. May be called before the store is started.

  Takes a store id, or `{store_id, node}` to ask another node. Errors: `:noproc` when the store does not run by then,
  `:timeout` when it runs and has no leader, `:nodedown` when the node cannot be asked.

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
  Figures about a store, at about one moment: a `Tank.Store.Status`.

  | key | |
  |---|---|
  | `store_id`, `member_id`, `cluster_id`, `data_dir` | who this member is, and where its data is |
  | `revision` | the store's revision |
  | `history` | the id of the history that it counts in: another one after a restore, `force_new_cluster/2` or an import that replaces (`Tank.Store.Tree.history/2`) |
  | `entries` | how many entries there are |
  | `value_bytes` | bytes of paths and values |
  | `memory_bytes` | bytes that values take up in memory, encoded and decoded |
  | `disk_bytes` | bytes of all files: of the log, which takes space ahead, up to a megabyte at a time, now; of the others when they were last measured, which each call asks for |
  | `in_flight` | writes that are not answered yet |
  | `fsyncs`, `log_entries`, `log_bytes` | what was made durable since the store was opened |
  | `applied_index` | index of the last applied log entry |
  | `digest` | a hash of all entries: equal on members with equal entries |
  | `readable` | whether linearizable reads are answered from memory |
  | `failure` | nil, or what the disk failed with (`:disk_full`, `{:storage, why}`, `{:lost, what}`): the store answers reads from memory and refuses writes with this reason, and opens again by itself when the disk takes writes |
  | `alarms` | what is wrong while the store goes on: a list of `{name, details}`, empty when all is well. `details` is a map with a `:message` that says what happened and what to do, with the `:member_id` if it is about one member, and with figures. An alarm is logged as an error once, and goes when its cause is gone |
  | `role` | `:leader`, `:follower`, `:candidate` or `:learner`; `:forming` while the store waits for its cluster: the other figures are 0, nil or empty then |
  | `term`, `leader` | the raft term, and the node of the leader that this member follows, or nil |
  | `last_log_index` | index of the last log entry here |
  | `purged_index` | index of the last log entry that is not kept any more, or nil: a member that lacks it is sent a snapshot |
  | `quorum` | whether this member was in touch with a majority a moment ago |
  | `members` | a map for each: `node`, `role` (`:leader`, `:voter`, `:learner`, `:witness`), `member_id`, and, as only a leader knows, `lag`: log entries that it does not have yet, and `in_touch`: whether it answered a moment ago; nil elsewhere |
  | `malformed_frames`, `foreign_frames` | messages of other nodes that were dropped: not decodable, or not for this member |

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

  The local store, which must be running, **loses its data**, and gets the cluster's: as a learner first, then, when it
  has caught up, as a voter; then this returns. The data goes only when the cluster has taken the member in: after an
  error, the store runs on with what it had. While it joins, calls on the store give `:noproc`. They go on to do so after
  a `:timeout` at the very last step, when it is not known whether the cluster counts on this member already: until the
  cluster can be asked, and the store is a voter. A store that is stopped or killed meanwhile is a learner when it is
  started again, and becomes a voter by itself.

  A store that is a member of a cluster already leaves that one first, also when it is the same one. Should the rest
  fail then, its data stays and it is a member of none; join again. Joining one's own node does nothing.

  The arguments are a node, or `{store_id, node}`, or a store id and a node, each with an optional timeout. The fourth
  argument takes `role: :learner` for a member that gets everything and never votes (`promote/3`), or `role: :witness`.

  Errors: `{:tank, :not_a_tank_store, %{store_id: _}}` when the local store does not run,
  `{:tank, :failed_to_join_remote_node, %{store_id: _, node: _}}` when the node cannot be reached, `:noproc` when the
  store does not run there, `:timeout`; `{:tank, :cluster_has_other_members, _}` when another node joined this one
  meanwhile; `{:tank, :members_in_another_cluster, _}`, see `reset/1`; `{:tank, :members_missing, _}` when the cluster that the
  store is to leave would lose its majority, see `remove_member/2`; `:state_differs`, if the state that came is not the
  cluster's.

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
  Leaves the cluster, and erases the store: it ends stopped, and its directory empty. The others go on without it.

  Takes a store id, a timeout, or both. It takes a majority of the members that answers, and one of those that would be
  left: without, it gives `{:error, :timeout}`, nothing has changed, and the store runs on as it was.
  `{:error, :only_witnesses_left}` when nobody else could lead. A member without a majority, all of whose reachable
  others are in another cluster by now (`force_new_cluster/2`), hears that at once:
  `{:tank, :members_in_another_cluster, %{store_id: _, nodes: _}}`; `force_new_cluster/2` lets it go on alone, or join.

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
  Makes this node's member, with all it holds, the only member of a new cluster: the way out when a majority is lost
  **for good**.

  What only the lost members held is lost, acknowledged or not. The other members of the old cluster, should any come
  back, are no part of the new one; a majority of them would go on as the old cluster, apart from this one. To take one
  in, erase its directory, or call this there too, and let it `join/2`.

  The store begins another history: what clients saw of the old cluster may be lost, so its revisions and lease epochs go
  on above all that anybody can have seen, and everything before is compacted. Watches and `Tank.Store.Tree.list_since/4`
  answer `{:compacted, min}` to positions of before; `Tank.Store.Syncer` and `Tank.Store.Projection` list again by
  themselves. Nobody can renew a lease of before or write with it; it is free when its time is over.

  Refuses while a majority answers: `{:tank, :quorum_is_there, %{store_id: _}}`. Options: `force: true` does it all the
  same; `:timeout`, which is also how long the majority is asked for.

      iex> Tank.Store.Cluster.force_new_cluster(:never_started)
      {:error, {:tank, :not_a_tank_store, %{store_id: :never_started}}}
  """
  @spec force_new_cluster(store_id, force: boolean, timeout: timeout) :: :ok | {:error, term}
  def force_new_cluster(store_id, options \\ []) when is_atom(store_id) do
    options = Options.with_defaults!(options, force: false, timeout: @timeout)
    Recovery.force_new_cluster(store_id, options[:force], Arguments.deadline!(options[:timeout]))
  end

  @doc """
  The members of the cluster, sorted: `{:ok, [{store_id, node}]}`. One that is down stays listed.

  Takes a store id, options, or both. Options are a timeout, or a map or keyword list with `:timeout` and `:favor`:
  `:consistency` (the default) confirms with a majority that nothing changed meanwhile, `:low_latency` gives what this
  member knows, at once, and also without a majority.

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
  As `members/1`, with the nodes alone.

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
  The node of the leader that this member follows, or nil when it knows of none. It may be out of date.

      iex> Tank.Store.Cluster.leader(:never_started)
      {:error, :noproc}
  """
  @spec leader(store_id) :: {:ok, node | nil} | {:error, Error.reason()}
  def leader(store_id \\ get_default_store_id()) when is_atom(store_id), do: Membership.leader(store_id)

  @doc """
  Makes the member on `node` the leader, without an election timeout. It must be a voter, and be up.

  Errors: `{:tank, :not_a_member, %{store_id: _, node: _}}`, `{:tank, :is_a_witness, %{store_id: _, node: _}}`,
  `:timeout`.
  """
  @spec transfer_leader(store_id, node, call_timeout) :: :ok | {:error, term}
  def transfer_leader(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.transfer_leader(store_id, node, Arguments.deadline!(timeout))

  @doc """
  Has the cluster part with the member on `node`, which may be dead: its votes and its acknowledgements count no more.
  A store that was started anew on a node of that name can join then, or at once: `join/2` removes what its node was
  before.

  The data of the removed member stays where it is. If it still runs, it serves nobody, and should be stopped or
  `reset/1`, or join again; to leave in good order, call `reset/1` there instead.

  Errors: `{:tank, :not_a_member, %{store_id: _, node: _}}`; `:timeout`, also when there is no majority that answers;
  `{:tank, :members_missing, %{store_id: _, nodes: _}}` when there would be none among those that would be left, since the
  members of these nodes do not answer: remove the dead before the living; `:only_witnesses_left`.
  """
  @spec remove_member(store_id, node, call_timeout) :: :ok | {:error, term}
  def remove_member(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.remove(store_id, node, Arguments.deadline!(timeout))

  @doc """
  Has the running store of `node` join this cluster as a learner: it gets everything, and never votes. As with
  `join/4`, which this calls there, its data is lost.
  """
  @spec add_learner(store_id, node, call_timeout) :: :ok | {:error, term}
  def add_learner(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node) do
    deadline = Arguments.deadline!(timeout)
    args = [store_id, node(), Deadline.remaining(Deadline.before(deadline)), [role: :learner]]
    Remote.call(node, __MODULE__, :join, args, deadline)
  end

  @doc "Lets the learner on `node` vote. Errors as with `remove_member/3`."
  @spec promote(store_id, node, call_timeout) :: :ok | {:error, term}
  def promote(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.change(store_id, :promote, node, Arguments.deadline!(timeout))

  @doc "Lets the voter on `node` go on as a learner. Errors as with `remove_member/3`."
  @spec demote(store_id, node, call_timeout) :: :ok | {:error, term}
  def demote(store_id, node, timeout \\ @timeout) when is_atom(store_id) and is_atom(node),
    do: Membership.change(store_id, :demote, node, Arguments.deadline!(timeout))

  @doc """
  Sends the calling process what changes in the cluster, as this member sees it, until `unsubscribe/1` or its end; what
  is at this moment comes first. Messages are `{:store_cluster, store_id, event}` with the events

    * `{:leader, node | nil, term}`
    * `{:members, [{store_id, node}]}`
    * `{:quorum, :ok | :lost}`

  They come a moment late, and what lasts only for a moment may not be told at all.

      iex> Tank.Store.Cluster.subscribe(:never_started)
      {:error, :noproc}
  """
  @spec subscribe(store_id) :: :ok | {:error, :noproc | :timeout}
  def subscribe(store_id \\ get_default_store_id()) when is_atom(store_id), do: Events.subscribe(store_id, self())

  @doc "Ends a `subscribe/1` of the calling process."
  @spec unsubscribe(store_id) :: :ok | {:error, :noproc | :timeout}
  def unsubscribe(store_id \\ get_default_store_id()) when is_atom(store_id), do: Events.unsubscribe(store_id, self())

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

  defp only_nodes({:ok, members}), do: {:ok, for({_store_id, node} <- members, do: node)}
  defp only_nodes({:error, reason}), do: {:error, reason}
end
