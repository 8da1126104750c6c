defmodule Tank.Store.IEx do
  @moduledoc """
  Shows a store in `iex`, also in a release's `bin/app remote`.

      import Tank.Store.IEx
      tree(:app, [:users])
      # [:users]
      # ├── "ann" = %{role: :admin}
      # └── "bob" (2 children)
      watch(:app, [:users])

  The output is bounded: values are cut, and only the first children of a node are shown.
  """

  alias Tank.Store.{Cluster, Error, Path, StatusText, Tree, Watch}

  @value [limit: 12, printable_limit: 60, width: 100]

  @doc """
  Prints the nodes below a path, as this member knows them.

  Options: `:depth`, the number of levels, 2 by default; `:limit`, the number of children per node, 50 by default.
  """
  @spec tree(atom, Path.t(), keyword) :: :ok
  def tree(store, path \\ [], opts \\ []) do
    opts = Tank.Store.Options.with_defaults!(opts, depth: 2, limit: 50)
    IO.puts(inspect(path) <> value_at(store, path))
    children(store, path, "", opts[:depth], opts[:limit])
  end

  @doc "Prints the status of a store, or of all stores of this node."
  @spec status(atom | nil) :: :ok
  def status(store \\ nil) do
    for store <- if(store, do: [store], else: Cluster.get_store_ids()),
        do: IO.puts(StatusText.render(store, Cluster.status(store)))

    :ok
  end

  @doc """
  Prints changes below a path, or of entries that match a pattern. Returns a process that does this until `unwatch/1`.

      iex> {:ok, pid} = Tank.Store.IEx.watch(:tank, [:iex])
      iex> Tank.Store.IEx.unwatch(pid)
      :ok
  """
  @spec watch(atom, Path.t() | Tank.Store.Pattern.t()) :: {:ok, pid} | {:error, term}
  def watch(store, pattern \\ []),
    do: Watch.start_link(store_id: store, pattern: pattern, from: :now, handler: {__MODULE__, :print, []})

  @doc "Ends a `watch/2`."
  @spec unwatch(pid) :: :ok
  def unwatch(pid), do: GenServer.stop(pid)

  @doc false
  def print({:changes, revision, changes}) do
    for change <- changes, do: IO.puts("#{revision} #{change.type} #{inspect(change.path)}#{changed(change)}")
  end

  def print({:cancelled, reason}), do: IO.puts("changes were missed: #{inspect(reason)}")
  def print(_other), do: :ok

  defp changed(%{type: type}) when type in [:deleted, :expired], do: ""
  defp changed(%{value: value}), do: " = " <> inspect(value, @value)

  defp value_at(store, path) do
    case Tree.get(store, path, favor: :low_latency) do
      {:ok, value} -> " = " <> inspect(value, @value)
      {:error, :not_found} -> ""
      {:error, reason} -> raise Error, reason
    end
  end

  defp children(_store, _path, _indent, 0, _limit), do: :ok

  defp children(store, path, indent, depth, limit) do
    {:ok, nodes, _revision} = Tree.list(store, path, nodes: :all, limit: limit + 1, favor: :low_latency)
    {shown, more} = Enum.split(nodes, limit)

    for {node, i} <- Enum.with_index(shown, 1) do
      last? = i == length(shown) and more == []
      IO.puts(indent <> if(last?, do: "└── ", else: "├── ") <> line(node, depth))

      if node.child_count > 0,
        do: children(store, node.path, indent <> if(last?, do: "    ", else: "│   "), depth - 1, limit)
    end

    if more != [], do: IO.puts(indent <> "└── ... more")
    :ok
  end

  defp line(node, depth) do
    inspect(List.last(node.path)) <>
      value(node) <> if(depth == 1 and node.child_count > 0, do: " (#{node.child_count} children)", else: "")
  end

  # A node without a value has no version of one.
  defp value(%{version: version} = node) when is_integer(version) and version > 0,
    do: " = " <> inspect(node.value, @value)

  defp value(_bare), do: ""
end
