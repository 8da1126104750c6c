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
        :wait -> take_when_readable(store, timeout)
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

  @doc "What an encoded pattern matches: `:count`, or `:keys`, `:values` or `:entries` behind the key `after_key`."
  @spec select(t, [tuple], :count | :keys | :values | :entries, binary | nil, non_neg_integer | :infinity) ::
          {:ok, non_neg_integer | list} | {:error, Error.reason()}
  def select(view, pattern, what, after_key \\ nil, limit \\ :infinity) do
    arguments = [view, pattern, what, after_key, number(limit)]
    result(dirty(&Native.select/5, &Native.select_large/5, arguments))
  end

  @doc "The matches of a pattern, page by page, as they are asked for."
  @spec stream(t, [tuple], pos_integer) :: Enumerable.t()
  def stream(view, pattern, page) do
    Stream.resource(fn -> nil end, &next_page(view, pattern, page, &1), fn _after -> :ok end)
  end

  @doc "The view as an operation of a transaction would leave it."
  @spec with_op(t, tuple) :: t
  def with_op(view, {:put, _key, payload, _lease} = op) when byte_size(payload) < 65_536,
    do: Native.view_with(view, op)

  def with_op(view, {:clear, _key} = op), do: Native.view_with(view, op)
  def with_op(view, op), do: Native.view_with_large(view, op)

  defp fetch(store_id, :consistency), do: Running.fetch(store_id)

  defp fetch(store_id, :low_latency),
    do: with({:ok, store, _cache} <- Running.fetch_to_read(store_id), do: {:ok, store})

  defp take_when_readable(store, timeout) do
    with :ok <- Call.await_readable(store, timeout), do: result(Native.view(store, false))
  end

  defp next_page(_view, _pattern, _page, :over), do: {:halt, :over}

  defp next_page(view, pattern, page, after_key) do
    case select(view, pattern, :entries, after_key, page) do
      {:ok, []} -> {:halt, :over}
      {:ok, entries} -> {Enum.map(entries, &Entry.new/1), behind(entries, page)}
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
  defp result(value), do: {:ok, value}

  defp number(:infinity), do: @everything
  defp number(n) when is_integer(n), do: min(n, @everything)
end
