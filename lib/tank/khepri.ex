defmodule Tank.Khepri do
  @moduledoc """
  Khepri's API on a store of this library.

  The functions, their arities, options, answers and errors are those of Khepri 0.18.1. Applications that call `:khepri`
  get them from the OTP application in `khepri/`, whose modules call these. What differs is told in the guide "From
  Khepri".

  A store is one tree: what is written here is there for `Tank.Store.Tree`, and the other way round.

  `store` is a store's id, the default one when it is left out. `opts` is a map.
  """

  import Tank.Khepri.Records, only: [if_path_matches: 0]
  import Tank.Khepri.Arity, only: [shorter: 1, shorter: 2, raising: 1]

  alias Tank.Khepri.{Adv, App, Async, Cluster, Evf, Export, Info, Path, Projection, Projections, Transaction, Triggers}
  alias Tank.Khepri.Verbs
  alias Tank.Store.Tree

  @type store :: atom
  @type error :: {:error, term}
  @typedoc "A function, or the path of a stored procedure."
  @type procedure :: (... -> term) | [term] | binary

  # -- Stores

  @doc "Starts a store; see `Tank.Khepri.Cluster.start/3`."
  defdelegate start(), to: Cluster
  defdelegate start(dir_or_system), to: Cluster
  defdelegate start(dir_or_system, store_or_config), to: Cluster
  defdelegate start(dir_or_system, store_or_config, timeout), to: Cluster

  @doc "Leaves the cluster, and erases and stops the store; see `Tank.Khepri.Cluster.reset/2`."
  defdelegate reset(), to: Cluster
  defdelegate reset(store_or_timeout), to: Cluster
  defdelegate reset(store, timeout), to: Cluster

  @doc "Stops a store. Its data stays."
  defdelegate stop(), to: Cluster
  defdelegate stop(store), to: Cluster

  @doc "The ids of the stores that run here."
  defdelegate get_store_ids(), to: Cluster

  @doc "Whether a store has no nodes but the root."
  @spec is_empty(store, map) :: boolean | error
  def is_empty(store, opts), do: Verbs.is_empty(store, opts)
  def is_empty, do: is_empty(App.get_default_store_id(), %{})
  def is_empty(store) when is_atom(store), do: is_empty(store, %{})
  def is_empty(opts) when is_map(opts), do: is_empty(App.get_default_store_id(), opts)

  # -- Reading

  @doc "The payload of a node; `undefined` without one."
  @spec get(store, Path.pattern(), map) :: {:ok, term} | error
  def get(store, path, opts), do: Verbs.get(store, path, opts)

  @doc "The payload of a node; `default` for a missing node, and for one without a payload."
  @spec get_or(store, Path.pattern(), term, map) :: {:ok, term} | error
  def get_or(store, path, default, opts), do: Verbs.get_or(store, path, default, opts)

  @doc "The payloads of all nodes that a pattern matches, by their paths."
  @spec get_many(store, Path.pattern(), map) :: {:ok, map} | error
  def get_many(store, path, opts), do: Verbs.get_many_or(store, path, :undefined, opts)

  @doc "The same, with `default` for nodes without a payload."
  @spec get_many_or(store, Path.pattern(), term, map) :: {:ok, map} | error
  def get_many_or(store, path, default, opts), do: Verbs.get_many_or(store, path, default, opts)

  @doc "Whether there is a node."
  @spec exists(store, Path.pattern(), map) :: boolean | error
  def exists(store, path, opts), do: Verbs.exists(store, path, opts)

  @doc "Whether a node has data."
  @spec has_data(store, Path.pattern(), map) :: boolean | error
  def has_data(store, path, opts), do: Verbs.has_data(store, path, opts)

  @doc "Whether a node has a stored procedure."
  @spec is_sproc(store, Path.pattern(), map) :: boolean | error
  def is_sproc(store, path, opts), do: Verbs.is_sproc(store, path, opts)

  @doc "How many nodes a pattern matches."
  @spec count(store, Path.pattern(), map) :: {:ok, non_neg_integer} | error
  def count(store, path, opts), do: Verbs.count(store, path, opts)

  @doc "Folds over the nodes that a pattern matches; `fun` gets a path, properties and the accumulator."
  @spec fold(store, Path.pattern(), (list, map, acc -> acc), acc, map) :: {:ok, acc} | error when acc: term
  def fold(store, path, fun, acc, opts), do: Verbs.fold(store, path, fun, acc, opts)

  @doc "Calls `fun` with the path and the properties of each node that a pattern matches."
  @spec foreach(store, Path.pattern(), (list, map -> term), map) :: :ok | error
  def foreach(store, path, fun, opts), do: Verbs.foreach(store, path, fun, opts)

  @doc "What `fun` gives for each node that a pattern matches, by path."
  @spec map(store, Path.pattern(), (list, map -> term), map) :: {:ok, map} | error
  def map(store, path, fun, opts), do: Verbs.map(store, path, fun, opts)

  @doc "The payloads of the nodes that a pattern matches and `fun` returns true for."
  @spec filter(store, Path.pattern(), (list, map -> boolean), map) :: {:ok, map} | error
  def filter(store, path, fun, opts), do: Verbs.filter(store, path, fun, opts)

  @doc "Runs a stored procedure in the calling process."
  @spec run_sproc(store, Path.pattern(), list, map) :: term
  def run_sproc(store, path, args, opts) when is_list(args), do: Verbs.run_sproc(store, path, args, opts)

  def run_sproc(path, args), do: run_sproc(App.get_default_store_id(), path, args, %{})
  def run_sproc(store, path, args) when is_atom(store), do: run_sproc(store, path, args, %{})
  def run_sproc(path, args, opts) when is_map(opts), do: run_sproc(App.get_default_store_id(), path, args, opts)

  # -- Writing

  @doc "Puts a payload on a node, which is made if it is missing."
  @spec put(store, Path.pattern(), term, map) :: :ok | error
  def put(store, path, data, opts), do: Verbs.simple(&Verbs.adv_put(store, path, data, &1), opts)

  @doc "Puts a payload on all nodes that a pattern matches."
  @spec put_many(store, Path.pattern(), term, map) :: :ok | error
  def put_many(store, path, data, opts), do: Verbs.simple(&Verbs.adv_put_many(store, path, data, &1), opts)

  @doc "Makes a node that must be missing."
  @spec create(store, Path.pattern(), term, map) :: :ok | error
  def create(store, path, data, opts), do: Verbs.simple(&Verbs.adv_create(store, path, data, &1), opts)

  @doc "Puts a payload on a node that must be there."
  @spec update(store, Path.pattern(), term, map) :: :ok | error
  def update(store, path, data, opts), do: Verbs.simple(&Verbs.adv_update(store, path, data, &1), opts)

  @doc "Puts a payload on a node whose data matches a pattern."
  @spec compare_and_swap(store, Path.pattern(), term, term, map) :: :ok | error
  def compare_and_swap(store, path, pattern, data, opts),
    do: Verbs.simple(&Verbs.adv_compare_and_swap(store, path, pattern, data, &1), opts)

  @doc "Deletes a node and all below it."
  @spec delete(store, Path.pattern(), map) :: :ok | error
  def delete(store, path, opts), do: Verbs.simple(&Verbs.adv_delete(store, path, &1), opts)

  @doc "Deletes all nodes that a pattern matches, and all below them."
  @spec delete_many(store, Path.pattern(), map) :: :ok | error
  def delete_many(store, path, opts), do: Verbs.simple(&Verbs.adv_delete_many(store, path, &1), opts)

  @doc "Drops a node's payload."
  @spec clear_payload(store, Path.pattern(), map) :: :ok | error
  def clear_payload(store, path, opts), do: Verbs.simple(&Verbs.adv_clear_payload(store, path, &1), opts)

  @doc "Drops the payloads of all nodes that a pattern matches."
  @spec clear_many_payloads(store, Path.pattern(), map) :: :ok | error
  def clear_many_payloads(store, path, opts),
    do: Verbs.simple(&Verbs.adv_clear_many_payloads(store, path, &1), opts)

  shorter(
    get: 1,
    get_or: 2,
    get_many: 1,
    get_many_or: 2,
    exists: 1,
    has_data: 1,
    is_sproc: 1,
    count: 1,
    fold: 3,
    foreach: 2,
    map: 2,
    filter: 2,
    delete: 1,
    delete_many: 1
  )

  shorter(
    [put: 2, put_many: 2, create: 2, update: 2, compare_and_swap: 3, clear_payload: 1, clear_many_payloads: 1],
    options: false
  )

  # -- Projections

  @doc "Registers a projection, of `Tank.Khepri.Projection.new/3`, of the nodes that a pattern matches, on all members."
  @spec register_projection(store, Path.pattern(), Projection.t(), map) :: :ok | error
  def register_projection(store, path, projection, opts), do: Projections.register(store, path, projection, opts)

  @doc "Unregisters projections, by their names, or `all`. Their tables go."
  @spec unregister_projections(store, :all | [atom], map) :: :ok | error
  def unregister_projections(store, names, opts),
    do: Verbs.simple(&Adv.unregister_projections(store, names, &1), opts)

  def unregister_projections(names), do: unregister_projections(App.get_default_store_id(), names, %{})

  def unregister_projections(names, opts) when is_map(opts),
    do: unregister_projections(App.get_default_store_id(), names, opts)

  def unregister_projections(store, names), do: unregister_projections(store, names, %{})

  @doc "Whether there is a projection of a name."
  @spec has_projection(store, atom, map) :: boolean | error
  def has_projection(store, name, opts) when is_atom(name), do: Projections.has?(store, name, opts)

  def has_projection(name), do: has_projection(App.get_default_store_id(), name, %{})
  def has_projection(name, opts) when is_map(opts), do: has_projection(App.get_default_store_id(), name, opts)
  def has_projection(store, name), do: has_projection(store, name, %{})

  shorter(register_projection: 2)

  # -- Triggers

  @doc "Has the stored procedure at `sproc_path` run for changes that an event filter, or a pattern, names."
  @spec register_trigger(store, atom, Evf.t() | Path.pattern(), Path.pattern(), map) :: :ok | error
  def register_trigger(store, id, filter, sproc_path, opts), do: Triggers.register(store, id, filter, sproc_path, opts)

  def register_trigger(id, filter, sproc_path),
    do: register_trigger(App.get_default_store_id(), id, filter, sproc_path, %{})

  # Ids of stores and of triggers are atoms.
  def register_trigger(id, filter, sproc_path, opts) when is_map(opts),
    do: register_trigger(App.get_default_store_id(), id, filter, sproc_path, opts)

  def register_trigger(store, id, filter, sproc_path), do: register_trigger(store, id, filter, sproc_path, %{})

  # -- Export, import, information

  @doc "Writes what a pattern matches, `**` by default, by a callback module such as `Tank.Khepri.ExportErlang`."
  @spec export(store, Path.pattern(), module, term) :: :ok | {:ok, term} | error
  def export(store, path, module, private), do: Export.export(store, path, module, private)

  def export(module, private), do: export(App.get_default_store_id(), module, private)

  def export(store, module, private) when is_atom(store), do: export(store, [if_path_matches()], module, private)
  def export(path, module, private), do: export(App.get_default_store_id(), path, module, private)

  @doc "Reads what `export/4` wrote. Each item is a command of its own; what it does not name stays."
  @spec import(store, module, term) :: :ok | {:ok, term} | error
  def import(store, module, private), do: Export.import(store, module, private)
  def import(module, private), do: Export.import(App.get_default_store_id(), module, private)

  @doc "Prints which stores run."
  @spec info :: :ok
  def info, do: Info.stores()

  @doc "Prints the members, conditions, projections and the tree of a store."
  @spec info(store, map) :: :ok
  def info(store, opts \\ %{}), do: Info.store(store, opts)

  # -- Transactions

  @doc """
  Runs a function, or the stored procedure at a path, as a transaction; `Tank.Khepri.Tx` has what it may call.

  The arguments are `([store], fun_or_path, [args], [mode], [opts])`, with a mode of `ro`, `rw` and `auto`. The function
  runs in the calling process, **again when something that it read has changed** before it could be committed: side
  effects are allowed, and repeated.
  """
  @spec transaction(procedure) :: {:ok, term} | :ok | error
  def transaction(fun), do: transaction(fun, [])

  @doc "See `transaction/1`."
  @spec transaction(store | procedure, procedure | [term] | atom | map) :: {:ok, term} | :ok | error
  def transaction(store, fun) when is_atom(store) and not is_list(fun), do: transaction(store, fun, [])

  def transaction(store, path) when is_atom(store) and (is_list(path) or is_binary(path)),
    do: transaction(store, path, [])

  def transaction(fun, args) when is_list(args), do: transaction(App.get_default_store_id(), fun, args)
  def transaction(fun, mode) when is_atom(mode), do: transaction(App.get_default_store_id(), fun, [], mode)
  def transaction(fun, opts) when is_map(opts), do: transaction(App.get_default_store_id(), fun, [], opts)

  @doc "See `transaction/1`."
  @spec transaction(store | procedure, procedure | [term], [term] | atom | map) :: {:ok, term} | :ok | error
  def transaction(store, fun, args) when is_atom(store) and is_list(args), do: transaction(store, fun, args, :auto)
  def transaction(store, fun, mode) when is_atom(store) and is_atom(mode), do: transaction(store, fun, [], mode)
  def transaction(store, fun, opts) when is_atom(store) and is_map(opts), do: transaction(store, fun, [], :auto, opts)

  def transaction(fun, args, mode) when is_list(args) and is_atom(mode),
    do: transaction(App.get_default_store_id(), fun, args, mode)

  def transaction(fun, args, opts) when is_list(args) and is_map(opts),
    do: transaction(App.get_default_store_id(), fun, args, :auto, opts)

  def transaction(fun, mode, opts) when is_atom(mode) and is_map(opts),
    do: transaction(App.get_default_store_id(), fun, [], mode, opts)

  @doc "See `transaction/1`."
  @spec transaction(store | procedure, procedure | [term], [term] | atom, atom | map) :: {:ok, term} | :ok | error
  def transaction(store, fun, args, mode) when is_atom(store) and is_list(args) and is_atom(mode),
    do: transaction(store, fun, args, mode, %{})

  def transaction(store, fun, args, opts) when is_atom(store) and is_list(args) and is_map(opts),
    do: transaction(store, fun, args, :auto, opts)

  def transaction(store, fun, mode, opts) when is_atom(store) and is_atom(mode) and is_map(opts),
    do: transaction(store, fun, [], mode, opts)

  def transaction(fun, args, mode, opts) when is_list(args) and is_atom(mode) and is_map(opts),
    do: transaction(App.get_default_store_id(), fun, args, mode, opts)

  @doc "See `transaction/1`."
  @spec transaction(store, procedure, [term], :auto | :ro | :rw, map) :: {:ok, term} | :ok | error
  def transaction(store, fun_or_path, args, mode, opts), do: Transaction.run(store, fun_or_path, args, mode, opts)

  @doc "Waits until this member has applied all that was acknowledged before."
  @spec fence(store, timeout) :: :ok | error
  def fence(store, timeout) when is_atom(store) do
    :ok = Async.flush(store, timeout)
    Tree.fence(store, timeout: timeout)
  end

  def fence, do: fence(App.get_default_store_id())
  def fence(store) when is_atom(store) and store != :infinity, do: fence(store, App.get_default_timeout())
  def fence(timeout), do: fence(App.get_default_store_id(), timeout)

  @doc "The answers of an event that asynchronous commands sent: `[{correlation, answer}]`."
  @spec handle_async_ret(store, term) :: [{term, term}]
  def handle_async_ret(store, event) when is_atom(store), do: Async.handle(store, event)
  def handle_async_ret(event), do: handle_async_ret(App.get_default_store_id(), event)

  # -- The forms that raise

  raising(
    get: 1..3,
    get_or: 2..4,
    get_many: 1..3,
    get_many_or: 2..4,
    exists: 1..3,
    has_data: 1..3,
    is_sproc: 1..3,
    count: 1..3,
    put: 2..4,
    put_many: 2..4,
    create: 2..4,
    update: 2..4,
    compare_and_swap: 3..5,
    delete: 1..3,
    delete_many: 1..3,
    clear_payload: 1..3,
    clear_many_payloads: 1..3
  )
end
