defmodule Tank.Store.Storm do
  @moduledoc """
  Writers of all kinds, on whatever node they are started: puts, transactions, deletions of subtrees and of what patterns
  match, and now and then a compaction of the history.
  """

  alias Tank.Store.Tree

  @groups ["a", "b", "c", "d"]
  @names ["u", "v", "w", "x", "y", "z"]
  # What a watch that resumes needs to find in the history.
  @kept 5_000

  @doc "Starts a writer, registered as `name`, that goes on until `stop/1`; one that compacts nothing if that is said."
  def start(name, store, opts \\ []) do
    kinds = if Keyword.get(opts, :compact, true), do: 100, else: 97

    spawn(fn ->
      Process.register(self(), name)
      write_on(store, kinds, %{})
    end)

    :ok
  end

  @doc "Ends a writer. Gives how often each kind of write was acknowledged."
  def stop(name) do
    ref = make_ref()
    send(name, {:stop, self(), ref})
    receive do: ({^ref, counts} -> counts)
  end

  defp write_on(store, kinds, counts) do
    receive do
      {:stop, pid, ref} -> send(pid, {ref, counts})
    after
      0 ->
        kind = kind(:rand.uniform(kinds))

        case write(kind, store) do
          # No leader for now, or its answer was lost with it.
          {:error, _reason} -> write_on(store, kinds, counts)
          _done -> write_on(store, kinds, Map.update(counts, kind, 1, &(&1 + 1)))
        end
    end
  end

  defp kind(n) when n <= 50, do: :put
  defp kind(n) when n <= 65, do: :txn
  defp kind(n) when n <= 80, do: :transaction
  defp kind(n) when n <= 88, do: :delete
  defp kind(n) when n <= 94, do: :put_many
  defp kind(n) when n <= 97, do: :delete_many
  defp kind(_n), do: :compact

  defp write(:put, store), do: Tree.put(store, path(), value())
  defp write(:delete, store), do: Tree.delete(store, [:storm, Enum.random(@groups)])
  defp write(:put_many, store), do: Tree.put_many(store, [:storm, Enum.random(@groups), :*], value())
  defp write(:delete_many, store), do: Tree.delete_many(store, [:storm, :*, Enum.random(@names)])

  defp write(:txn, store) do
    puts = for _ <- 1..4, do: {:put, path(), value()}
    Tree.txn(store, [{:exists, path(), :==, true}], puts ++ [{:delete, path()}], Enum.take(puts, 1))
  end

  defp write(:transaction, store) do
    Tree.transaction(store, fn tx ->
      {entries, _revision} = Tree.list!(tx, [:storm, Enum.random(@groups)])
      for entry <- Enum.take(entries, 2), do: Tree.put!(tx, entry.path, {entry.version, value()})
      Tree.put!(tx, path(), length(entries))
    end)
  end

  defp write(:compact, store) do
    with {:ok, status} <- Tank.Store.Cluster.status(store),
         do: Tree.compact(store, max(status.revision - @kept, 0))
  end

  defp path, do: [:storm, Enum.random(@groups), Enum.random(@names)]
  defp value, do: :rand.uniform(1_000_000)
end
