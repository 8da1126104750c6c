defmodule Tank.Store.Backup do
  @moduledoc """
  Makes and restores backups, and exports and imports entries.

  | function | file | purpose |
  |---|---|---|
  | `create/3`, `restore/3` | one file with a checksum, with everything: entries with their revisions and history, leases | protection against loss |
  | `export/3`, `import/3` | text, one line per entry | reading, editing, merging into another store |
  | `import_khepri/3` | a file that `khepri:export/3` wrote | moving from Khepri |

  Each has a mix task that shows its progress: `mix tank.backup`, `mix tank.restore`, `mix tank.export`,
  `mix tank.import`.

      iex> dir = Path.join(System.tmp_dir!(), "backup_doc_#{System.unique_integer([:positive])}")
      iex> File.mkdir_p!(dir)
      iex> {:ok, %{entries: _}} = Tank.Store.Backup.create(:tank, Path.join(dir, "tank.backup"))
      iex> {:ok, %{revision: _}} = Tank.Store.Backup.restore(Path.join(dir, "tank.backup"), Path.join(dir, "store"))
      iex> File.rm_rf!(dir) |> is_list()
      true

  ## Options

  All functions take

    * `:progress` - a function that is called from time to time and at the end, with the amount done and the total: bytes, or
      entries for exports and imports. Or `{pid, tag}`, which sends `{tag, done, total}` to `pid`
    * `:timeout` - milliseconds for one step, such as one write of an import; 5,000 by default. The whole call has no limit

  Files are on the node that runs the function. If a file cannot be read or written, the error is `{:error, {:file, path}}`;
  on a full disk it is `{:error, :disk_full}`. The store continues. An existing file is replaced once the new one is complete.
  If several files are written under the same name at the same time, the last one stays.
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
  Writes a backup of a store to the file `path`. Writes to the store continue meanwhile.

  The backup is the state at one revision, and contains every write that was acknowledged before the call. Returns the revision
  and the number of entries.

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
  Restores the backup in the file `path` into the directory `data_dir`.

  The directory must be missing or empty (`{:error, {:not_empty, path}}`). The restored store is the only member of a new
  cluster, even if the backup is from a cluster of several members. Start it with `Tank.Store.Cluster.start/2` or with
  `Tank.Store`, and let others join it. Its id is the one in the backup, unless you give `:store_id`.

  The store begins a new history. Clients may have seen writes that were made after the backup, so new revisions and lease
  epochs are higher than all that clients can have seen, and all earlier revisions are compacted. Watches and
  `Tank.Store.Tree.list_since/4` return `{:compacted, min}` for earlier positions; `Tank.Store.Syncer` and
  `Tank.Store.Projection` list again by themselves. Entries keep their revisions. Holders cannot renew leases of the former
  history or write with them, because another holder may have acquired them after the backup. Such a lease is free, and its
  entries are deleted, once its whole time has passed since the start.

  If the backup is damaged, the error is `{:error, {:corrupt, :backup}}`, and nothing is created. The file is read twice.

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
  Writes all entries of a store to the file `path`, one line per entry.

  A line is `{Path, Value}.` as Erlang text. It is `{Path, etf, <<"...">>}.`, with the Base64 of the external term format, for
  a value that cannot be written as text, such as a pid, for a value of more than 64 KB, and for a value with a binary of more
  than 64 bytes that is not text. The lines are sorted by path, and all from one revision, which is returned with the number
  of entries. After them come `{node, Path}.` for nodes without a value that stay, `{kind, Path, 2}.` for
  stored procedures of `Tank.Khepri`, and `{keep_while, Path, <<"...">>}.` for the conditions that keep nodes
  (`Tank.Store.Tree.put_node/3`, `keep_while/3`). Entries that were put with a lease are left out (`skipped`), because without
  the lease they would stay for ever. Versions of values are left out too; they start again.

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
  Puts the entries of a file that `export/3` wrote into a store, and overwrites entries with the same paths.

  The whole file is checked before anything is written. Errors are `{:error, {:malformed, line}}`, also if the end of the file
  is missing; `{:error, {:invalid_value, line, path}}` for a value that does not decode; and
  `{:error, {:too_large, what, limit}}` for a path or a value above the store's limits. Then a few hundred entries at a time
  are written at one revision each. After another error, a part of the entries is in the store. Atoms in the file become
  atoms of this VM: import only files that you trust.

  With `replace: true`, all data of the store is deleted first, and the store begins a new history, as after a restore
  (`restore/3`). Until the import ends, readers see a part of the entries.

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
  Puts the data of a file that Khepri's `khepri:export/3` wrote into a store. The file may be the text of
  `khepri_export_erlang` or the stream of `mnesia_backup`.

  Paths and values become entries unchanged. Returns the number of entries; the number of nodes `without_value`, which exist
  here only as long as they have children; and the number of stored procedures (`functions`), which are not imported.
  Conditions (`keep_while`) are not imported either. Errors are those of `import/3`.

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
