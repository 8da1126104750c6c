defmodule Tank.Store.Tree.Comparison do
  @moduledoc false
  # The comparisons of `Tank.Store.Tree.txn/5`, as the Rust library takes them.

  import Tank.Store.Pattern, only: [is_number_of: 2]

  alias Tank.Store.{Call, Lease, Path}

  @numbers [
    :version,
    :revision,
    :create_revision,
    :child_count,
    :lease_epoch,
    :payload_version,
    :child_list_version
  ]

  @doc "Raises `ArgumentError` for what is no comparison."
  @spec encode(tuple) :: {:ok, tuple} | {:error, {:invalid_path, String.t()}}
  def encode({:value, path, op, value}) when op in [:==, :!=] do
    with {:ok, key} <- Path.to_key(path), do: {:ok, {:payload, key, op == :==, Call.encode(value)}}
  end

  def encode({:value, _path, op, _value}),
    do: raise(ArgumentError, "values are compared by :== and :!= only, got: #{inspect(op)}")

  def encode({:exists, path, op, exists?}) when op in [:==, :!=] and is_boolean(exists?) do
    with {:ok, key} <- Path.to_key(path), do: {:ok, {:exists, key, op, if(exists?, do: 1, else: 0)}}
  end

  def encode({:revision, {:prefix, path}, op, n}) when is_number_of(op, n) do
    with {:ok, key} <- Path.to_key(path), do: {:ok, {:below, key, op, n}}
  end

  def encode({:lease, name, :epoch, n}) when is_number_of(:==, n) do
    with {:ok, key} <- Lease.key(name), do: {:ok, {:lease, key, :==, n}}
  end

  def encode({kind, path, op, n}) when kind in @numbers and is_number_of(op, n) do
    with {:ok, key} <- Path.to_key(path), do: {:ok, {kind, key, op, n}}
  end

  def encode(other), do: raise(ArgumentError, "not a comparison: #{inspect(other)}")
end
