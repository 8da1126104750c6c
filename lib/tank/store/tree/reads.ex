defmodule Tank.Store.Tree.Reads do
  @moduledoc false
  # Reads of `Tank.Store.Tree`, from a store or within a transaction: that notes what it relied on.

  import Tank.Store.Position, only: [is_position: 1]

  alias Tank.Store.{Entry, Error, LongCall, Native, Path, Pattern, Position, Running, Tx, View}
  alias Tank.Store.Tree.{KeepWhile, Options}

  @type store :: Tank.Store.Tree.store()
  @type error :: Tank.Store.Tree.error()

  @doc "The entry at a path."
  @spec entry(store, Path.t(), keyword) :: {:ok, Entry.t()} | error
  def entry(store, path, opts) do
    with {:ok, key} <- Path.to_key(path),
         {:ok, view} <- view(store, opts),
         :ok <- note(store, key, &Tx.note_value/2),
         do: View.entry(view, key)
  end

  @doc "The same, when a transaction will rely on how many children it has."
  @spec counted_entry(Tx.t(), Path.t(), keyword) :: {:ok, Entry.t()} | error
  def counted_entry(tx, path, opts) do
    with {:ok, key} <- Path.to_key(path), :ok <- Tx.note_child_count(tx, key), do: entry(tx, path, opts)
  end

  @doc "The node at a path, with a value or without."
  @spec node(store, Path.t(), keyword) :: {:ok, Entry.t()} | error
  def node(store, path, opts) do
    with {:ok, key} <- Path.to_key(path),
         {:ok, view} <- view(store, opts),
         :ok <- note(store, path, &Tx.note_node/2),
         {:ok, node} <- View.node(view, key),
         do: {:ok, Entry.of_node(node)}
  end

  @doc "The conditions that keep the node at a path."
  @spec keep_while(store, Path.t(), keyword) :: {:ok, KeepWhile.conditions()} | error
  def keep_while(store, path, opts) do
    with {:ok, key} <- Path.to_key(path),
         {:ok, view} <- view(store, opts),
         :ok <- note(store, path, &Tx.note_node/2),
         do: {:ok, KeepWhile.decode(Native.kept_by(view, key))}
  end

  @doc "The entry at a path as it was at a position."
  @spec past_entry(atom, Path.t(), Position.t()) :: {:ok, Entry.t()} | error
  def past_entry(store, path, position) when is_position(position) do
    with {:ok, key} <- Path.to_key(path), {:ok, store} <- Running.fetch(store) do
      case LongCall.entry_at(store, key, position) do
        {:ok, entry} -> {:ok, Entry.decode(entry)}
        :not_found -> {:error, :not_found}
        {:error, reason} -> {:error, Error.public(reason)}
      end
    end
  end

  @doc "Whether there is a node at a path, and the revision of its entry, 0 without one. Raises what cannot be known."
  @spec node!(store, Path.t(), keyword, (Tx.t(), binary -> :ok)) :: {boolean, non_neg_integer}
  def node!(store, path, opts, note) do
    with {:ok, key} <- Path.to_key(path),
         {:ok, view} <- view(store, opts),
         :ok <- note(store, key, note) do
      Native.node(view, key)
    else
      {:error, reason} -> raise Error, reason
    end
  end

  @doc "The entries of a range below a path."
  @spec list(store, Path.t(), keyword, map) :: {:ok, [Entry.t()], non_neg_integer} | error
  def list(store, prefix, opts, range) do
    with {:ok, key} <- Path.to_key(prefix),
         {:ok, after_key} <- after_key(range.after),
         {:ok, view} <- view(store, opts),
         :ok <- note(store, Pattern.below(prefix, levels(range)), facts(opts)),
         {:ok, entries} <- listed(view, key, %{range | after: after_key}, Options.all_nodes?(opts)) do
      {:ok, entries, revision(store, view)}
    end
  end

  defp levels(%{depth: 1}), do: :one
  defp levels(_deeper), do: :many

  defp facts(opts),
    do: if(Options.all_nodes?(opts), do: &Tx.note_matches(&1, &2, :nodes), else: &Tx.note_matches(&1, &2, :entries))

  defp listed(view, key, range, true) do
    with {:ok, nodes} <- View.list_nodes(view, key, range), do: {:ok, Enum.map(nodes, &listed_node(&1, range))}
  end

  defp listed(view, key, range, false), do: View.list(view, key, range)

  defp listed_node(node, %{keys_only: true}), do: %{Entry.of_node(node) | value: nil}
  defp listed_node(node, _range), do: Entry.of_node(node)

  @doc "A pattern as the Rust library takes it, and the view to look for its matches in."
  @spec scan(store, Pattern.t(), :paths | :payloads | :entries | :nodes, keyword) :: {:ok, [tuple], View.t()} | error
  def scan(store, pattern, facts, opts) do
    with {:ok, pattern} <- Pattern.encode(pattern),
         {:ok, view} <- view(store, opts),
         {:ok, _none} <- View.select(view, pattern, :keys, nil, 0),
         :ok <- note(store, pattern, &Tx.note_matches(&1, &2, facts)),
         do: {:ok, pattern, view}
  end

  @doc "The revision that was read; within a transaction, that of the view it began with."
  @spec revision(store, View.t()) :: non_neg_integer
  def revision(%Tx{} = tx, _view), do: Tx.revision(tx)
  def revision(_store, view), do: Native.view_revision(view)

  defp view(%Tx{} = tx, _opts), do: {:ok, Tx.view(tx)}
  defp view(store, opts), do: View.take(store, opts[:favor], opts[:timeout])

  defp note(%Tx{} = tx, what, note), do: note.(tx, what)
  defp note(_store, _what, _note), do: :ok

  defp after_key(nil), do: {:ok, nil}
  defp after_key(path), do: Path.to_key(path)
end
