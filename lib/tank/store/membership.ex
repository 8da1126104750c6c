defmodule Tank.Store.Membership do
  @moduledoc false
  # What `Tank.Store.Cluster` says about members, and does to them by their nodes.

  alias Tank.Store.{Deadline, Error, Members, Missing, Remote, Running}

  @doc "The members: confirmed by a majority, or as this one knows them."
  @spec members(atom, :consistency | :low_latency, Deadline.t()) :: {:ok, [{atom, node}]} | {:error, Error.reason()}
  def members(store_id, favor, deadline) do
    cluster = if favor == :consistency, do: Members.confirmed(store_id, deadline), else: Members.local(store_id)

    case cluster do
      # Between a member and its successor on the same node there may be two of them.
      {:ok, cluster} -> {:ok, cluster.members |> Enum.map(&{store_id, &1.node}) |> Enum.uniq() |> Enum.sort()}
      {:error, reason} -> {:error, in_time(reason)}
    end
  end

  @doc "The leader's node."
  @spec leader(atom) :: {:ok, node | nil} | {:error, Error.reason()}
  def leader(store_id) do
    with {:ok, cluster} <- Members.local(store_id) do
      leader = Members.leader(cluster)
      {:ok, leader && leader.node}
    end
  end

  @doc "The part of `Tank.Store.Cluster.status/1` that is about the cluster."
  @spec status(atom) :: {:ok, map} | {:error, Error.reason()}
  def status(store_id) do
    with {:ok, cluster} <- Members.local(store_id) do
      leader = Members.leader(cluster)
      members = cluster.members |> Enum.map(&member_status(&1, cluster)) |> Enum.sort_by(& &1.node)
      {:ok, %{cluster | members: members, leader: leader && leader.node}}
    end
  end

  @doc "Promotes or demotes the member of a node."
  @spec change(atom, :promote | :demote, node, Deadline.t()) :: :ok | {:error, term}
  def change(store_id, kind, node, deadline) do
    with {:ok, store, cluster} <- find(store_id, node, deadline),
         do: change_all(store_id, store, kind, node, cluster, deadline)
  end

  @doc "Removes the member of a node, whether it is alive or not."
  @spec remove(atom, node, Deadline.t()) :: :ok | {:error, term}
  def remove(store_id, node, deadline) do
    with {:ok, store, cluster} <- find(store_id, node, deadline) do
      # A leader that goes hands over first, if it still can; the others need no election then.
      if leads?(node, cluster), do: Remote.call(node, __MODULE__, :hand_over, [store_id], Deadline.half(deadline))
      change_all(store_id, store, :remove, node, cluster, deadline)
    end
  end

  @doc "Has the member of this node, if it leads, make another one the leader."
  @spec hand_over(atom) :: :ok
  def hand_over(store_id) do
    with {:ok, store} <- Running.fetch(store_id), do: Members.give_up_leadership(store, Deadline.in_ms(1_000))
    :ok
  end

  @doc "Makes the member of a node the leader. The one that leads has to do it, so it is asked to."
  @spec transfer_leader(atom, node, Deadline.t()) :: :ok | {:error, term}
  def transfer_leader(store_id, node, deadline) do
    with {:ok, store, cluster} <- find(store_id, node, deadline) do
      case Members.leader(cluster) do
        %{node: ^node} ->
          :ok

        %{id: id} when id == cluster.member_id ->
          transfer(store_id, store, Enum.find(cluster.members, &(&1.node == node)), deadline)

        %{node: leader} ->
          args = [store_id, node, Deadline.remaining(Deadline.before(deadline))]
          Remote.call(leader, Tank.Store.Cluster, :transfer_leader, args, deadline)

        nil ->
          {:error, :timeout}
      end
    end
  end

  defp transfer(store_id, _store, %{witness: true, node: node}, _deadline),
    do: {:error, {:tank, :is_a_witness, %{store_id: store_id, node: node}}}

  defp transfer(_store_id, store, member, deadline) do
    with {:error, reason} <- Members.transfer(store, member.id, deadline), do: {:error, in_time(reason)}
  end

  # As a majority knows it: this member may not have heard yet of one that was just taken in.
  defp find(store_id, node, deadline) do
    with {:ok, store} <- Running.fetch(store_id),
         {:ok, cluster} <- Members.confirmed(store_id, Deadline.before(deadline)) do
      if Enum.any?(cluster.members, &(&1.node == node)),
        do: {:ok, store, cluster},
        else: {:error, {:tank, :not_a_member, %{store_id: store_id, node: node}}}
    else
      {:error, reason} -> {:error, in_time(reason)}
    end
  end

  defp change_all(store_id, store, kind, node, cluster, deadline) do
    for(member <- cluster.members, member.node == node, do: {kind, member.id})
    |> Enum.reduce_while(:ok, fn change, :ok ->
      case change_member(store_id, store, change, deadline) do
        :ok -> {:cont, :ok}
        {:error, reason} -> {:halt, {:error, in_time(reason)}}
      end
    end)
  end

  # After half of the time it is known who is missing, if anybody is.
  defp change_member(store_id, store, change, deadline) do
    with {:error, reason} when reason in [:timeout, :no_quorum] <-
           Members.change(store, change, Deadline.half(deadline)),
         ^reason <- Missing.reason(store_id, reason, Deadline.half(deadline)) do
      Members.change(store, change, deadline)
    else
      {:tank, :members_missing, _members} = named -> {:error, named}
      answer -> answer
    end
  end

  defp leads?(node, cluster), do: match?(%{node: ^node}, Members.leader(cluster))

  defp member_status(member, cluster) do
    role =
      cond do
        member.id == cluster.leader -> :leader
        member.voter and member.witness -> :witness
        member.voter -> :voter
        true -> :learner
      end

    lag = if cluster.role == :leader and member.matched, do: max((cluster.last_log_index || 0) - member.matched, 0)
    %{node: member.node, member_id: member.id, role: role, lag: lag, reachable: member.reachable}
  end

  # Without a majority there is no answer, however long one waits: as with khepri_cluster, that is a timeout.
  defp in_time(:no_quorum), do: :timeout
  defp in_time(reason), do: reason
end
