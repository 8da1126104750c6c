defmodule Tank.Store.Projection do
  @moduledoc """
  Keeps an ETS table equal to a part of a store.

      children = [
        {Tank.Store.Projection,
         store_id: :app, pattern: [:pods], table: :pods_by_name, key: &List.last(&1.path), value: & &1.value}
      ]

  The process owns the table. It fills the table with a snapshot, and keeps it current with a watch. Rows are `{key, value}`,
  which your functions make from an entry. The functions run in the projection's process. Any process can read the table, for
  example with `:ets.lookup/2`.

  If `:key` or `:value` raises, throws or exits for an entry, the entry has no row. The projection logs this, counts it
  (`skipped/2`), and continues. The entry gets a row with the next change for which the functions return.

  The table lags behind the store by a moment; `await/3` waits until it has a revision. The table is never emptied. If the
  watch ends, because the history was compacted, a new history began (for example after a restore), or the store was opened
  again, the table stays unchanged until it can be compared with the store. Then only the differences are applied. While the
  store is down, the projection tries again at growing intervals of up to a second.

      iex> dir = Path.join(System.tmp_dir!(), "projection_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, store} = Tank.Store.Cluster.start(dir, :projection_doc)
      iex> {:ok, pid} = Tank.Store.Projection.start_link(store_id: store, pattern: [:pods], table: :projection_doc)
      iex> :ets.tab2list(:projection_doc)
      []
      iex> Tank.Store.Projection.await(pid, 0)
      :ok
      iex> GenServer.stop(pid)
      :ok
      iex> Tank.Store.Cluster.stop(store)
      :ok
      iex> File.rm_rf!(dir) |> is_list()
      true
  """

  use GenServer
  use Tank.Store.HideState, show: [:store, :pattern, :table, :favor, :revision, :retry_ms]

  alias Tank.Store.{Cluster, Deadline, Entry, Log, Options, Path, Pattern, ProcessCall, Watch}

  @retry_ms 10
  @retry_max_ms 1_000
  @load_timeout 5_000

  @names [:store_id, :store, :pattern, :table, :key, :value, :name, :favor, :timeout, :ets]

  @type option ::
          {:store_id, atom}
          | {:pattern, Path.t() | Pattern.t()}
          | {:table, atom}
          | {:key, (Entry.t() -> term)}
          | {:value, (Entry.t() -> term)}
          | {:name, GenServer.name()}
          | {:favor, :consistency | :low_latency}
          | {:timeout, timeout}
          | {:ets, [term]}

  @doc """
  The child specification of a projection. Its id is `{Tank.Store.Projection, table}`.

      iex> Tank.Store.Projection.child_spec(store_id: :app, table: :pods_by_name).id
      {Tank.Store.Projection, :pods_by_name}
  """
  @spec child_spec([option]) :: Supervisor.child_spec()
  def child_spec(opts),
    do: %{id: {__MODULE__, opts[:table]}, start: {__MODULE__, :start_link, [opts]}, type: :worker}

  @doc """
  Starts a projection. Returns once the table is filled, or after `:timeout` if the store cannot be read.

  Options:

    * `:store_id` - the store's id; the default is `Tank.Store.Cluster.get_default_store_id/0`. `:store` is the same option
    * `:table` - the name of the table, which must not exist; required
    * `:pattern` - the path at or below which the entries are, or the pattern that they match
      (`Tank.Store.Pattern`, "Of what changes"); all entries by default. A row is removed when its entry no longer matches
    * `:key`, `:value` - functions of a `Tank.Store.Entry`; the defaults return its path and its value. Keys must be unique.
      In an entry that comes from a change, `child_count` is nil
    * `:name` - registers the process
    * `:favor` - how the snapshot is read, see `Tank.Store.Watch.start/3`; `:low_latency` also works without a majority
    * `:timeout` - milliseconds until the table must be filled, 5,000 by default
    * `:ets` - more options of the table, such as `:ordered_set` or `:compressed`. Each key has one row, which is a pair, so
      `:bag`, `:duplicate_bag`, `:private` and a `:keypos` other than 1 are refused

  Raises `ArgumentError` for an invalid option. Returns `{:error, {:invalid_pattern, why}}` if a change does not show whether
  its entry matches the pattern.

      iex> Tank.Store.Projection.start_link(store_id: :app, tabel: :pods_by_name)
      ** (ArgumentError) unknown option :tabel, did you mean :table?
  """
  @spec start_link([option]) :: GenServer.on_start()
  def start_link(opts) do
    :ok = Options.known!(opts, @names)
    opts = Keyword.put(opts, :store, Options.store_id!(opts, Cluster.get_default_store_id()))
    _timeout = opts |> Keyword.get(:timeout, @load_timeout) |> Options.timeout!()

    if not is_atom(opts[:table]) or opts[:table] == nil,
      do: raise(ArgumentError, "option :table must be an atom, got: #{inspect(opts[:table])}")

    with {:error, {kind, why}} when kind in [:invalid_path, :invalid_pattern] <-
           Pattern.prefix_or_pattern(opts[:pattern] || []) do
      raise ArgumentError, "option :pattern: #{why}"
    end

    for option <- Keyword.get(opts, :ets, []), refused?(option) do
      raise ArgumentError,
            "option :ets cannot have #{inspect(option)}: a key has one row, {key, value}, for all readers"
    end

    GenServer.start_link(__MODULE__, opts, Keyword.take(opts, [:name]))
  end

  defp refused?({:keypos, position}), do: position != 1
  defp refused?(option), do: option in [:bag, :duplicate_bag, :private]

  @doc """
  Returns the number of entries without a row, because `:key` or `:value` failed for them.

      iex> Tank.Store.Projection.skipped(:no_projection)
      {:error, :noproc}
  """
  @spec skipped(GenServer.server(), timeout) :: {:ok, non_neg_integer} | {:error, :timeout | :noproc}
  def skipped(projection, timeout \\ 5_000),
    do: ProcessCall.call(projection, :skipped, Deadline.bounded(timeout))

  @doc """
  Waits until the table has all changes up to `revision`.

  Errors: `:timeout` after `timeout` milliseconds, 5,000 by default; `:noproc` if the projection does not run.

      iex> Tank.Store.Projection.await(:no_projection, 1, 100)
      {:error, :noproc}
  """
  @spec await(GenServer.server(), non_neg_integer, timeout) :: :ok | {:error, :timeout | :noproc}
  def await(projection, revision, timeout \\ 5_000) when is_integer(revision) and revision >= 0 do
    timeout = Deadline.bounded(timeout)
    ProcessCall.call(projection, {:await, revision, timeout}, timeout)
  end

  @impl true
  def init(opts) do
    table = :ets.new(opts[:table], [:named_table, :protected, read_concurrency: true] ++ Keyword.get(opts, :ets, []))

    state = %{
      store: opts[:store],
      pattern: opts[:pattern] || [],
      favor: opts[:favor] || :consistency,
      key: opts[:key] || (& &1.path),
      value: opts[:value] || (& &1.value),
      table: table,
      # The key of each entry in the table, by its path: an entry that is gone has none any more. `:skipped` for one
      # without a row.
      keys: %{},
      # While a snapshot comes: the same, of what has come.
      loading: nil,
      watch: nil,
      ref: nil,
      # Up to where the table is current; -1: nothing is known.
      revision: -1,
      waiting: [],
      retry_ms: @retry_ms
    }

    deadline = opts |> Keyword.get(:timeout, @load_timeout) |> Deadline.in_ms()
    {:ok, state |> begin(:snapshot) |> load(deadline)}
  end

  @impl true
  def handle_call(:skipped, _from, state) do
    {:reply, {:ok, Enum.count(state.loading || state.keys, &match?({_path, :skipped}, &1))}, state}
  end

  def handle_call({:await, revision, _timeout}, _from, %{revision: current} = state) when current >= revision,
    do: {:reply, :ok, state}

  def handle_call({:await, revision, timeout}, from, state) do
    Process.send_after(self(), {:gave_up, from}, timeout)
    if state.watch, do: Watch.report_at(state.watch, revision)
    {:noreply, %{state | waiting: [{revision, from} | state.waiting]}}
  end

  @impl true
  def handle_info({:store_watch, ref, message}, %{ref: ref} = state), do: {:noreply, handle(message, state)}
  def handle_info(:retry, %{watch: nil} = state), do: {:noreply, begin(state, :snapshot)}

  def handle_info({:gave_up, from}, state),
    do: {:noreply, %{state | waiting: Enum.reject(state.waiting, fn {_revision, other} -> other == from end)}}

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, %{watch: %{pid: pid}} = state) do
    # It was killed: its last message, if there was one, would have come before.
    {:noreply, begin(%{state | watch: nil, ref: nil, loading: nil}, :snapshot)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # -- The watch

  # From scratch: the store may hold something else by now, and count otherwise.
  defp begin(state, :snapshot), do: start_watch(%{state | loading: %{}, revision: -1}, :snapshot)
  defp begin(state, from), do: start_watch(state, from)

  defp start_watch(state, from) do
    case Watch.start(state.store, state.pattern, from: from, favor: state.favor, entries: true) do
      {:ok, watch} ->
        Process.monitor(watch.pid)
        for {revision, _from} <- state.waiting, do: Watch.report_at(watch, revision)
        %{state | watch: watch, ref: watch.ref}

      {:error, {:compacted, _min}} ->
        begin(state, :snapshot)

      # That will not change.
      {:error, {kind, _why} = reason} when kind in [:invalid_path, :invalid_pattern] ->
        exit(reason)

      {:error, _down} ->
        Process.send_after(self(), :retry, state.retry_ms)
        %{state | watch: nil, ref: nil, retry_ms: min(2 * state.retry_ms, @retry_max_ms)}
    end
  end

  # Before `start_link` returns.
  defp load(%{revision: revision} = state, _deadline) when revision >= 0, do: state

  defp load(%{ref: ref} = state, deadline) do
    receive do
      {:store_watch, ^ref, message} -> message |> handle(state) |> load(deadline)
      :retry -> state |> begin(:snapshot) |> load(deadline)
    after
      Deadline.remaining(deadline) -> state
    end
  end

  defp handle({:snapshot_part, entries}, state), do: add(state, entries)

  defp handle({:snapshot, entries, revision}, state) do
    state = add(state, entries)
    delete_others(state.table, state.loading)
    reached(%{state | keys: state.loading, loading: nil}, revision)
  end

  defp handle({:changes, revision, changes}, state) do
    written = for {_change, %Entry{} = entry} <- changes, into: %{}, do: {entry.path, write(entry, state)}
    old = for {%{path: path}, _entry} <- changes, {:ok, {:row, _key} = row} <- [Map.fetch(state.keys, path)], do: row
    # Last, and not what another entry has taken over: a reader finds one of the two.
    for {:row, key} <- old -- Map.values(written), do: :ets.delete(state.table, key)
    gone = for {%{path: path}, nil} <- changes, do: path
    reached(%{state | keys: state.keys |> Map.drop(gone) |> Map.merge(written)}, revision)
  end

  defp handle({kind, revision}, state) when kind in [:synced, :progress], do: reached(state, revision)

  # The history has what it did not take in time.
  defp handle({:cancelled, {:lagged, revision}}, %{loading: nil} = state),
    do: begin(ended(state), {:after, {state.watch.history, revision}})

  defp handle({:cancelled, _reason}, state), do: begin(ended(state), :snapshot)

  defp ended(state), do: %{state | watch: nil, ref: nil, loading: nil}

  # -- The table

  defp add(state, entries) do
    written = for entry <- entries, into: state.loading, do: {entry.path, write(entry, state)}
    %{state | loading: written}
  end

  # A row that is as it should be is left alone.
  defp write(entry, state) do
    with {:ok, {key, _value} = row} <- row(entry, state) do
      if :ets.lookup(state.table, key) != [row], do: :ets.insert(state.table, row)
      {:row, key}
    end
  end

  # The functions are the user's: they may fail in any way, and what fails for one entry must not take the others along.
  defp row(entry, state) do
    {:ok, {state.key.(entry), state.value.(entry)}}
  catch
    kind, reason ->
      Log.log(state.store, :error, :projection, fn ->
        "projection #{inspect(state.table)}: no row for the entry at #{inspect(entry.path)}: " <>
          Exception.format(kind, reason, __STACKTRACE__)
      end)

      :skipped
  end

  # What the store does not have any more, whenever it came into the table.
  defp delete_others(table, keys) do
    kept = for {_path, {:row, key}} <- keys, into: MapSet.new(), do: key
    held = :ets.select(table, [{{:"$1", :_}, [], [:"$1"]}])
    for key <- held, key not in kept, do: :ets.delete(table, key)
  end

  defp reached(state, revision) do
    {reached, waiting} = Enum.split_with(state.waiting, fn {wanted, _from} -> wanted <= revision end)
    for {_wanted, from} <- reached, do: GenServer.reply(from, :ok)
    for {wanted, _from} <- waiting, state.watch, do: Watch.report_at(state.watch, wanted)
    %{state | revision: revision, waiting: waiting, retry_ms: @retry_ms}
  end
end
