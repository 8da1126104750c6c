defmodule Tank.Store.Tree do
  @moduledoc """
  A store as a tree of values: any term at any path, with revisions, transactions and reads of the past.

  `store` is the id of a running store (`Tank.Store.Cluster.start/2`). Paths are those of `Tank.Store.Path`, patterns
  those of `Tank.Store.Pattern`.

      iex> alias Tank.Store.Tree
      iex> {:ok, revision} = Tree.put(:app, [:users, "ann"], %{role: :admin})
      iex> Tree.get(:app, [:users, "ann"])
      {:ok, %{role: :admin}}
      iex> {:ok, users, ^revision} = Tree.get_many(:app, [:users, :*])
      iex> users
      %{[:users, "ann"] => %{role: :admin}}
      iex> {:ok, entry} = Tree.get_entry(:app, [:users, "ann"])
      iex> {entry.version, entry.revision == revision}
      {1, true}

  ## Nodes, entries, revisions

  An **entry** is a path with a value; a **node** is a path that has a value, or something below it. Nodes above an entry
  come with it, and go with the last one. The root, `[]`, may have a value too. `put_node/3` makes a node that stays
  without a value. Functions that list give entries; with `nodes: :all`, all nodes (`Tank.Store.Entry`).

  The **revision** counts the writes of the store: each command that changes something makes the next one, and all
  that a transaction writes has the same. An entry's **version** counts its own writes since it was created.

  Revisions rise within a **history**. A restore from a backup, `Tank.Store.Cluster.force_new_cluster/2` and an import
  that replaces begin another one, whose revisions are above all earlier ones, with everything before it compacted. Where
  a function takes the revision that you know the store from, it also takes `{history, revision}`, with the id that
  `history/2` gives: then it is never taken for a revision of another history.

  ## Conditions that keep nodes

  Functions that write a value take `keep_while:`, a map of paths or patterns to conditions (`Tank.Store.Pattern`). The
  node goes, with all below it, once one of them does not hold any more: in the same command, at the same revision, and
  so do nodes that were kept by that one.

      iex> Tank.Store.Tree.put!(:app, [:hosts, "a"], :up)
      iex> Tank.Store.Tree.put!(:app, [:jobs, "1"], :running, keep_while: %{[:hosts, "a"] => :has_data})
      iex> Tank.Store.Tree.delete!(:app, [:hosts, "a"])
      iex> Tank.Store.Tree.exists(:app, [:jobs])
      false

    * When the node is written, the conditions must hold: `{:error, {:keep_while, pattern, :unmet}}`, or `:no_match` if no
      node matches the pattern. `{:not, :*}`, that there is no node, holds of none. A new node may have conditions on
      itself and on what is below it; they are not looked at then.
    * Afterwards, a condition on a path is evaluated when a command has written that node, or added or removed children of
      it, and when it is gone. One on a pattern with wildcards is evaluated only when the path that the pattern begins
      with is gone, or one above it.
    * The conditions of a write take the place of the node's former ones, and `%{}` removes them. A write without
      `keep_while:` leaves them. `keep_while/3` reads them.
    * A command whose consequences would take more than 500,000 looks at nodes is refused:
      `{:error, {:too_large, :conditions, limit}}`.

  ## What a write replaced

  With `return_previous: true`, functions that write and delete return `{:ok, revision, changes}`: a
  `Tank.Store.NodeChange` for each node that was written, and for each one that is gone, whether it was deleted or a
  condition did not keep it.

      iex> Tank.Store.Tree.put!(:app, [:replaced], 1)
      iex> {:ok, _revision, [change]} = Tank.Store.Tree.put(:app, [:replaced], 2, return_previous: true)
      iex> {change.type, change.previous.value, change.payload_version}
      {:updated, 1, 2}

  A retry within the engine, after the answer of a member was lost, may find that what was replaced was too much to
  remember (4 KiB): then the answer is `{:error, :timeout}`, as for any write whose outcome is not known.

  ## Options of all functions

    * `:timeout` - milliseconds, or `:infinity`, which is a day; 5,000 by default. It covers all that a call does.
    * `:favor`, of functions that read - `:consistency`, the default, gives what the last acknowledged write left,
      whoever made it; `:low_latency` gives what this member knows, at once, and without a quorum.

  An unknown option raises `ArgumentError`.

  ## Errors

  Functions return `{:error, reason}` with a reason of `Tank.Store.Error`; of those, any may return `:noproc`,
  `:timeout` and `:no_quorum`, and one that writes `:overloaded`. The form with a bang, such as `get!/2`, raises the same
  error, and returns what stands in the `:ok`, several values as a tuple. `exists/3`, `has_data/3` and `stream/3` have
  none: they raise by themselves.

  Limits are checked before anything is logged: a component of a path 255 bytes (`:path_component_bytes_max`), a path 1 KiB
  (`:path_bytes_max`), a value 16 MiB (`:value_bytes_max`), a transaction 1,024 operations and as many comparisons
  (`:txn_operations_max`), a pattern 63 parts, and all paths and values of a transaction or a pattern together 32 MiB
  (`:txn_bytes_max`; `{:error, {:too_large, :txn, limit}}`). The options of a store set those that have a name.
  """

  import Tank.Store.Position, only: [is_position: 1]
  import Tank.Store.Tree.Bang, only: [defbang: 1]

  alias Tank.Store.{Call, Entry, Error, Native, Path, Pattern, Running, Since, Tx, View}
  alias Tank.Store.NodeChange
  alias Tank.Store.Tree.{KeepWhile, Operation, Options, Reads, Transaction, Writes}

  @typedoc "A store's id, or the transaction that is being run."
  @type store :: atom | Tx.t()
  @type revision :: non_neg_integer
  @typedoc "The id of a history: 16 hexadecimal digits."
  @type history :: String.t()
  @typedoc "Up to where you know a store."
  @type position :: revision | {history, revision}
  @type error :: {:error, Error.reason()}
  @type op :: :== | :!= | :< | :<= | :> | :>=
  @typedoc "A lease's epoch, or a struct with it."
  @type lease :: pos_integer | %{:epoch => pos_integer, optional(atom) => term}

  @type comparison ::
          {:value, Path.t(), :== | :!=, term}
          | {:exists, Path.t(), :== | :!=, boolean}
          | {:version | :revision | :create_revision | :child_count | :lease_epoch, Path.t(), op, non_neg_integer}
          | {:payload_version | :child_list_version, Path.t(), op, non_neg_integer}
          | {:revision, {:prefix, Path.t()}, op, non_neg_integer}
          | {:lease, Tank.Store.Lease.name(), :epoch, non_neg_integer}
  @type operation ::
          {:put, Path.t(), term}
          | {:put, Path.t(), term, keyword}
          | {:put_node, Path.t()}
          | {:put_node | :delete | :clear, Path.t(), keyword}
          | {:delete | :clear | :get | :list, Path.t()}
  @type response ::
          {:put, version :: pos_integer}
          | {:delete, count :: non_neg_integer}
          | {:changed, [NodeChange.t()]}
          | {:get, Entry.t() | nil}
          | {:list, [Entry.t()]}
  @typedoc "What a write gives: with `return_previous: true`, also what it did."
  @type written :: {:ok, revision} | {:ok, revision, [NodeChange.t()]} | error

  # The options of all functions that write a value.
  @written [keep_while: nil, return_previous: false]

  # -- Reading

  @doc """
  The value at a path. `{:error, :not_found}` for a path without one; `exists/3` tells whether there is something below.

      iex> Tank.Store.Tree.put!(:app, [:nothing], nil)
      iex> Tank.Store.Tree.get(:app, [:nothing])
      {:ok, nil}
      iex> Tank.Store.Tree.get(:app, [:nobody])
      {:error, :not_found}
  """
  @spec get(store, Path.t(), keyword) :: {:ok, term} | error
  def get(store, path, opts \\ [])

  def get(%Tx{} = tx, path, opts) do
    with {:ok, entry} <- Reads.entry(tx, path, Options.read(opts)), do: {:ok, entry.value}
  end

  def get(store, path, opts) when is_list(path) do
    opts = Options.read(opts)

    case opts[:favor] do
      :consistency -> Call.get(store, path, &Path.to_key/1, opts[:timeout])
      :low_latency -> Call.get_local(store, path, &Path.to_key/1)
    end
  end

  def get(_store, no_path, _opts), do: Path.to_key(no_path)

  @doc """
  The entry at a path: its value with its revisions. `{:error, :not_found}` when it has no value.

  With `revision:`, the entry as it was at that revision, read from the disk. `{:error, {:compacted, min}}` when the
  revision is older than what is kept, `{:error, {:future_revision, current}}` when this member has not come to it yet
  (`await_revision/3`). No transaction reads the past.

  With `nodes: :all`, also a node without a value. There always is a root then.

      iex> {:ok, first} = Tank.Store.Tree.put(:app, [:history], "old")
      iex> {:ok, _second} = Tank.Store.Tree.put(:app, [:history], "new")
      iex> {:ok, entry} = Tank.Store.Tree.get_entry(:app, [:history], revision: first)
      iex> {entry.value, entry.version, entry.path}
      {"old", 1, [:history]}
  """
  @spec get_entry(store, Path.t(), keyword) :: {:ok, Entry.t()} | error
  def get_entry(store, path, opts \\ []) do
    opts = Options.read(opts, revision: nil, nodes: :with_value)

    case {store, opts[:revision], Options.all_nodes?(opts)} do
      {_store, nil, true} -> Reads.node(store, path, opts)
      {%Tx{} = tx, nil, false} -> Reads.counted_entry(tx, path, opts)
      {%Tx{}, _revision, _all?} -> raise ArgumentError, "a transaction does not read the past"
      {_store, nil, false} -> Reads.entry(store, path, opts)
      {_store, _revision, true} -> raise ArgumentError, "nodes: :all and revision: cannot be given together"
      {_store, revision, false} -> Reads.past_entry(store, path, revision)
    end
  end

  @doc """
  The conditions that keep a node: what `keep_while:` was given, in some equal form. `%{}` if there are none.

      iex> Tank.Store.Tree.put!(:app, [:kept, :by], 1)
      iex> Tank.Store.Tree.put!(:app, [:kept, :one], 1, keep_while: %{[:kept, :by] => {:version, :>, 0}})
      iex> Tank.Store.Tree.keep_while(:app, [:kept, :one])
      {:ok, %{[:kept, :by] => {:version, :>, 0}}}
  """
  @spec keep_while(store, Path.t(), keyword) :: {:ok, KeepWhile.conditions()} | error
  def keep_while(store, path, opts \\ []), do: Reads.keep_while(store, path, Options.read(opts))

  @doc """
  Whether there is a node at a path: a value, or something below. Raises `Tank.Store.Error` when that cannot be known.

      iex> Tank.Store.Tree.put!(:app, [:a, :b], 1)
      iex> {Tank.Store.Tree.exists(:app, [:a]), Tank.Store.Tree.exists(:app, [:b])}
      {true, false}
  """
  @spec exists(store, Path.t(), keyword) :: boolean
  def exists(store, path, opts \\ []) do
    {exists?, _revision} = Reads.node!(store, path, Options.read(opts), &Tx.note_exists/2)
    exists?
  end

  @doc """
  Whether a path has a value. Raises `Tank.Store.Error` when that cannot be known.

      iex> Tank.Store.Tree.put!(:app, [:a, :b], 1)
      iex> {Tank.Store.Tree.has_data(:app, [:a]), Tank.Store.Tree.has_data(:app, [:a, :b])}
      {false, true}
  """
  @spec has_data(store, Path.t(), keyword) :: boolean
  def has_data(store, path, opts \\ []) do
    {_exists?, revision} = Reads.node!(store, path, Options.read(opts), &Tx.note_value/2)
    revision > 0
  end

  @doc """
  How many nodes a pattern matches, with a value or without; `{:all, [..., :has_data]}` counts those with one.

      iex> for path <- [[:c], [:c, "1"], [:c, "2", "x"]], do: Tank.Store.Tree.put!(:app, path, path)
      iex> Tank.Store.Tree.count(:app, [:c, :**])
      {:ok, 3}
      iex> Tank.Store.Tree.count(:app, [:c, {:all, [:**, :has_data]}])
      {:ok, 2}
  """
  @spec count(store, Pattern.t(), keyword) :: {:ok, non_neg_integer} | error
  def count(store, pattern, opts \\ []) do
    with {:ok, pattern, view} <- Reads.scan(store, pattern, :paths, Options.read(opts)),
         do: View.select(view, pattern, :count)
  end

  @doc """
  The entries below a path, in the order of their paths, and the revision they are of.

  Atoms come before strings, and either by its bytes. Only nodes with a value are entries, unless `nodes: :all` is given.

    * `:depth` - how many levels below the path: 1, the direct children, by default; or `:infinity`
    * `:limit` - how many entries at the most; `:infinity` by default
    * `:after` - only those behind this path, such as the last one of the page before
    * `:reverse` - the last one first
    * `:keys_only` - the entries' values are not read, and are nil

      iex> for name <- ["a", "b", "c"], do: Tank.Store.Tree.put!(:app, [:l, name], name)
      iex> {:ok, entries, _revision} = Tank.Store.Tree.list(:app, [:l], limit: 2)
      iex> Enum.map(entries, & &1.value)
      ["a", "b"]
      iex> {:ok, [entry], _revision} = Tank.Store.Tree.list(:app, [:l], after: [:l, "b"])
      iex> entry.value
      "c"
  """
  @spec list(store, Path.t(), keyword) :: {:ok, [Entry.t()], revision} | error
  def list(store, prefix, opts \\ []) do
    {opts, range} = Options.range(opts)
    Reads.list(store, prefix, opts, range)
  end

  @doc """
  The values that a pattern matches, by their paths, and the revision they are of. Nodes without a value are left out; with
  `nodes: :all` they are nil.

      iex> for name <- ["web1", "web2", "db"], do: Tank.Store.Tree.put!(:app, [:m, name], name)
      iex> {:ok, values, _revision} = Tank.Store.Tree.get_many(:app, [:m, {:name_matches, ~r/^web/}])
      iex> Enum.sort(Map.values(values))
      ["web1", "web2"]
      iex> Tank.Store.Tree.put!(:app, [:mn, "a", "b"], 1)
      iex> {:ok, nodes, _revision} = Tank.Store.Tree.get_many(:app, [:mn, :**], nodes: :all)
      iex> nodes
      %{[:mn, "a"] => nil, [:mn, "a", "b"] => 1}
  """
  @spec get_many(store, Pattern.t(), keyword) :: {:ok, %{Path.t() => term}, revision} | error
  def get_many(store, pattern, opts \\ []) do
    opts = Options.read(opts, nodes: :with_value)
    {facts, what} = if Options.all_nodes?(opts), do: {:nodes, :nodes}, else: {:payloads, :values}

    with {:ok, pattern, view} <- Reads.scan(store, pattern, facts, opts),
         {:ok, found} <- View.select(view, pattern, what),
         do: {:ok, Map.new(found, &path_and_value/1), Reads.revision(store, view)}
  end

  defp path_and_value({path, value}), do: {path, value}
  defp path_and_value(node), do: {elem(node, 0), elem(node, 2)}

  @doc """
  The entries that a pattern matches, as an Enumerable that reads them page by page.

  All of them are of one revision: that of the store when this is called, however long reading takes. `:page` is how
  many are read at a time, 500 by default. The stream holds on to that state of the store until it is garbage. Raises
  `Tank.Store.Error` for what other functions return. With `nodes: :all`, also the nodes without a value.

      iex> for n <- 1..10, do: Tank.Store.Tree.put!(:app, [:s, "\#{n}"], n)
      iex> stream = Tank.Store.Tree.stream(:app, [:s, :*], page: 3)
      iex> Tank.Store.Tree.delete!(:app, [:s])
      iex> stream |> Stream.map(& &1.value) |> Enum.sum()
      55
  """
  @spec stream(store, Pattern.t(), keyword) :: Enumerable.t()
  def stream(store, pattern, opts \\ []) do
    opts = Options.read(opts, page: 500, nodes: :with_value)
    page = opts[:page]
    what = if Options.all_nodes?(opts), do: :nodes, else: :entries
    unless is_integer(page) and page > 0, do: raise(ArgumentError, "page: is a positive integer, got: #{inspect(page)}")

    # Tells a pattern that makes no sense now, not when the stream is read.
    case Reads.scan(store, pattern, what, opts) do
      {:ok, pattern, view} -> View.stream(view, pattern, page, what)
      {:error, reason} -> raise Error, reason
    end
  end

  # -- Writing

  @doc """
  Writes a value, whether there is one or not.

    * `:if_revision` - only if the entry's revision is this one; 0: only if there is none. Otherwise
      `{:error, {:conflict, entry}}`, with nil when there is no entry.
    * `:lease` - the lease that the entry goes with, by its epoch or a struct with an `:epoch`: the entry is deleted when
      the lease ends. `{:error, :lease_ended}` when it is not held any more.
    * `:unless_same` - `true`: writes only if the entry has another value or another lease, or there is none. Otherwise
      nothing changes: no revision is made, and no watch is told. For what writes the same again and again. It cannot
      be combined with `:if_revision`.
    * `:keep_while`, `:return_previous` - see above

  Within a transaction, the revision that writing functions give is the one that it reads: its own is not known yet.

      iex> {:ok, revision} = Tank.Store.Tree.put(:app, [:p], 1)
      iex> {:ok, _revision} = Tank.Store.Tree.put(:app, [:p], 2, if_revision: revision)
      iex> {:error, {:conflict, entry}} = Tank.Store.Tree.put(:app, [:p], 3, if_revision: revision)
      iex> entry.value
      2
      iex> {:ok, revision} = Tank.Store.Tree.put(:app, [:p], 2, unless_same: true)
      iex> Tank.Store.Tree.put(:app, [:p], 2, unless_same: true)
      {:ok, revision}
  """
  @spec put(store, Path.t(), term, keyword) :: written
  def put(store, path, value, opts \\ []) do
    opts = Options.write(opts, @written ++ [if_revision: nil, lease: nil, unless_same: false])
    _valid = Options.unless_same!(opts)
    write(store, :put, path, value, Options.condition(opts[:if_revision]), opts)
  end

  @doc """
  Makes a node without a value, or takes the value of one away. The node stays until it is deleted, also without anything
  below it. A node that came on the way to another one goes with the last of those all the same.

  Takes `:keep_while` and `:return_previous`, as `put/4` does.

      iex> Tank.Store.Tree.put_node!(:app, [:empty])
      iex> {Tank.Store.Tree.exists(:app, [:empty]), Tank.Store.Tree.get(:app, [:empty])}
      {true, {:error, :not_found}}
  """
  @spec put_node(store, Path.t(), keyword) :: written
  def put_node(store, path, opts \\ []) do
    opts = Options.write(opts, @written)
    with {:ok, how} <- Options.how(opts, 0), do: write_how(store, :put, path, "", nil, how, opts)
  end

  @doc """
  Writes a value where there is none; otherwise `{:error, {:exists, entry}}`. Takes `:lease`, `:keep_while` and
  `:return_previous`, as `put/4` does.

      iex> {:ok, _revision} = Tank.Store.Tree.create(:app, [:once], 1)
      iex> {:error, {:exists, entry}} = Tank.Store.Tree.create(:app, [:once], 2)
      iex> entry.value
      1
  """
  @spec create(store, Path.t(), term, keyword) :: written
  def create(store, path, value, opts \\ []),
    do: write(store, :create, path, value, nil, Options.write(opts, [{:lease, nil} | @written]))

  @doc """
  Writes a value where there is one; otherwise `{:error, :not_found}`. Takes the options of `put/4`, but for `:unless_same`.

      iex> Tank.Store.Tree.update(:app, [:missing], 1)
      {:error, :not_found}
  """
  @spec update(store, Path.t(), term, keyword) :: written
  def update(store, path, value, opts \\ []) do
    opts = Options.write(opts, @written ++ [if_revision: nil, lease: nil])
    write(store, :update, path, value, Options.condition(opts[:if_revision]), opts)
  end

  @doc """
  Writes a value if the present one equals `expected` (`Tank.Store.Pattern`, "Equality"); otherwise
  `{:error, {:conflict, entry}}`, with nil when there is none. Takes `:lease`, `:keep_while` and `:return_previous`, as
  `put/4` does.

      iex> Tank.Store.Tree.put!(:app, [:swap], :off)
      iex> {:ok, _revision} = Tank.Store.Tree.compare_and_swap(:app, [:swap], :off, :on)
      iex> {:error, {:conflict, %{value: :on}}} = Tank.Store.Tree.compare_and_swap(:app, [:swap], :off, :on)
      iex> Tank.Store.Tree.compare_and_swap(:app, [:missing], :off, :on)
      {:error, {:conflict, nil}}
  """
  @spec compare_and_swap(store, Path.t(), term, term, keyword) :: written
  def compare_and_swap(store, path, expected, value, opts \\ []) do
    condition = {:payload, Call.encode(expected)}
    write(store, :put, path, value, condition, Options.write(opts, [{:lease, nil} | @written]))
  end

  @doc """
  Deletes the value at a path and all below it. Nothing there is fine too: the store's revision stays what it is.

  With `:if_revision`, only if the entry's revision is this one; otherwise `{:error, {:conflict, entry}}`, with nil. Takes
  `:return_previous`.

      iex> Tank.Store.Tree.put!(:app, [:d, "x"], 1)
      iex> {:ok, revision} = Tank.Store.Tree.delete(:app, [:d])
      iex> Tank.Store.Tree.delete(:app, [:d])
      {:ok, revision}
  """
  @spec delete(store, Path.t(), keyword) :: written
  def delete(store, path, opts \\ []) do
    opts = Options.write(opts, if_revision: nil, return_previous: false)
    condition = Options.condition(opts[:if_revision])
    returns? = Options.flag!(opts, :return_previous)

    with {:ok, key} <- Path.to_key(path) do
      case store do
        %Tx{} = tx -> Tx.delete(tx, path, key, condition, returns?)
        store -> Writes.command(store, {:delete, key, condition, returns?}, 0, opts[:timeout])
      end
    end
  end

  @doc """
  Deletes every node that a pattern matches, and all below it, at one revision. Takes `:return_previous`.

      iex> for n <- 1..3, do: Tank.Store.Tree.put!(:app, [:dm, "\#{n}"], n)
      iex> {:ok, _revision} = Tank.Store.Tree.delete_many(:app, [:dm, {:any, ["1", "2"]}])
      iex> {:ok, left, _revision} = Tank.Store.Tree.get_many(:app, [:dm, :*])
      iex> left
      %{[:dm, "3"] => 3}
  """
  @spec delete_many(store, Pattern.t(), keyword) :: written
  def delete_many(store, pattern, opts \\ []) do
    opts = Options.write(opts, return_previous: false)
    returns? = Options.flag!(opts, :return_previous)
    write_many(store, pattern, opts, returns?, &{:delete, &1, nil, returns?}, &{:delete_many, &1, returns?})
  end

  @doc """
  Writes a value on every node that a pattern matches, with a value or without, at one revision. It makes no nodes. Takes
  `:keep_while`, for each of them, and `:return_previous`.

  `{:error, {:too_large, :matches, limit}}` when what is written would take more than 64 MiB.

      iex> for n <- 1..3, do: Tank.Store.Tree.put!(:app, [:pm, "\#{n}"], n)
      iex> {:ok, _revision} = Tank.Store.Tree.put_many(:app, [:pm, :*], 0)
      iex> {:ok, values, _revision} = Tank.Store.Tree.get_many(:app, [:pm, :*])
      iex> Map.values(values)
      [0, 0, 0]
  """
  @spec put_many(store, Pattern.t(), term, keyword) :: written
  def put_many(store, pattern, value, opts \\ []) do
    {payload, opts} = {Call.encode(value), Options.write(opts, @written)}

    with {:ok, {_kind, _same, _keep_while, returns?} = how} <- Options.how(opts) do
      store
      |> write_many(pattern, opts, returns?, &Operation.put(&1, payload, 0, how), &{:put_many, &1, payload, how})
      |> KeepWhile.name_pattern(opts[:keep_while])
    end
  end

  @doc """
  Deletes the value of every node that a pattern matches, at one revision, and leaves what is below.

  With `keep_nodes: true`, a node that was written stays without a value, as one of `put_node/3`. Takes `:return_previous`.

      iex> for path <- [[:cl], [:cl, "x"]], do: Tank.Store.Tree.put!(:app, path, 1)
      iex> {:ok, _revision} = Tank.Store.Tree.clear(:app, [:cl])
      iex> {Tank.Store.Tree.has_data(:app, [:cl]), Tank.Store.Tree.get!(:app, [:cl, "x"])}
      {false, 1}
  """
  @spec clear(store, Pattern.t(), keyword) :: written
  def clear(store, pattern, opts \\ []) do
    opts = Options.write(opts, keep_nodes: false, return_previous: false)
    {keep?, returns?} = {Options.flag!(opts, :keep_nodes), Options.flag!(opts, :return_previous)}
    write_many(store, pattern, opts, returns?, &{:clear, &1, keep?, returns?}, &{:clear_many, &1, keep?, returns?})
  end

  # -- Transactions

  @doc """
  Compares, then does one list of operations or the other, in one log entry and at one revision.

  All of `compare` must hold for `then_ops` to be done, otherwise `else_ops` are. A comparison is `{what, path, op, operand}`:

  | what | of a path | without a value |
  |---|---|---|
  | `:value` | its value, by `:==` or `:!=` (`Tank.Store.Pattern`, "Equality") | equals nothing |
  | `:version`, `:revision`, `:create_revision` | numbers of its entry | 0 |
  | `:exists` | whether there is a node: `true` or `false`, by `:==` or `:!=` | |
  | `:child_count` | how many direct children | |
  | `:lease_epoch` | the epoch of the lease that it goes with | 0 |
  | `:payload_version`, `:child_list_version` | numbers of its node | 0 without a node |

  or `{:revision, {:prefix, path}, op, n}`, of every entry below a path; or `{:lease, name, :epoch, n}`, whether the
  lease of that name, as `Tank.Store.Lease` takes it, is held with that epoch; 0: whether nobody holds it.

  An operation is `{:put, path, value}`, `{:put_node, path}`, `{:delete, path}` (with all below it), `{:clear, path}`
  (without), `{:get, path}` or `{:list, path}` (the direct children). Those that write may have options at the end, of
  `:lease`, `:keep_while`, `:keep_nodes` and `:return_previous`, as the functions take them. Each sees what those before
  it did, and has a response: `{:put, version}` (0 without a value), `{:delete, count}`, `{:get, entry}` or `{:get, nil}`,
  `{:list, entries}`, and `{:changed, changes}` for one with `return_previous: true`. Where a condition of a
  `keep_while:` does not hold, nothing is done: `{:error, {:keep_while, path, index, why}}`, of the node and the condition.

  What is no comparison or no operation raises `ArgumentError`. All comparisons and lists together may look at each entry
  of the store once, and at 500,000 more: `{:error, {:too_large, :comparisons, limit}}`.

      iex> {:ok, %{succeeded: true}} =
      ...>   Tank.Store.Tree.txn(:app, [{:exists, [:lock], :==, false}], [{:put, [:lock], :mine}], [{:get, [:lock]}])
      iex> {:ok, %{succeeded: false, responses: [{:get, entry}]}} =
      ...>   Tank.Store.Tree.txn(:app, [{:exists, [:lock], :==, false}], [{:put, [:lock], :mine}], [{:get, [:lock]}])
      iex> entry.value
      :mine

  A holder whose lease has gone to somebody else writes nothing:

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:app, "leader", holder: :me, ttl: 60_000)
      iex> guarded = fn value ->
      ...>   Tank.Store.Tree.txn!(:app, [{:lease, "leader", :epoch, lease.epoch}], [{:put, [:led], value}], []).succeeded
      ...> end
      iex> guarded.(1)
      true
      iex> Tank.Store.Lease.release(lease)
      iex> {:ok, _other} = Tank.Store.Lease.acquire(:app, "leader", holder: :other, ttl: 60_000)
      iex> guarded.(2)
      false
      iex> Tank.Store.Tree.get!(:app, [:led])
      1
  """
  @spec txn(atom, [comparison], [operation], [operation], keyword) ::
          {:ok, %{succeeded: boolean, responses: [response], revision: revision}} | error
  def txn(store, compare, then_ops, else_ops, opts \\ []) when is_atom(store),
    do: Writes.txn(store, compare, then_ops, else_ops, Options.write(opts)[:timeout])

  @doc """
  Runs `fun` over the store as it is at one revision, and commits what it writes if all that it read still holds.

  `fun` gets a transaction, which reading and writing functions of this module take in the place of the store. It reads
  its own writes. It is any function: it runs in the calling process, may call others, and is not compiled anew. A write
  by the store's id in it raises `ArgumentError`: it would not be a part of the transaction.

  What it read is compared when it is committed: values and what there was not, and what matches the patterns that it
  listed, counted or selected. When any of that has changed, `fun` **runs again**, so it should do nothing else that cannot
  be done twice. After `:retries` more runs, 100 by default, or when the time is over, `{:error, :too_many_conflicts}`.

  A transaction that writes nothing is not committed at all: it has read one revision. `rollback/1` ends it with
  `{:error, reason}`; what `fun` raises passes through; neither logs anything. Transactions do not nest:
  `ArgumentError`.

  `{:ok, result}` has what `fun` returned. More than 1,024 reads or writes (`:txn_operations_max`) are
  `{:error, {:too_large, :transaction, 1024}}`;
  a list is one read.

      iex> alias Tank.Store.Tree
      iex> Tree.put!(:app, [:account, "ann"], 10)
      iex> Tree.transaction(:app, fn tx ->
      ...>   balance = Tree.get!(tx, [:account, "ann"])
      ...>   if balance < 7, do: Tree.rollback(:too_poor)
      ...>   Tree.put!(tx, [:account, "ann"], balance - 7)
      ...>   Tree.get!(tx, [:account, "ann"])
      ...> end)
      {:ok, 3}
  """
  @spec transaction(atom, (Tx.t() -> result), keyword) :: {:ok, result} | {:error, term} when result: term
  def transaction(store, fun, opts \\ [])

  def transaction(%Tx{}, _fun, _opts), do: raise(ArgumentError, "transactions do not nest")

  def transaction(store, fun, opts) when is_atom(store) and is_function(fun, 1),
    do: Transaction.run(store, fun, Options.read(opts, retries: 100))

  @doc """
  Ends the transaction that the calling process runs: `transaction/3` returns `{:error, reason}`.

      iex> Tank.Store.Tree.transaction(:app, fn _tx -> Tank.Store.Tree.rollback(:no) end)
      {:error, :no}
  """
  @spec rollback(term) :: no_return
  def rollback(reason), do: Transaction.rollback(reason)

  # -- Revisions

  @doc """
  Waits until this member has applied every write that was acknowledged before, by whatever member: then also reads with
  `favor: :low_latency` see them.

      iex> Tank.Store.Tree.fence(:app)
      :ok
  """
  @spec fence(atom, keyword) :: :ok | error
  def fence(store, opts \\ []) when is_atom(store) do
    timeout = Options.write(opts)[:timeout]
    with {:ok, store} <- Running.fetch(store), do: Call.await_readable(store, timeout)
  end

  @doc """
  Waits until this member has come to a revision, such as one that a write on another member gave.

      iex> {:ok, revision} = Tank.Store.Tree.put(:app, [:awaited], 1)
      iex> Tank.Store.Tree.await_revision(:app, revision)
      :ok
      iex> Tank.Store.Tree.await_revision(:app, revision + 1_000, timeout: 10)
      {:error, :timeout}

  A store that has begun another history since is at a higher revision, and may have lost the write: with `{history,
  revision}`, `{:error, {:compacted, min}}` tells.
  """
  @spec await_revision(atom, position, keyword) :: :ok | error
  def await_revision(store, position, opts \\ []) when is_atom(store) and is_position(position) do
    timeout = Options.write(opts)[:timeout]

    with {:ok, store} <- Running.fetch(store),
         do: Call.request(&Native.await_revision(store, &1, position, &2), timeout)
  end

  @doc """
  What changed at a path and below, or of what a pattern matches (`Tank.Store.Pattern`, "Of what changes"), since a
  revision: for a process that looks again and again, and mostly finds nothing new.

  `:unchanged` when the store is at no newer revision, which costs next to nothing. Otherwise `{:ok, changes, revision}`:
  the difference between the two revisions, a `Tank.Store.Change` for each entry that was written or deleted, in the
  order of paths, and the revision to ask with the next time. There may be none: what changed stands elsewhere. An entry
  that a pattern matched at either revision is one of them.

  Options: `:favor` and `:timeout`, as for `get/3`. Errors: `{:compacted, min}` when the history does not reach back as
  far, when the store is in another history, or when it has not come to that revision: list everything. With `favor:
  :low_latency`, this member may just lag, and `:unchanged` is all that it knows then.

      iex> {:ok, revision} = Tank.Store.Tree.put(:app, [:since, "a"], 1)
      iex> Tank.Store.Tree.list_since(:app, [:since], revision)
      :unchanged
      iex> {:ok, _} = Tank.Store.Tree.put(:app, [:since, "b"], 2)
      iex> {:ok, [change], _} = Tank.Store.Tree.list_since(:app, [:since], revision)
      iex> {change.type, change.path, change.value}
      {:created, [:since, "b"], 2}
  """
  @spec list_since(atom, Path.t() | Pattern.t(), position, keyword) ::
          :unchanged | {:ok, [Tank.Store.Change.t()], revision} | error
  def list_since(store, prefix_or_pattern, position, opts \\ []) when is_atom(store),
    do: Since.list(store, prefix_or_pattern, position, Options.read(opts))

  @doc """
  The id of the history that the store is in.

  Ask before you list: should a history begin in between, the list and the id do not belong together, and the position
  of both is refused as compacted.

  Options: `:favor` and `:timeout`, as for `get/3`.

      iex> {:ok, history} = Tank.Store.Tree.history(:app)
      iex> {:ok, _entries, revision} = Tank.Store.Tree.list(:app, [:since])
      iex> Tank.Store.Tree.list_since(:app, [:since], {history, revision})
      :unchanged
      iex> {:error, {:compacted, _min}} = Tank.Store.Tree.list_since(:app, [:since], {"0123456789abcdef", revision})
  """
  @spec history(atom, keyword) :: {:ok, history} | error
  def history(store, opts \\ []) when is_atom(store) do
    opts = Options.read(opts)

    with {:ok, native} <- Running.fetch(store),
         :ok <- if(opts[:favor] == :low_latency, do: :ok, else: Call.await_readable(native, opts[:timeout])) do
      with {:error, reason} <- Native.history(native), do: {:error, Error.public(reason)}
    end
  end

  @doc """
  Drops the history before a revision: it is the oldest one that can still be read. It also happens by itself, as the
  options of a store say. A revision of the future drops all history.

      iex> {:ok, revision} = Tank.Store.Tree.put(:app, [:compacted], 1)
      iex> Tank.Store.Tree.compact(:app, revision)
      :ok
      iex> Tank.Store.Tree.get_entry(:app, [:compacted], revision: revision - 1)
      {:error, {:compacted, revision}}
  """
  @spec compact(atom, revision, keyword) :: :ok | error
  def compact(store, revision, opts \\ []) when is_atom(store) and is_integer(revision) and revision >= 0 do
    with {:ok, _revision} <- Writes.command(store, {:compact, revision}, 0, Options.write(opts)[:timeout]), do: :ok
  end

  # -- The forms that raise

  defbang(
    get: [:store, :path],
    get_entry: [:store, :path],
    count: [:store, :pattern],
    list: [:store, :prefix],
    get_many: [:store, :pattern],
    put: [:store, :path, :value],
    put_node: [:store, :path],
    keep_while: [:store, :path],
    create: [:store, :path, :value],
    update: [:store, :path, :value],
    compare_and_swap: [:store, :path, :expected, :value],
    delete: [:store, :path],
    delete_many: [:store, :pattern],
    put_many: [:store, :pattern, :value],
    clear: [:store, :pattern],
    txn: [:store, :compare, :then_ops, :else_ops],
    transaction: [:store, :fun],
    fence: [:store],
    await_revision: [:store, :position],
    history: [:store],
    compact: [:store, :revision]
  )

  # -- Writes, to a store or within a transaction

  defp write(store, kind, path, value, condition, opts) do
    with {:ok, how} <- Options.how(opts), do: write_how(store, kind, path, Call.encode(value), condition, how, opts)
  end

  defp write_how(store, kind, path, payload, condition, how, opts) do
    lease = Operation.epoch(opts[:lease])

    with {:ok, key} <- Path.to_key(path) do
      case {store, how} do
        {%Tx{} = tx, {1, true, nil, false}} -> Tx.put_unless_same(tx, key, payload, lease)
        {%Tx{} = tx, how} -> Tx.write(tx, kind, path, key, payload, condition, lease, how)
        {store, how} -> Writes.write(store, kind, key, payload, condition, lease, how, opts[:timeout])
      end
    end
    |> KeepWhile.name_pattern(opts[:keep_while])
  end

  defp write_many(store, pattern, opts, returns?, op, command) do
    with {:ok, pattern} <- Pattern.encode(pattern) do
      case store do
        %Tx{} = tx -> Tx.write_many(tx, pattern, op, returns?)
        store -> Writes.command(store, command.(pattern), Pattern.size(pattern), opts[:timeout])
      end
    end
  end
end
