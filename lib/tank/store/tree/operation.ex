defmodule Tank.Store.Tree.Operation do
  @moduledoc false
  # The operations of `Tank.Store.Tree.txn/5`, as the Rust library takes them, and what they give.

  alias Tank.Store.{Call, Entry, Path}

  @doc "Raises `ArgumentError` for what is no operation."
  @spec encode(tuple) :: {:ok, tuple} | {:error, {:invalid_path, String.t()}}
  def encode({:put, path, value}), do: encode({:put, path, value, []})

  def encode({:put, path, value, opts}) do
    opts = Keyword.validate!(opts, lease: nil)
    with {:ok, key} <- Path.to_key(path), do: {:ok, {:put, key, Call.encode(value), epoch(opts[:lease])}}
  end

  def encode({kind, path}) when kind in [:delete, :clear, :get, :list] do
    with {:ok, key} <- Path.to_key(path), do: {:ok, {kind, key}}
  end

  def encode(other), do: raise(ArgumentError, "not an operation: #{inspect(other)}")

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
  def decode({:got, nil}), do: {:get, nil}
  def decode({:got, entry}), do: {:get, Entry.decode(entry)}
  def decode({:listed, entries}), do: {:list, Enum.map(entries, &Entry.decode/1)}
end
