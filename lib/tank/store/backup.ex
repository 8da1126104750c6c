defmodule Tank.Store.Backup do
  @moduledoc """
  Backups, and files to carry entries from one store to another.

  | | writes or reads | use it |
  |---|---|---|
  | `create/3`, `restore/3` | one file, checksummed, of everything: entries with their revisions and history, leases | against loss |
  | `export/3`, `import/3` | a text, one line for each entry | to look at, to edit, to merge into another store |
  | `import_khepri/3` | what `khepri:export/3` wrote | to move from Khepri |

  Each has a mix task that shows how far it is: `mix tank.backup`, `mix tank.restore`, `mix tank.export`,
  `mix tank.import`.

      iex> dir = Path.join(System.tmp_dir!(), "backup_doc_#{System.unique_integer([:positive])}")
      iex> File.mkdir_p!(dir)
      iex> {:ok, %{entries: _}} = Tank.Store.Backup.create(:tank, Path.join(dir, "tank.backup"))
      iex> {:ok, %{revision: _}} = Tank.Store.Backup.restore(Path.join(dir, "tank.backup"), Path.join(dir, "store"))
      iex> File.rm_rf!(dir) |> is_list()
      true

  ## Options

  All functions take

    * `:progress` - a function that is called now and then, and at the end, with what is done and all there is to do:
      bytes, or entries for exports and imports. Or `{pid, tag}`: then `pid` is sent `{tag, done, total}`
    * `:timeout` - milliseconds that one step may take, such as one write of an import; 5,000 unless given. The whole
      takes as long as it takes.

  Files are of the node that the function runs on. A file that cannot be read or written gives
  `{:error, {:file, path}}`, a full disk `{:error, :disk_full}`; the store lives on. What exists under a file's name
  is replaced when the new one is whole; of several that are written to one name at once, the last one stays.
  """

  alias Tank.Store.{Call, Error, Identity, LongCall, Native, Options, Running, Telemetry}
  alias Tank.Store.Backup.{Export, Import, Khepri}

  @timeout 5_000
  @poll_ms 100

  @type about :: %{
          store_id: String.t(),
          revision: non_neg_integer,
          entries: non_neg_integer,
          digest: non_neg_integer,
          time_ms: pos_integer,
          history: Tank.Store.Tree.history() | nil
        }
  @type progress :: (non_neg_integer, non_neg_integer -> term) | {pid, term}
  @type options :: [progress: progress, timeout: timeout]

  @doc """
  Writes a backup of a store to the file `path`, while writes go on.

  It holds every write that was acknowledged before the call, and is the state at one revision, which it returns with
  the number of entries.

      iex> file = Path.join(System.tmp_dir!(), "create_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, %{store_id: "tank", revision: _, entries: _}} = Tank.Store.Backup.create(:tank, file)
      iex> File.rm(file)
      :ok
      iex> Tank.Store.Backup.create(:tank, "/nowhere/backup")
      {:error, {:file, "/nowhere/backup"}}
  """
  @spec create(atom, Path.t(), options) :: {:ok, about} | {:error, Error.reason()}
  def create(store, path, opts \\ []) when is_atom(store) do
    opts = options!(opts)
    tell(:create, store, fn -> write(store, path, opts) end)
  end

  defp write(store, path, opts) do
    with {:ok, native} <- Running.fetch(store), :ok <- Call.await_readable(native, opts[:timeout]) do
      path = Path.expand(path)
      work(opts, &LongCall.backup(native, path, &1))
    end
  end

  @doc """
  Makes `data_dir` a store that holds what the backup in the file `path` holds.

  The directory must be missing or empty (`{:error, {:not_empty, path}}`). The new store is the only member of a new
  cluster, whatever the backup was taken of; start it with `Tank.Store.Cluster.start/2`, or, when it is that of the
  pods, with `Tank.Store`, and let others join it. Its id is the one that the backup names, unless `:store_id` is given.

  It begins another history: clients may have seen what was written after the backup. So its revisions and lease epochs go
  on above all that anybody can have seen, and everything before is compacted: watches and
  `Tank.Store.Tree.list_since/4` answer `{:compacted, min}` to positions of before. `Tank.Store.Syncer` and
  `Tank.Store.Projection` list again by themselves. Entries keep their revisions. Nobody can renew a lease that was held
  or write with it, since another one may have got it after the backup; it is free when its whole time has passed from the
  start on, and what was put with it goes then.

  A damaged backup gives `{:error, {:corrupt, :backup}}` before anything is made. It is read twice.

      iex> Tank.Store.Backup.restore("/nowhere/backup", "/nowhere/store")
      {:error, {:file, "/nowhere/backup"}}
  """
  @spec restore(Path.t(), Path.t(), [{:store_id, atom} | {:progress, progress} | {:timeout, timeout}]) ::
          {:ok, about} | {:error, Error.reason()}
  def restore(path, data_dir, opts \\ []) do
    {store_id, opts} = opts |> options!(store_id: nil) |> Keyword.pop(:store_id)
    {path, dir} = {Path.expand(path), Path.expand(data_dir)}

    tell(:restore, nil, fn ->
      with {:ok, about} <- work(opts, &LongCall.restore(path, dir, store_id && Atom.to_string(store_id), &1)) do
        Identity.forget_dir(dir)
        {:ok, about}
      end
    end)
  end

  @doc """
  Writes all entries of a store to the file `path`, a line for each.

  A line is `{Path, Value}.` in Erlang's text, or `{Path, etf, <<"...">>}.`, the Base64 of the external term format, for a
  value that has no text, such as a pid, for one of more than 64 KB, and for one with a binary of more than 64 bytes that
  is not text. The lines are sorted by path, and of one revision, which is returned
  with the number of entries. Behind them come `{node, Path}.` for nodes without a value that stay, `{kind, Path, 2}.` for
  stored procedures of `Tank.Khepri`, and `{keep_while, Path, <<"...">>}.` for the conditions that keep nodes
  (`Tank.Store.Tree.put_node/3`, `keep_while/3`). Entries that go with a lease are left out (`skipped`): without it, they would
  stay for good. Versions of values are left out, too: they begin again.

      iex> file = Path.join(System.tmp_dir!(), "export_doc_#{System.unique_integer([:positive])}")
      iex> {:ok, %{revision: _, entries: _, skipped: 0}} = Tank.Store.Backup.export(:tank, file)
      iex> File.rm(file)
      :ok
  """
  @spec export(atom, Path.t(), options) ::
          {:ok, %{revision: non_neg_integer, entries: non_neg_integer, skipped: non_neg_integer}}
          | {:error, Error.reason()}
  def export(store, path, opts \\ []) when is_atom(store) do
    opts = options!(opts)
    tell(:export, store, fn -> write_text(store, path, opts) end)
  end

  defp write_text(store, path, opts) do
    with {:ok, native} <- Running.fetch(store), :ok <- Call.await_readable(native, opts[:timeout]) do
      case Native.pin(native) do
        {:ok, pinned, revision, count} -> Export.run(pinned, revision, count, Path.expand(path), opts[:progress])
        {:error, reason} -> {:error, Error.public(reason)}
      end
    end
  end

  @doc """
  Puts the entries of a file that `export/3` wrote into a store, over those that are there under the same paths.

  The whole file is checked first, and nothing is written unless all of it is right: `{:error, {:malformed, line}}`, also
  when its end is missing, `{:error, {:invalid_value, line, path}}` for a value that does not decode,
  `{:error, {:too_large, what, limit}}` for a path or a value over the store's limits. Then
  some hundred entries at a time are written at one revision each; after another error, some are in the store. The atoms
  in the file become atoms of this VM: import what you trust.

  With `replace: true` all that the store holds is deleted before, and it begins another history, as after a restore
  (`restore/3`): the entries do not go on from what clients have seen. Until the import ends, readers see a part of them.

      iex> file = Path.join(System.tmp_dir!(), "import_doc_#{System.unique_integer([:positive])}")
      iex> File.write!(file, "%% tank_store export, format 2\\n{[doc,<<\\"a\\">>],{1,two}}.\\n%% end\\n")
      :ok
      iex> {:ok, %{entries: 1}} = Tank.Store.Backup.import(:tank, file)
      iex> Tank.Store.get_at([:doc, "a"])
      {:ok, {1, :two}}
      iex> {Tank.Store.delete_at([:doc]), File.rm(file)}
      {:ok, :ok}
  """
  @spec import(atom, Path.t(), [{:replace, boolean} | {:progress, progress} | {:timeout, timeout}]) ::
          {:ok, %{entries: non_neg_integer}} | {:error, Error.reason()}
  def import(store, path, opts \\ []) when is_atom(store) do
    {replace?, opts} = opts |> options!(replace: false) |> Keyword.pop(:replace)
    tell(:import, store, fn -> Import.run(store, Export.Reader, Path.expand(path), replace?, opts) end)
  end

  @doc """
  Puts what Khepri's `khepri:export/3` wrote into a store: the text of `khepri_export_erlang`, or the stream of
  `mnesia_backup`, whichever the file is.

  Paths and values become entries as they are. Returns how many, and how much there was besides: nodes `without_value`,
  which exist here as long as something is below them, and `functions`, stored procedures, which have no place here;
  their conditions (`keep_while`) are left out too. Errors are those of `import/3`.

      iex> file = Path.join(System.tmp_dir!(), "khepri_doc_#{System.unique_integer([:positive])}")
      iex> File.write!(file, "{put,[stock,<<\\"wood\\">>],{p_data,100},\\\#{}}.\\n")
      :ok
      iex> Tank.Store.Backup.import_khepri(:tank, file)
      {:ok, %{entries: 1, without_value: 0, functions: 0}}
      iex> Tank.Store.get_at([:stock, "wood"])
      {:ok, 100}
      iex> {Tank.Store.delete_at([:stock]), File.rm(file)}
      {:ok, :ok}
  """
  @spec import_khepri(atom, Path.t(), options) ::
          {:ok, %{entries: non_neg_integer, without_value: non_neg_integer, functions: non_neg_integer}}
          | {:error, Error.reason()}
  def import_khepri(store, path, opts \\ []) when is_atom(store) do
    opts = options!(opts)
    tell(:import_khepri, store, fn -> Import.run(store, Khepri, Path.expand(path), false, opts) end)
  end

  defp tell(kind, store, fun) do
    began = System.monotonic_time()
    result = fun.()
    outcome = with {:ok, _about} <- result, do: :ok
    metadata = %{store_id: store, kind: kind, result: with({:error, reason} <- outcome, do: reason)}
    Telemetry.execute([:backup, :stop], %{duration: System.monotonic_time() - began}, metadata)
    result
  end

  defp options!(opts, more \\ []) do
    opts
    |> Options.with_defaults!([timeout: @timeout, progress: fn _done, _total -> :ok end] ++ more)
    |> Keyword.update!(:progress, &progress/1)
  end

  defp progress(fun) when is_function(fun, 2), do: fun
  defp progress({pid, tag}) when is_pid(pid), do: fn done, total -> send(pid, {tag, done, total}) end

  # The library works on a thread of its own, which another process waits for. That one is not linked: a caller that traps
  # exits would find its end in the mailbox.
  defp work(opts, fun) do
    work = Native.progress()
    {worker, monitor} = spawn_monitor(fn -> exit({:worked, fun.(work)}) end)
    cancel_without(self(), worker, work)

    try do
      await(monitor, work, opts[:progress])
    after
      # For a progress function that raised.
      Process.demonitor(monitor, [:flush])
      Native.cancel_progress(work)
    end
  end

  defp await(monitor, work, progress) do
    receive do
      {:DOWN, ^monitor, :process, _worker, {:worked, {:ok, about}}} ->
        {_done, total} = Native.progress_of(work)
        progress.(total, total)
        {:ok, about}

      {:DOWN, ^monitor, :process, _worker, {:worked, {:error, reason}}} ->
        {:error, Error.public(reason)}

      # The worker was killed, or the library raised, which was logged.
      {:DOWN, ^monitor, :process, _worker, _crash} ->
        {:error, :engine_failed}
    after
      @poll_ms ->
        {done, total} = Native.progress_of(work)
        progress.(done, total)
        await(monitor, work, progress)
    end
  end

  # Nobody wants the result of a caller that died.
  defp cancel_without(caller, worker, work) do
    spawn(fn ->
      [of_caller, of_worker] = for pid <- [caller, worker], do: Process.monitor(pid)

      receive do
        {:DOWN, ^of_caller, :process, ^caller, _reason} -> Native.cancel_progress(work)
        {:DOWN, ^of_worker, :process, ^worker, _reason} -> :ok
      end
    end)
  end
end
