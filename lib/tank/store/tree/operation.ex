defmodule Tank.Store.Tree.Operation do
  @moduledoc false
  # The operations of `Tank.Store.Tree.txn/5`, as the Rust library takes them, and what they give.

  alias Tank.Store.{Call, Entry, NodeChange, Path}
  alias Tank.Store.Options, as: StoreOptions
  alias Tank.Store.Tree.Options

  @doc "Raises `ArgumentError` for what is no operation."
  @spec encode(tuple) :: {:ok, tuple} | {:error, {:invalid_path, String.t()}}
  def encode({:put, path, value}), do: encode({:put, path, value, []})

  def encode({:put, path, value, opts}) do
    opts = StoreOptions.with_defaults!(opts, lease: nil, keep_while: nil, return_previous: false)

    with {:ok, key} <- Path.to_key(path),
         {:ok, how} <- Options.how(opts),
         do: {:ok, put(key, Call.encode(value), epoch(opts[:lease]), how)}
  end

  def encode({:put_node, path}), do: encode({:put_node, path, []})

  def encode({:put_node, path, opts}) do
    opts = StoreOptions.with_defaults!(opts, keep_while: nil, return_previous: false)
    with {:ok, key} <- Path.to_key(path), {:ok, how} <- Options.how(opts, 0), do: {:ok, put(key, "", 0, how)}
  end

  def encode({:delete, path, opts}) do
    opts = StoreOptions.with_defaults!(opts, return_previous: false)
    with {:ok, key} <- Path.to_key(path), do: {:ok, {:delete, key, nil, Options.flag!(opts, :return_previous)}}
  end

  def encode({:clear, path, opts}) do
    opts = StoreOptions.with_defaults!(opts, keep_nodes: false, return_previous: false)
    flags = {Options.flag!(opts, :keep_nodes), Options.flag!(opts, :return_previous)}
    with {:ok, key} <- Path.to_key(path), do: {:ok, {:clear, key, elem(flags, 0), elem(flags, 1)}}
  end

  def encode({kind, path}) when kind in [:delete, :clear, :get, :list] do
    with {:ok, key} <- Path.to_key(path), do: {:ok, {kind, key}}
  end

  def encode(other), do: raise(ArgumentError, "not an operation: #{inspect(other)}")

  @doc "The operation of a put: `how` is `{kind, unless_same?, keep_while, returns?}`."
  @spec put(binary, binary, non_neg_integer, tuple) :: tuple
  def put(key, payload, lease, {1, false, nil, false}), do: {:put, key, payload, lease}
  def put(key, payload, lease, how), do: {:put, key, payload, lease, nil, how}

  @doc "The operation without its answer."
  @spec silent(tuple) :: tuple
  def silent({:put, key, payload, lease, condition, {kind, unless_same?, keep_while, _returns?}}),
    do: {:put, key, payload, lease, condition, {kind, unless_same?, keep_while, false}}

  def silent({:delete, key, condition, _returns?}), do: {:delete, key, condition, false}
  def silent({:clear, key, keep_node?, _returns?}), do: {:clear, key, keep_node?, false}
  def silent(op), do: op

  @doc "The epoch of a lease: given as it is, or in a struct."
  @spec epoch(nil | pos_integer | %{epoch: pos_integer}) :: non_neg_integer
  def epoch(nil), do: 0
  def epoch(epoch) when is_integer(epoch) and epoch > 0, do: epoch
  def epoch(%{epoch: epoch}) when is_integer(epoch) and epoch > 0, do: epoch
  def epoch(other), do: raise(ArgumentError, "a lease is its epoch or has one, got: #{inspect(other)}")

  @doc "What an operation gave."
  @spec decode(tuple) :: tuple
  def decode({:put, version}), do: {:put, version}
  def decode({:deleted, count}), do: {:delete, count}
  def decode({:changed, changes}), do: {:changed, Enum.map(changes, &NodeChange.decode/1)}
  def decode({:got, nil}), do: {:get, nil}
  def decode({:got, entry}), do: {:get, Entry.decode(entry)}
  def decode({:listed, entries}), do: {:list, Enum.map(entries, &Entry.decode/1)}
end
