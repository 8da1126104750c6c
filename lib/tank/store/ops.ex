defmodule Tank.Store.Ops do
  @moduledoc """
  Functions for operators, for use from a release, which has no mix tasks:

      bin/app rpc 'Tank.Store.Ops.status()'
      bin/app rpc 'Tank.Store.Ops.backup(:app, "/backups/app.backup")'
      bin/app rpc 'Tank.Store.Ops.remove_member(:app, :"app@10.0.0.3")'
      bin/app eval 'Tank.Store.Ops.restore("/backups/app.backup", "/var/lib/app")'

  Use `rpc`, which works on the running node, for all functions except `restore/3`, which creates a directory while the release
  does not run: use `eval` for it. Both have the cookie on their command line, unless the release was built with
  `Tank.Store.Release.hide_cookie/1`.

  Functions print what they do, their progress, and the result. They return `:ok`. On an error they raise `Tank.Store.Error`,
  whose message says what to do, and `rpc` and `eval` end with status 1.

  Files are on the node that runs the function. The option `:timeout` is in milliseconds, for one step.
  """

  alias Tank.Store.{Backup, Cluster, Error, Formation, Options, StatusText}

  @timeout 10_000

  @doc """
  Prints the status of a store, or of all stores of this node. Raises if one of them has no quorum.
  """
  @spec status(atom | nil) :: :ok
  def status(store \\ nil) do
    stores = if store, do: [store], else: Enum.uniq(Cluster.get_store_ids() ++ Formation.forming_ids())
    if stores == [], do: IO.puts("no store runs on #{node()}")

    failures =
      for store <- stores, answer = Cluster.status(store), reduce: [] do
        failures ->
          IO.puts(StatusText.render(store, answer))
          failures ++ failure(answer)
      end

    with [reason | _more] <- failures, do: raise(Error, reason)
    :ok
  end

  defp failure({:ok, %{quorum: true}}), do: []
  defp failure({:ok, _status}), do: [:no_quorum]
  defp failure({:error, reason}), do: [reason]

  @doc """
  Prints the members of a store's cluster, one per line. With `favor: :low_latency` it needs no majority.

      iex> Tank.Store.Ops.members(:never_started)
      ** (Tank.Store.Error) the store is not running
  """
  @spec members(atom, keyword) :: :ok
  def members(store, opts \\ []) do
    opts = Options.with_defaults!(opts, favor: :consistency, timeout: @timeout)
    for {_store_id, node} <- ok!(Cluster.members(store, opts)), do: IO.puts(node)
    :ok
  end

  @doc "Writes a backup of a store, see `Tank.Store.Backup.create/3`."
  @spec backup(atom, Path.t(), keyword) :: :ok
  def backup(store, file, opts \\ []), do: run("backup", opts, &Backup.create(store, file, &1))

  @doc "Restores a backup into a directory, see `Tank.Store.Backup.restore/3`."
  @spec restore(Path.t(), Path.t(), keyword) :: :ok
  def restore(file, data_dir, opts \\ []) do
    # With `eval`, nothing is started.
    {:ok, _started} = Application.ensure_all_started(:tank_store)
    run("restore", opts, &Backup.restore(file, data_dir, &1))
  end

  @doc "Writes the entries of a store as text, see `Tank.Store.Backup.export/3`."
  @spec export(atom, Path.t(), keyword) :: :ok
  def export(store, file, opts \\ []), do: run("export", opts, &Backup.export(store, file, &1))

  @doc """
  Puts the entries of an export into a store, see `Tank.Store.Backup.import/3`; with `khepri: true`, those of an export of
  Khepri, see `Tank.Store.Backup.import_khepri/3`.
  """
  @spec import(atom, Path.t(), keyword) :: :ok
  def import(store, file, opts \\ []) do
    {khepri?, opts} = Keyword.pop(opts, :khepri, false)
    import = if khepri?, do: &Backup.import_khepri(store, file, &1), else: &Backup.import(store, file, &1)
    run("import", opts, import)
  end

  @doc "Removes the member on a node from its cluster, see `Tank.Store.Cluster.remove_member/3`."
  @spec remove_member(atom, node, keyword) :: :ok
  def remove_member(store, node, opts \\ []) do
    opts = Options.with_defaults!(opts, timeout: @timeout)
    ok!(Cluster.remove_member(store, node, opts[:timeout]))
    IO.puts("removed #{node} from #{inspect(store)}")
  end

  @doc "Makes this node's member the only member of a new cluster, see `Tank.Store.Cluster.force_new_cluster/2`."
  @spec force_new_cluster(atom, keyword) :: :ok
  def force_new_cluster(store, opts \\ []) do
    ok!(Cluster.force_new_cluster(store, opts))
    IO.puts("#{inspect(store)} of #{node()} is the only member of a new cluster")
  end

  defp run(what, opts, fun) do
    # The function is called by this process.
    progress = fn done, total -> show(what, percent(done, total)) end
    result = ok!(fun.(Keyword.put_new(opts, :progress, progress)))
    Process.delete(__MODULE__)
    IO.puts("#{what}: " <> Enum.map_join(Enum.sort(result), ", ", fn {key, value} -> "#{label(key)} #{value}" end))
  end

  # A line for each tenth: what reads it may be a file.
  defp show(what, percent) do
    tenth = div(percent, 10)

    if Process.put(__MODULE__, tenth) != tenth and tenth < 10,
      do: IO.puts("#{what}: #{tenth * 10} %"),
      else: :ok
  end

  defp percent(_done, 0), do: 0
  defp percent(done, total), do: min(div(done * 100, total), 100)

  defp label(key), do: key |> Atom.to_string() |> String.replace("_", " ")

  defp ok!(:ok), do: :ok
  defp ok!({:ok, value}), do: value
  defp ok!({:error, reason}), do: raise(Error, reason)
end
