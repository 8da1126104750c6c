defmodule Tank.Store.Cluster.Unready do
  @moduledoc false
  # What is known of a store that is not ready: why, which nodes it waits for, and its status.

  alias Tank.Store.{Alarms, Call, Error, Log, Members, Missing, Native, Server, Status}

  @doc """
  An error of a start, with the nodes that are missing when it is for want of those.

  The reason stays what it is, but for a store whose cluster was not formed in time.
  """
  @spec explain(atom, term) :: term
  def explain(store_id, reason) when reason in [:no_quorum, :timeout] do
    case Server.noted(store_id, :forming) do
      {:ok, forming} -> not_formed(store_id, forming)
      {:error, :noproc} -> no_quorum(store_id, reason)
    end
  end

  def explain(_store_id, reason), do: reason

  @doc "Logs the members that are missing when the store, which has others, has no quorum within `wait_ms` from now."
  @spec log_missing(atom, Native.store(), non_neg_integer) :: :ok
  def log_missing(store_id, store, wait_ms) do
    with {:error, _unreadable} <- Call.await_readable(store, wait_ms),
         {:ok, %{quorum: false} = cluster} <- Members.local(store_id),
         [_one | _more] = missing <- Missing.of(store_id, cluster) do
      Log.error(
        store_id,
        :cluster,
        "store #{inspect(store_id)} has no quorum since it was opened: #{Missing.text(missing)}"
      )
    end

    :ok
  end

  @doc "The status of a store that waits for its cluster."
  @spec status(atom) :: {:ok, Status.t()} | {:error, :noproc}
  def status(store_id) do
    with {:ok, forming} <- Server.noted(store_id, :forming) do
      waits = forming.waits || "it looks for its cluster"
      alarms = Enum.uniq_by(Alarms.list(store_id) ++ [{:forming, %{message: waits}}], &elem(&1, 0))
      {:ok, %Status{store_id: store_id, data_dir: forming.data_dir, alarms: Enum.sort(alarms)}}
    end
  end

  defp not_formed(store_id, forming) do
    waits = forming.waits || "no node has answered yet"
    %{Error.from_native({:tank, :no_cluster_formed, %{store_id: store_id, waits: waits}}) | details: %{waits: waits}}
  end

  defp no_quorum(store_id, reason) do
    with {:ok, cluster} <- Members.local(store_id), [_one | _more] = missing <- Missing.of(store_id, cluster) do
      message = "no quorum: #{Missing.text(missing)}"
      %Error{reason: reason, message: message, details: %{missing: for({node, _why} <- missing, do: node)}}
    else
      _none_missing -> reason
    end
  end
end
