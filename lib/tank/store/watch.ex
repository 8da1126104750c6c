defmodule Tank.Store.Watch do
  @moduledoc """
  Sends a process every change of a store, in order and exactly once.

      iex> dir = Path.join(System.tmp_dir!(), "watch_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, :watch_doc} = Tank.Store.Cluster.start(dir, :watch_doc)
      iex> {:ok, watch} = Tank.Store.Watch.start(:watch_doc, [:pods])
      iex> ref = watch.ref
      iex> receive do {:store_watch, ^ref, message} -> message end
      {:snapshot, [], 0}
      iex> receive do {:store_watch, ^ref, message} -> message end
      {:synced, 0}
      iex> Tank.Store.Watch.cancel(watch)
      :ok
      iex> Tank.Store.Cluster.stop(:watch_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true

  ## Messages

  The process that started the watch gets `{:store_watch, ref, message}`, with these messages:

  | message | meaning |
  |---|---|
  | `{:snapshot_part, entries}` | a page of a large snapshot, in the order of paths |
  | `{:snapshot, entries, revision}` | the snapshot, or its last page: `Tank.Store.Entry` structs as of `revision` |
  | `{:synced, revision}` | everything up to `revision` has been delivered |
  | `{:changes, revision, changes}` | the changes of one revision, in the order of paths: `Tank.Store.Change` structs |
  | `{:progress, revision}` | there are no other changes up to `revision`, from which you can resume |
  | `{:cancelled, reason}` | the last message: the watch has ended |

  Each revision is one message, also a transaction and the deletion of a subtree, which reports each entry. Revisions rise from
  message to message, and there is no gap between a snapshot and the first change. A watch works on any member of a cluster,
  and delivers what that member has applied: after you receive a revision, you can read it there.

  A watch selects a path and everything below it, or the entries that match a pattern (`Tank.Store.Pattern`, "Of what changes").
  It delivers a change if the entry matched before or matches after it. The change says what happened to the entry: if an
  update makes an entry match, the change is `:updated`.

      iex> dir = Path.join(System.tmp_dir!(), "pattern_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, :pattern_doc} = Tank.Store.Cluster.start(dir, :pattern_doc)
      iex> {:ok, watch} = Tank.Store.Watch.start(:pattern_doc, [:pods, :*, "status"], from: :now)
      iex> ref = watch.ref
      iex> receive do {:store_watch, ^ref, message} -> message end
      {:synced, 0}
      iex> for name <- ["spec", "status"], do: Tank.Store.Tree.put!(:pattern_doc, [:pods, "web", name], name)
      iex> receive do {:store_watch, ^ref, {:changes, 2, [change]}} -> change.path end
      [:pods, "web", "status"]
      iex> Tank.Store.Watch.cancel(watch)
      :ok
      iex> Tank.Store.Cluster.stop(:pattern_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true

  A watch ends with

    * `{:compacted, min}`: the next change is no longer in the history, or the store has a new history. Start again with a
      snapshot, or with `{:after, min}`, which skips the changes up to `min`.
    * `{:lagged, revision}`: the process did not keep up. Start again with `{:after, revision}`. If the revision is 0, the
      snapshot was not complete: start with a new snapshot.
    * `:store_stopped`: the store was stopped or opened again, or the watch's own process was killed. Start again after the
      last revision that you received, with `{:after, {watch.history, revision}}`.

  When the process dies, its watch ends without a message.

  ## Histories

  A store that was restored from a backup, forced into a new cluster, or replaced by an import has lost writes that its clients
  may have seen. It has a new history, whose revisions are higher than all earlier ones. A store that joins another cluster gets
  that cluster's history. Watches of the former history end with `{:compacted, min}`, and a watch does not start after a
  revision of another history. A position with its history, `{history, revision}`, is never mistaken for a position of another
  history. A plain revision is recognized if it is compacted, or higher than the store's.
  """

  import Tank.Store.Position, only: [is_position: 1]

  alias Tank.Store.{Call, Cluster, Deadline, Error, Native, Options, Path, Pattern, Position, ProcessCall, Running}
  alias Tank.Store.Watch.{Feed, Handler}

  @enforce_keys [:ref, :revision, :store, :pid]
  defstruct [:ref, :revision, :store, :pid, :history]

  @timeout 5_000
  # It hears of its end between two batches, which takes milliseconds. One that does not is killed.
  @cancel_timeout 5_000
  # Until what is told of a watch that was killed has surely come.
  @last_words_ms 1_000
  @defaults [
    from: :snapshot,
    mailbox_max: 1_000,
    lag_timeout_ms: 5_000,
    progress_interval_ms: 10_000,
    snapshot_page_size: 1_000,
    favor: :consistency,
    timeout: @timeout,
    entries: false,
    nodes: false
  ]

  @typedoc "A watch: the reference in its messages, the revision at which it began, and its history."
  @type t :: %__MODULE__{
          ref: reference,
          revision: non_neg_integer,
          store: atom,
          pid: pid,
          history: Position.history() | nil
        }
  @type from :: :snapshot | :now | {:after, Position.t()}
  @type message ::
          {:snapshot_part, [Tank.Store.Entry.t()]}
          | {:snapshot, [Tank.Store.Entry.t()], non_neg_integer}
          | {:synced, non_neg_integer}
          | {:changes, pos_integer, [Tank.Store.Change.t()]}
          | {:progress, non_neg_integer}
          | {:cancelled, {:compacted, non_neg_integer} | {:lagged, non_neg_integer} | :store_stopped}

  @doc """
  Starts a watch of a path and everything below it, or of the entries that match a pattern. The calling process gets the
  messages.

  `:from` says where it begins: with a `:snapshot` (the default), `:now`, `{:after, revision}`, or
  `{:after, {history, revision}}` (see "Histories"). If this member does not have that revision yet, it asks the leader
  whether the revision exists.

  Options:

    * `:favor` - with `:consistency` (the default), a snapshot or `:now` includes every write that any member has acknowledged
      before. With `:low_latency`, it is what this member knows, and needs no majority. If this member does not have the
      revision of `:after` yet, the watch waits for it without checking that it exists, and sends `:synced` once it is there.
      If the store begins a new history, the watch ends with `{:compacted, min}`
    * `:timeout` - milliseconds for the start, 5,000 by default
    * `:mailbox_max` - messages in the mailbox above which the watch pauses, 1,000 by default. All messages of the process
      count
    * `:lag_timeout_ms` - milliseconds of a pause after which the watch ends with `{:lagged, revision}`, 5,000 by default
    * `:progress_interval_ms` - milliseconds between two `:progress` messages of a watch that has nothing to deliver, if the
      store's revision has changed; 10,000 by default, or `:infinity`
    * `:snapshot_page_size` - entries in a page of a snapshot, 1,000 by default

  Errors: `{:compacted, min}` when what follows the revision is no longer in the history, when the store is in another
  history, or when there is no such revision yet; `:noproc`, `:no_quorum`, `:timeout`,
  `{:invalid_path, why}`, `{:invalid_pattern, why}`.

      iex> Tank.Store.Watch.start(:never_started, [:pods], from: :now)
      {:error, :noproc}
  """
  @spec start(atom, Path.t() | Pattern.t(), keyword) :: {:ok, t} | {:error, Error.reason()}
  def start(store, prefix_or_pattern, opts \\ []) when is_atom(store) do
    opts = options!(opts)

    with {:ok, what} <- Pattern.prefix_or_pattern(prefix_or_pattern),
         {:ok, native} <- Running.fetch(store),
         {:ok, asked?} <- await_current(native, opts) do
      ref = make_ref()
      what = if opts.nodes, do: {:nodes, what}, else: what
      args = %{native: native, what: what, asked?: asked?, ref: ref, subscriber: self(), opts: opts}
      args = Map.merge(args, %{store: store, pattern: prefix_or_pattern})

      case ProcessCall.run(fn -> DynamicSupervisor.start_child(Tank.Store.Watches, {Feed, args}) end) do
        {:ok, pid} -> {:ok, began(%__MODULE__{ref: ref, revision: 0, store: store, pid: pid})}
        {:error, {:shutdown, reason}} -> {:error, Error.public(reason)}
        # The library's supervisor of watches does not run: the application is being stopped.
        {:error, :noproc} -> {:error, :noproc}
        # The watch's process crashed, which was logged.
        {:error, _crash} -> {:error, :engine_failed}
      end
    end
  end

  @doc """
  The child specification of a watch with a handler, `start_link/1`. Its id is `{Tank.Store.Watch, store_id, pattern}`, unless
  `:id` is given: two of the same pattern need ids of their own.

      iex> Tank.Store.Watch.child_spec(store_id: :app, pattern: [:pods], handler: &IO.inspect/1).id
      {Tank.Store.Watch, :app, [:pods]}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(opts) do
    store_id = Options.store_id!(opts, Cluster.get_default_store_id())
    id = Keyword.get(opts, :id, {__MODULE__, store_id, Keyword.get(opts, :pattern, [])})
    %{id: id, start: {__MODULE__, :start_link, [opts]}, type: :worker}
  end

  @doc """
  Starts a process that watches and calls a function with each message (without `:store_watch` and the reference):

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app"},
        {Tank.Store.Watch, store_id: :app, pattern: [:pods], handler: {MyApp.Pods, :handle, []}}
      ]

  When the store stops, is opened again or was too quick, the watch goes on after the last revision that the function was
  called with, and `:synced` comes again. Nothing is left out, and no revision comes twice, unless this process itself is
  restarted: it then begins at `:from`. Where the history does not reach back as far, the function is called with
  `{:cancelled, {:compacted, min}}`, and a snapshot follows. A function that raises ends the process.

  Options:

    * `:store_id` - the store's id; that of `Tank.Store.Cluster.get_default_store_id/0` unless given
    * `:pattern` - the path, with all below it, or the pattern; everything unless given
    * `:handler` - a function of one argument, or `{module, function, arguments}`, which is called with the message before
      the arguments; required
    * `:name` - registers the process
    * `:id` - of the child specification
    * those of `start/3`

  Raises `ArgumentError` for an unknown option, or one that has no such value.

      iex> Tank.Store.Watch.start_link(store_id: :app, handlr: &IO.inspect/1)
      ** (ArgumentError) unknown option :handlr, did you mean :handler?
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts), do: Handler.start_link(opts)

  @doc """
  Ends a watch, and removes its messages from the caller's mailbox. Returns `:ok` also if the watch has ended. It takes
  6 seconds at the most.

      iex> Tank.Store.Watch.cancel(%Tank.Store.Watch{ref: make_ref(), revision: 0, store: :tank, pid: spawn(fn -> :ok end)})
      :ok
  """
  @spec cancel(t) :: :ok
  def cancel(%__MODULE__{ref: ref, pid: pid}) do
    with :killed <- ProcessCall.stop(pid, {:cancel, ref}, @cancel_timeout) do
      # The library tells the subscriber, from another thread.
      receive do: ({:store_watch, ^ref, {:cancelled, _reason}} -> :ok), after: (@last_words_ms -> :ok)
    end

    flush(ref)
  end

  @doc """
  A watch as an enumerable of its messages (without `:store_watch` and the reference). The last one, should it come to
  that, is `{:cancelled, reason}`.

  It starts when the enumeration does, in the process that enumerates, and ends with it. Options are those of `start/3`;
  when it cannot start, the enumeration raises `Tank.Store.Error`.

      iex> dir = Path.join(System.tmp_dir!(), "stream_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, :stream_doc} = Tank.Store.Cluster.start(dir, :stream_doc)
      iex> :stream_doc |> Tank.Store.Watch.stream([]) |> Enum.take(2)
      [{:snapshot, [], 0}, {:synced, 0}]
      iex> Tank.Store.Cluster.stop(:stream_doc)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true
  """
  @spec stream(atom, Path.t() | Pattern.t(), keyword) :: Enumerable.t()
  def stream(store, prefix_or_pattern, opts \\ []) when is_atom(store) do
    Stream.resource(
      fn -> start!(store, prefix_or_pattern, opts) end,
      &next_message/1,
      fn
        {:ended, _watch} -> :ok
        watch -> cancel(watch)
      end
    )
  end

  @doc false
  # Asks for a `:progress` message as soon as the watch has come to `revision`.
  @spec report_at(t, non_neg_integer) :: :ok
  def report_at(%__MODULE__{pid: pid}, revision) do
    send(pid, {:report_at, revision})
    :ok
  end

  defp start!(store, prefix_or_pattern, opts) do
    case start(store, prefix_or_pattern, opts) do
      {:ok, watch} -> watch
      {:error, reason} -> raise Error, reason
    end
  end

  defp next_message({:ended, _watch} = ended), do: {:halt, ended}

  defp next_message(%__MODULE__{ref: ref, pid: pid} = watch) do
    monitor = Process.monitor(pid)

    receive do
      {:store_watch, ^ref, message} ->
        Process.demonitor(monitor, [:flush])
        {[message], if(match?({:cancelled, _reason}, message), do: {:ended, watch}, else: watch)}

      # What it sent before is in the mailbox, ahead of this; or it was killed, and that is about to be told.
      {:DOWN, ^monitor, :process, ^pid, _reason} ->
        receive do
          {:store_watch, ^ref, message} -> {[message], watch}
        after
          @last_words_ms -> {[{:cancelled, :store_stopped}], {:ended, watch}}
        end
    end
  end

  # Whether the leader was asked how new this member must be.
  defp await_current(_native, %{favor: :low_latency}), do: {:ok, false}

  defp await_current(native, %{from: {:after, position}} = opts) do
    case Native.is_ahead(native, position) do
      true -> ask(native, opts)
      false -> {:ok, false}
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end

  # The cheapest question that only an authoritative view answers.
  defp await_current(native, opts),
    do: if(Native.list_since(native, "", 0) == :wait, do: ask(native, opts), else: {:ok, true})

  defp ask(native, opts) do
    with :ok <- Call.await_readable(native, Deadline.remaining(Deadline.in_ms(opts.timeout))), do: {:ok, true}
  end

  # Sent before the supervisor answered.
  defp began(%__MODULE__{ref: ref} = watch) do
    receive do
      {^ref, :began, revision, history} -> %{watch | revision: revision, history: history}
    end
  end

  defp flush(ref) do
    receive do
      {:store_watch, ^ref, _message} -> flush(ref)
    after
      0 -> :ok
    end
  end

  @doc false
  # Options of `start/3`, for who starts watches later; `others` are what it takes besides.
  @spec check_options!(keyword, [atom]) :: keyword
  def check_options!(opts, others) do
    :ok = Options.known!(opts, (Keyword.keys(@defaults) -- [:entries, :nodes]) ++ others)
    _checked = options!(opts)
    opts
  end

  defp options!(opts) do
    for {name, value} <- Options.with_defaults!(opts, @defaults), into: %{} do
      if option?(name, value),
        do: {name, value},
        else: raise(ArgumentError, "option #{inspect(name)} cannot be #{inspect(value)}")
    end
  end

  defp option?(:from, from) when from in [:snapshot, :now], do: true
  defp option?(:from, {:after, position}), do: is_position(position)
  defp option?(:favor, favor), do: favor in [:consistency, :low_latency]
  defp option?(name, on?) when name in [:entries, :nodes], do: is_boolean(on?)
  defp option?(name, :infinity), do: name in [:timeout, :progress_interval_ms, :lag_timeout_ms]
  defp option?(:timeout, timeout), do: is_integer(timeout) and timeout >= 0

  defp option?(name, value) when name in [:mailbox_max, :lag_timeout_ms, :progress_interval_ms, :snapshot_page_size],
    do: is_integer(value) and value > 0

  defp option?(_name, _value), do: false
end
