defmodule Tank.Store.View do
  @moduledoc false
  # A handle on the store at one revision, and the reads of it. Reads of one view agree with each other.

  alias Tank.Store.{Call, Entry, Error, Native, Running}

  @everything 0x7FFF_FFFF_FFFF_FFFF

  @type t :: Native.view()

  @doc "The store now: with every write that was acknowledged before, or, for `:low_latency`, as this member knows it."
  @spec take(atom, :consistency | :low_latency, timeout) :: {:ok, t} | {:error, Error.reason()}
  def take(store_id, favor, timeout) do
    with {:ok, store} <- fetch(store_id, favor) do
      case Native.view(store, favor == :consistency) do
        {:ok, view} -> {:ok, view}
        :wait -> take_when_readable(store_id, store, timeout)
        {:error, reason} -> {:error, Error.public(reason)}
      end
    end
  end

  @spec entry(t, binary) :: {:ok, Entry.t()} | {:error, Error.reason()}
  def entry(view, key) do
    case dirty(&Native.entry/2, &Native.entry_large/2, [view, key]) do
      {:ok, entry} -> {:ok, Entry.new(entry)}
      :not_found -> {:error, :not_found}
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end

  @doc "The node at a path, with a value or without, as the Rust library gives it. There always is a root."
  @spec node(t, binary) :: {:ok, Native.tree_node()} | {:error, Error.reason()}
  def node(view, key) do
    case dirty(&Native.node_info/2, &Native.node_info_large/2, [view, key]) do
      :not_found -> {:error, :not_found}
      found -> result(found)
    end
  end

  @doc "Nodes below `prefix`, with a value or without; `range` is that of `list/3`."
  @spec list_nodes(t, binary, map) :: {:ok, [Native.tree_node()]} | {:error, Error.reason()}
  def list_nodes(view, prefix, range) do
    arguments = [view, prefix, range.after, number(range.limit), number(range.depth), range.reverse]
    result(dirty(&Native.list_nodes/6, &Native.list_nodes_large/6, arguments))
  end

  @doc "Entries below `prefix`; `range` has `:after` (a key or nil), `:limit`, `:depth`, `:reverse` and `:keys_only`."
  @spec list(t, binary, map) :: {:ok, [Entry.t()]} | {:error, Error.reason()}
  def list(view, prefix, range) do
    arguments = [
      view,
      prefix,
      range.after,
      number(range.limit),
      number(range.depth),
      range.reverse,
      range.keys_only
    ]

    with {:ok, entries} <- result(dirty(&Native.list/7, &Native.list_large/7, arguments)),
         do: {:ok, Enum.map(entries, &Entry.new/1)}
  end

  @doc "What an encoded pattern matches: `:count`, or `:keys`, `:values`, `:entries` or `:nodes` behind the key `after_key`."
  @spec select(t, [tuple], :count | :keys | :values | :entries | :nodes, binary | nil, non_neg_integer | :infinity) ::
          {:ok, non_neg_integer | list} | {:error, Error.reason()}
  def select(view, pattern, what, after_key \\ nil, limit \\ :infinity) do
    arguments = [view, pattern, what, after_key, number(limit)]
    result(dirty(&Native.select/5, &Native.select_large/5, arguments))
  end

  @doc "The values of all nodes that an encoded pattern matches, by path, but for those at and below the key `except`."
  @spec values_by_path(t, [tuple], binary, term) :: {:ok, map} | {:error, Error.reason()}
  def values_by_path(view, pattern, except, default),
    do: result(dirty(&Native.values_by_path/4, &Native.values_by_path_large/4, [view, pattern, except, default]))

  @doc "The matches of a pattern, page by page, as they are asked for: `:entries` or `:nodes`."
  @spec stream(t, [tuple], pos_integer, :entries | :nodes) :: Enumerable.t()
  def stream(view, pattern, page, what) do
    Stream.resource(fn -> nil end, &next_page(view, pattern, page, what, &1), fn _after -> :ok end)
  end

  @doc "The view as an operation of a transaction would leave it, and what that gives."
  @spec with_op(t, tuple) :: {:ok, t, tuple} | {:error, Error.reason()}
  def with_op(view, op), do: result(with(:dirty <- with_little(view, op), do: Native.view_with_large(view, op)))

  defp with_little(view, op) when elem(op, 0) == :put and byte_size(elem(op, 2)) < 65_536,
    do: Native.view_with(view, op)

  defp with_little(view, {:clear, _key} = op), do: Native.view_with(view, op)
  defp with_little(_view, _op), do: :dirty

  defp fetch(store_id, :consistency), do: Running.fetch(store_id)

  defp fetch(store_id, :low_latency),
    do: with({:ok, store, _cache} <- Running.fetch_to_read(store_id), do: {:ok, store})

  defp take_when_readable(store_id, store, timeout) do
    with :ok <- Call.await_readable(store_id, store, timeout), do: result(Native.view(store, false))
  end

  defp next_page(_view, _pattern, _page, _what, :over), do: {:halt, :over}

  defp next_page(view, pattern, page, what, after_key) do
    made = if what == :nodes, do: &Entry.of_node/1, else: &Entry.new/1

    case select(view, pattern, what, after_key, page) do
      {:ok, []} -> {:halt, :over}
      {:ok, entries} -> {Enum.map(entries, made), behind(entries, page)}
      {:error, reason} -> raise Error, reason
    end
  end

  defp behind(entries, page) when length(entries) < page, do: :over

  defp behind(entries, _page) do
    entries |> List.last() |> elem(0) |> Tank.Store.Path.to_stored_key()
  end

  # A read that would hold up a normal scheduler says so, and is made on a dirty one.
  defp dirty(read, read_large, arguments) do
    with :dirty <- apply(read, arguments), do: apply(read_large, arguments)
  end

  defp result({:error, reason}), do: {:error, Error.public(reason)}
  defp result({:ok, _value} = ok), do: ok
  defp result({:ok, _view, _response} = ok), do: ok
  defp result(value), do: {:ok, value}

  defp number(:infinity), do: @everything
  defp number(n) when is_integer(n), do: min(n, @everything)
end
