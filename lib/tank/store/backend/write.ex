defmodule Tank.Store.Backend.Write do
  @moduledoc false
  # Writes of key-value pairs, with the lease that a ttl needs.

  alias Tank.Store.{Backend, KVPair, Tree}
  alias Tank.Store.Backend.{AlreadyExists, DoesNotExist, Failure, Read, Revision, Ttl, UpdateConflict, ValidationError}

  # A lease may last 49 days.
  @ttl_max_s div(0xFFFF_FFFF, 1_000)

  @doc "Writes a pair whose key is `key`; `revision` is the condition, or nil."
  @spec write(Backend.t(), :create | :update | :apply, KVPair.t(), [String.t()], non_neg_integer | nil) ::
          {:ok, KVPair.t()} | {:error, Exception.t()}
  def write(client, kind, kv, key, revision) do
    path = client.prefix ++ key

    with :ok <- check_value(kv.value),
         :ok <- check_ttl(kv.ttl),
         replaced = if(kind != :create, do: Ttl.of_entry(client, path)),
         {:ok, lease} <- lease(client, path, kv.ttl, key) do
      case put(client.store, kind, path, kv.value, revision, lease) do
        {:ok, written} ->
          Ttl.release(replaced)
          {:ok, %{kv | revision: Revision.from_integer(written)}}

        {:error, reason} ->
          # A write whose outcome is unknown may have been applied, and keeps its lease: it goes when its time is over.
          if reason != :timeout, do: Ttl.release(lease)
          {:error, error(client, reason, key)}
      end
    end
  end

  @doc "Deletes a key and all below it; parents that hold nothing go with it, since the store has none without children."
  @spec delete(Backend.t(), [String.t()], non_neg_integer | nil) :: :ok | {:error, Exception.t()}
  def delete(client, key, revision) do
    lease = Ttl.of_entry(client, client.prefix ++ key)
    with :ok <- delete_if(client, key, revision), do: Ttl.release(lease)
  end

  defp delete_if(client, key, nil) do
    path = client.prefix ++ key

    case Tree.txn(client.store, [{:exists, path, :==, true}], [{:delete, path}], []) do
      {:ok, %{succeeded: true}} -> :ok
      {:ok, %{succeeded: false}} -> {:error, %DoesNotExist{key: key}}
      {:error, reason} -> {:error, error(client, reason, key)}
    end
  end

  defp delete_if(client, key, revision) do
    # No entry has the revision 0, which to the store means that there is none.
    result = if revision > 0, do: Tree.delete(client.store, client.prefix ++ key, if_revision: revision)

    case result || {:error, {:conflict, nil}} do
      {:ok, _revision} -> :ok
      {:error, {:conflict, nil}} -> missing_or_conflict(client, key)
      {:error, reason} -> {:error, error(client, reason, key)}
    end
  end

  # What has no value may still have something below.
  defp missing_or_conflict(client, key) do
    case Tree.txn(client.store, [{:exists, client.prefix ++ key, :==, true}], [], []) do
      {:ok, %{succeeded: true}} -> {:error, %UpdateConflict{key: key}}
      {:ok, %{succeeded: false}} -> {:error, %DoesNotExist{key: key}}
      {:error, reason} -> {:error, error(client, reason, key)}
    end
  end

  defp put(store, :create, path, value, _revision, lease), do: Tree.create(store, path, value, options(nil, lease))

  defp put(store, :update, path, value, revision, lease),
    do: Tree.update(store, path, value, options(revision, lease))

  defp put(store, :apply, path, value, revision, lease), do: Tree.put(store, path, value, options(revision, lease))

  defp options(revision, lease),
    do: if(revision, do: [if_revision: revision], else: []) ++ if(lease, do: [lease: lease], else: [])

  defp error(client, {:exists, entry}, key), do: %AlreadyExists{key: key, existing: Read.pair(client, entry)}
  defp error(_client, :not_found, key), do: %DoesNotExist{key: key}
  defp error(client, {:conflict, entry}, key), do: conflict(client, key, entry)
  defp error(_client, reason, key), do: Failure.new(reason, key)

  defp conflict(_client, key, nil), do: %UpdateConflict{key: key}
  defp conflict(client, key, entry), do: %UpdateConflict{key: key, current: Read.pair(client, entry)}

  defp lease(_client, _path, nil, _key), do: {:ok, nil}

  defp lease(client, path, ttl, key) do
    with {:error, reason} <- Ttl.grant(client, path, ttl), do: {:error, Failure.new(reason, key)}
  end

  defp check_value(nil), do: invalid(:value, nil, "must be set")
  defp check_value(_value), do: :ok

  defp check_ttl(ttl) when ttl == nil or (is_integer(ttl) and ttl in 1..@ttl_max_s), do: :ok
  defp check_ttl(ttl), do: invalid(:ttl, ttl, "is no number of seconds, from 1 to #{@ttl_max_s}")

  defp invalid(field, value, why), do: {:error, %ValidationError{field: field, value: value, why: why}}
end
