defmodule Tank.Store.Leave do
  @moduledoc false
  # Leaving a cluster, and erasing what is left of it here.

  alias Tank.Store.{Deadline, Error, Instance, Members, Native, Remote, Running, Server}

  @doc "Leaves the cluster if there is one, stops the store, and erases its data. If it cannot leave, nothing changes."
  @spec reset(atom, Deadline.t()) :: :ok | {:error, term}
  def reset(store_id, deadline) do
    with {:ok, store} <- Running.fetch(store_id),
         {:ok, dir} <- Server.data_dir(store_id),
         {:ok, cluster} <- Members.of(store),
         :ok <- leave(store_id, store, cluster, Deadline.before(deadline)) do
      :ok = Instance.stop(store_id)
      erase(dir, store_id)
    else
      {:error, :noproc} -> {:error, {:tank, :not_a_tank_store, %{store_id: store_id}}}
      {:error, :no_quorum} -> {:error, :timeout}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Has the others remove this member. A leader hands over first, so that nobody has to wait for an election."
  @spec leave(atom, Native.store(), Members.cluster(), Deadline.t()) :: :ok | {:error, Error.reason()}
  def leave(store_id, store, cluster, deadline) do
    case Members.others(cluster) do
      [] ->
        :ok

      others ->
        Members.give_up_leadership(store, Deadline.half(deadline))
        remove(store_id, store, cluster, Enum.map(others, & &1.node), deadline)
    end
  end

  # A member that was removed without its knowledge hears of no leader any more, and the members that it knows may have
  # been replaced since. So when nobody answers, their nodes are asked too, whatever it believes of its quorum: that may
  # be of before.
  defp remove(store_id, store, cluster, nodes, deadline) do
    case Members.change(store, {:remove, cluster.member_id}, Deadline.half(deadline)) do
      {:error, reason} when reason in [:no_quorum, :timeout] -> remove_by(nodes, store_id, cluster, deadline)
      answer -> answer
    end
  end

  defp remove_by(nodes, store_id, cluster, deadline) do
    args = [store_id, cluster.cluster_id, cluster.member_id, Deadline.remaining(Deadline.before(deadline))]

    nodes
    |> Enum.uniq()
    |> Task.async_stream(&Remote.call(&1, __MODULE__, :remove_member, args, deadline),
      timeout: :infinity,
      ordered: false,
      max_concurrency: length(nodes)
    )
    |> Enum.find_value({:error, :no_quorum}, fn {:ok, answer} -> answer == :ok && :ok end)
  end

  @doc "Has a cluster that this node's store is in part with a member. Called on other nodes."
  @spec remove_member(atom, non_neg_integer, non_neg_integer, timeout) :: :ok | {:error, Error.reason()}
  def remove_member(store_id, cluster_id, member_id, timeout) do
    with {:ok, store} <- Running.fetch(store_id), {:ok, cluster} <- Members.of(store) do
      if cluster.cluster_id == cluster_id,
        do: Members.change(store, {:remove, member_id}, Deadline.in_ms(timeout)),
        else: {:error, :noproc}
    end
  end

  defp erase(dir, store_id) do
    case Native.erase(dir, Atom.to_string(store_id)) do
      :ok -> :ok
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end
end
