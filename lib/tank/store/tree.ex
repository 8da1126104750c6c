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
  come with it, and go with the last one. The root, `[]`, may have a value too.

  The **revision** counts the writes of the store: each command that changes something makes the next one, and all
  that a transaction writes has the same. An entry's **version** counts its own writes since it was created.

  Revisions rise within a **history**. A restore from a backup, `Tank.Store.Cluster.force_new_cluster/2` and an import
  that replaces begin another one, whose revisions are above all earlier ones, with everything before it compacted. Where
  a function takes the revision that you know the store from, it also takes `{history, revision}`, with the id that
  `history/2` gives: then it is never taken for a revision of another history.

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

  Limits are checked before anything is logged: a component of a path 255 bytes, a path 1 KiB, a value 16 MiB
  (`:value_bytes_max`), a transaction 1,024 operations and as many comparisons, a pattern 63 parts, and all paths and
  values of a transaction or a pattern together 32 MiB (`:txn_bytes_max`; `{:error, {:too_large, :txn, limit}}`).
  """

  import Tank.Store.Position, only: [is_position: 1]
  import Tank.Store.Tree.Bang, only: [defbang: 1]

  alias Tank.Store.{Call, Entry, Error, Native, Path, Pattern, Running, Since, Tx, View}
  alias Tank.Store.Tree.{Operation, Options, Reads, Transaction, Writes}

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
          | {:revision, {:prefix, Path.t()}, op, non_neg_integer}
          | {:lease, Tank.Store.Lease.name(), :epoch, non_neg_integer}
  @type operation ::
          {:put, Path.t(), term}
          | {:put, Path.t(), term, [lease: lease]}
          | {:delete | :clear | :get | :list, Path.t()}
  @type response ::
          {:put, version :: pos_integer}
          | {:delete, count :: non_neg_integer}
          | {:get, Entry.t() | nil}
          | {:list, [Entry.t()]}

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

      iex> {:ok, first} = Tank.Store.Tree.put(:app, [:history], "old")
      iex> {:ok, _second} = Tank.Store.Tree.put(:app, [:history], "new")
      iex> {:ok, entry} = Tank.Store.Tree.get_entry(:app, [:history], revision: first)
      iex> {entry.value, entry.version, entry.path}
      {"old", 1, [:history]}
  """
  @spec get_entry(store, Path.t(), keyword) :: {:ok, Entry.t()} | error
  def get_entry(store, path, opts \\ []) do
    opts = Options.read(opts, revision: nil)

    case {store, opts[:revision]} do
      {%Tx{} = tx, nil} -> Reads.counted_entry(tx, path, opts)
      {%Tx{}, _revision} -> raise ArgumentError, "a transaction does not read the past"
      {_store, nil} -> Reads.entry(store, path, opts)
      {_store, revision} -> Reads.past_entry(store, path, revision)
    end
  end

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
    with {:ok, pattern, view} <- Reads.scan(store, pattern, Options.read(opts)), do: View.select(view, pattern, :count)
  end

  @doc """
  The entries below a path, in the order of their paths, and the revision they are of.

  Atoms come before strings, and either by its bytes. Only nodes with a value are entries.

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
  The values that a pattern matches, by their paths, and the revision they are of. Nodes without a value are left out.

      iex> for name <- ["web1", "web2", "db"], do: Tank.Store.Tree.put!(:app, [:m, name], name)
      iex> {:ok, values, _revision} = Tank.Store.Tree.get_many(:app, [:m, {:name_matches, ~r/^web/}])
      iex> Enum.sort(Map.values(values))
      ["web1", "web2"]
  """
  @spec get_many(store, Pattern.t(), keyword) :: {:ok, %{Path.t() => term}, revision} | error
  def get_many(store, pattern, opts \\ []) do
    with {:ok, pattern, view} <- Reads.scan(store, pattern, Options.read(opts)),
         {:ok, values} <- View.select(view, pattern, :values),
         do: {:ok, Map.new(values), Reads.revision(store, view)}
  end

  @doc """
  The entries that a pattern matches, as an Enumerable that reads them page by page.

  All of them are of one revision: that of the store when this is called, however long reading takes. `:page` is how
  many are read at a time, 500 by default. The stream holds on to that state of the store until it is garbage. Raises
  `Tank.Store.Error` for what other functions return.

      iex> for n <- 1..10, do: Tank.Store.Tree.put!(:app, [:s, "\#{n}"], n)
      iex> stream = Tank.Store.Tree.stream(:app, [:s, :*], page: 3)
      iex> Tank.Store.Tree.delete!(:app, [:s])
      iex> stream |> Stream.map(& &1.value) |> Enum.sum()
      55
  """
  @spec stream(store, Pattern.t(), keyword) :: Enumerable.t()
  def stream(store, pattern, opts \\ []) do
    opts = Options.read(opts, page: 500)
    page = opts[:page]
    unless is_integer(page) and page > 0, do: raise(ArgumentError, "page: is a positive integer, got: #{inspect(page)}")

    with {:ok, pattern, view} <- Reads.scan(store, pattern, opts),
         # Tells a pattern that makes no sense now, not when the stream is read.
         {:ok, _none} <- View.select(view, pattern, :keys, nil, 0) do
      View.stream(view, pattern, page)
    else
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
  @spec put(store, Path.t(), term, keyword) :: {:ok, revision} | error
  def put(store, path, value, opts \\ []) do
    opts = Options.write(opts, if_revision: nil, lease: nil, unless_same: false)

    if Options.unless_same!(opts),
      do: put_unless_same(store, path, value, opts),
      else: write(store, :put, path, value, Options.condition(opts[:if_revision]), opts)
  end

  @doc """
  Writes a value where there is none; otherwise `{:error, {:exists, entry}}`. Takes `:lease`, as `put/4` does.

      iex> {:ok, _revision} = Tank.Store.Tree.create(:app, [:once], 1)
      iex> {:error, {:exists, entry}} = Tank.Store.Tree.create(:app, [:once], 2)
      iex> entry.value
      1
  """
  @spec create(store, Path.t(), term, keyword) :: {:ok, revision} | error
  def create(store, path, value, opts \\ []),
    do: write(store, :create, path, value, nil, Options.write(opts, lease: nil))

  @doc """
  Writes a value where there is one; otherwise `{:error, :not_found}`. Takes `:if_revision` and `:lease`, as `put/4` does.

      iex> Tank.Store.Tree.update(:app, [:missing], 1)
      {:error, :not_found}
  """
  @spec update(store, Path.t(), term, keyword) :: {:ok, revision} | error
  def update(store, path, value, opts \\ []) do
    opts = Options.write(opts, if_revision: nil, lease: nil)
    write(store, :update, path, value, Options.condition(opts[:if_revision]), opts)
  end

  @doc """
  Writes a value if the present one equals `expected` (`Tank.Store.Pattern`, "Equality"); otherwise
  `{:error, {:conflict, entry}}`, with nil when there is none. Takes `:lease`, as `put/4` does.

      iex> Tank.Store.Tree.put!(:app, [:swap], :off)
      iex> {:ok, _revision} = Tank.Store.Tree.compare_and_swap(:app, [:swap], :off, :on)
      iex> {:error, {:conflict, %{value: :on}}} = Tank.Store.Tree.compare_and_swap(:app, [:swap], :off, :on)
      iex> Tank.Store.Tree.compare_and_swap(:app, [:missing], :off, :on)
      {:error, {:conflict, nil}}
  """
  @spec compare_and_swap(store, Path.t(), term, term, keyword) :: {:ok, revision} | error
  def compare_and_swap(store, path, expected, value, opts \\ []) do
    condition = {:payload, Call.encode(expected)}
    write(store, :put, path, value, condition, Options.write(opts, lease: nil))
  end

  @doc """
  Deletes the value at a path and all below it. Nothing there is fine too: the store's revision stays what it is.

  With `:if_revision`, only if the entry's revision is this one; otherwise `{:error, {:conflict, entry}}`, with nil.

      iex> Tank.Store.Tree.put!(:app, [:d, "x"], 1)
      iex> {:ok, revision} = Tank.Store.Tree.delete(:app, [:d])
      iex> Tank.Store.Tree.delete(:app, [:d])
      {:ok, revision}
  """
  @spec delete(store, Path.t(), keyword) :: {:ok, revision} | error
  def delete(store, path, opts \\ []) do
    opts = Options.write(opts, if_revision: nil)
    condition = Options.condition(opts[:if_revision])

    with {:ok, key} <- Path.to_key(path) do
      case store do
        %Tx{} = tx -> Tx.delete(tx, key, condition)
        store -> Writes.command(store, {:delete, key, condition}, 0, opts[:timeout])
      end
    end
  end

  @doc """
  Deletes every node that a pattern matches, and all below it, at one revision.

      iex> for n <- 1..3, do: Tank.Store.Tree.put!(:app, [:dm, "\#{n}"], n)
      iex> {:ok, _revision} = Tank.Store.Tree.delete_many(:app, [:dm, {:any, ["1", "2"]}])
      iex> {:ok, left, _revision} = Tank.Store.Tree.get_many(:app, [:dm, :*])
      iex> left
      %{[:dm, "3"] => 3}
  """
  @spec delete_many(store, Pattern.t(), keyword) :: {:ok, revision} | error
  def delete_many(store, pattern, opts \\ []),
    do: write_many(store, pattern, opts, &{:delete, &1}, &{:delete_many, &1})

  @doc """
  Writes a value on every node that a pattern matches, with a value or without, at one revision. It makes no nodes.

  `{:error, {:too_large, :matches, limit}}` when what is written would take more than 64 MiB.

      iex> for n <- 1..3, do: Tank.Store.Tree.put!(:app, [:pm, "\#{n}"], n)
      iex> {:ok, _revision} = Tank.Store.Tree.put_many(:app, [:pm, :*], 0)
      iex> {:ok, values, _revision} = Tank.Store.Tree.get_many(:app, [:pm, :*])
      iex> Map.values(values)
      [0, 0, 0]
  """
  @spec put_many(store, Pattern.t(), term, keyword) :: {:ok, revision} | error
  def put_many(store, pattern, value, opts \\ []) do
    payload = Call.encode(value)
    write_many(store, pattern, opts, &{:put, &1, payload, 0}, &{:put_many, &1, payload})
  end

  @doc """
  Deletes the value of every node that a pattern matches, at one revision, and leaves what is below.

      iex> for path <- [[:cl], [:cl, "x"]], do: Tank.Store.Tree.put!(:app, path, 1)
      iex> {:ok, _revision} = Tank.Store.Tree.clear(:app, [:cl])
      iex> {Tank.Store.Tree.has_data(:app, [:cl]), Tank.Store.Tree.get!(:app, [:cl, "x"])}
      {false, 1}
  """
  @spec clear(store, Pattern.t(), keyword) :: {:ok, revision} | error
  def clear(store, pattern, opts \\ []),
    do: write_many(store, pattern, opts, &{:clear, &1}, &{:clear_many, &1})

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

  or `{:revision, {:prefix, path}, op, n}`, of every entry below a path; or `{:lease, name, :epoch, n}`, whether the
  lease of that name, as `Tank.Store.Lease` takes it, is held with that epoch; 0: whether nobody holds it.

  An operation is `{:put, path, value}`, `{:put, path, value, lease: lease}`, `{:delete, path}` (with all below it),
  `{:clear, path}` (without), `{:get, path}` or `{:list, path}` (the direct children). Each sees what those before it did,
  and has a response: `{:put, version}`, `{:delete, count}`, `{:get, entry}` or `{:get, nil}`, `{:list, entries}`.

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

  What it read is compared when it is committed: values and what there was not, and every entry below the prefix of what it
  listed, counted or selected. When something has changed, `fun` **runs again**, so it should do nothing else that cannot
  be done twice. After `:retries` more runs, 100 by default, or when the time is over, `{:error, :too_many_conflicts}`.

  A transaction that writes nothing is not committed at all: it has read one revision. `rollback/1` ends it with
  `{:error, reason}`; what `fun` raises passes through; neither logs anything. Transactions do not nest:
  `ArgumentError`.

  `{:ok, result}` has what `fun` returned. More than 1,024 reads or writes are `{:error, {:too_large, :transaction, 1024}}`;
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
    lease = Operation.epoch(opts[:lease])

    with {:ok, key} <- Path.to_key(path) do
      case store do
        %Tx{} = tx -> Tx.write(tx, kind, key, Call.encode(value), condition, lease)
        store -> Writes.write(store, kind, key, Call.encode(value), condition, lease, opts[:timeout])
      end
    end
  end

  defp put_unless_same(store, path, value, opts) do
    lease = Operation.epoch(opts[:lease])

    with {:ok, key} <- Path.to_key(path) do
      case store do
        %Tx{} = tx -> Tx.put_unless_same(tx, key, Call.encode(value), lease)
        store -> Writes.put_unless_same(store, key, Call.encode(value), lease, opts[:timeout])
      end
    end
  end

  defp write_many(store, pattern, opts, op, command) do
    timeout = Options.write(opts)[:timeout]

    with {:ok, pattern} <- Pattern.encode(pattern) do
      case store do
        %Tx{} = tx -> Tx.write_many(tx, pattern, op)
        store -> Writes.command(store, command.(pattern), Pattern.size(pattern), timeout)
      end
    end
  end
end
