defmodule Tank.Store.Leave do
  @moduledoc false
  # Leaving a cluster, and erasing what is left of it here.

  alias Tank.Store.{Deadline, Error, Instance, Members, Native, Running, Server}

  @doc "Leaves the cluster if there is one, stops the store, and erases its data. If it cannot leave, nothing changes."
  @spec reset(atom, Deadline.t()) :: :ok | {:error, term}
  def reset(store_id, deadline) do
    with {:ok, store} <- Running.fetch(store_id),
         {:ok, dir} <- Server.data_dir(store_id),
         {:ok, cluster} <- Members.of(store),
         :ok <- leave(store, cluster, Deadline.before(deadline)) do
      :ok = Instance.stop(store_id)
      erase(dir, store_id)
    else
      {:error, :noproc} -> {:error, {:tank, :not_a_tank_store, %{store_id: store_id}}}
      {:error, :no_quorum} -> {:error, :timeout}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Has the others remove this member. A leader hands over first, so that nobody has to wait for an election."
  @spec leave(Native.store(), Members.cluster(), Deadline.t()) :: :ok | {:error, Error.reason()}
  def leave(store, cluster, deadline) do
    if Members.others(cluster) == [] do
      :ok
    else
      Members.give_up_leadership(store, Deadline.half(deadline))
      Members.change(store, {:remove, cluster.member_id}, deadline)
    end
  end

  defp erase(dir, store_id) do
    case Native.erase(dir, Atom.to_string(store_id)) do
      :ok -> :ok
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end
end
