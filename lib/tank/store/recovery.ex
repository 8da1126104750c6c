defmodule Tank.Store.Recovery do
  @moduledoc false
  # Going on alone when the quorum is lost for good.

  alias Tank.Store.{Deadline, Members, Server}

  @spec force_new_cluster(atom, boolean, Deadline.t()) :: :ok | {:error, term}
  def force_new_cluster(store_id, force?, deadline) do
    with {:ok, cluster} <- Members.local(store_id),
         :ok <- no_quorum(store_id, cluster, force?, Deadline.half(deadline)) do
      Server.go_alone(store_id, Deadline.remaining(deadline))
    else
      {:error, :noproc} -> {:error, {:tank, :not_a_tank_store, %{store_id: store_id}}}
      {:error, reason} -> {:error, reason}
    end
  end

  defp no_quorum(_store_id, _cluster, true, _deadline), do: :ok

  defp no_quorum(store_id, _cluster, false, deadline) do
    case Members.confirmed(store_id, deadline) do
      {:ok, _cluster} -> {:error, {:tank, :quorum_is_there, %{store_id: store_id}}}
      {:error, reason} when reason in [:no_quorum, :timeout] -> :ok
      {:error, reason} -> {:error, reason}
    end
  end
end
