defmodule Tank.Store.Replacement do
  @moduledoc false
  # Replacing a member whose disk went back in time, or whose state differs from that of a majority, by a new one on the
  # same node.
  #
  # The engine notices, raises the alarm `:log_lost` or `:state_differs`, and serves nobody any more. Then the Server asks here which
  # node to join, and joins it as `Tank.Store.Join` does: the cluster removes the old member, and takes a new one in, in
  # the same role. A cluster without a majority that can agree changes nothing. What the old member held is discarded once
  # the new one has everything; until then, a node that is killed comes back as the old member, and begins again.
  #
  # A member that the cluster has removed meanwhile is not taken in again: somebody decided that. But if a successor of it
  # is there on this node, this was begun before.

  alias Tank.Store.{Deadline, Join, Members, Remote}

  @ask_timeout 3_000

  @doc """
  How the store's cluster is to be joined again by a new member in the place of `cluster.member_id`. `told_by`: the node
  that knows what was lost. An old copy may know no node that is still a member.
  """
  @spec request(atom, Members.cluster(), node) :: {:ok, map} | {:error, term}
  def request(store_id, cluster, told_by) do
    own_role = cluster.members |> Enum.find(&(&1.id == cluster.member_id)) |> role_of()

    [told_by | cluster |> Members.others() |> Enum.map(& &1.node)]
    |> Enum.uniq()
    |> Enum.reduce_while({:error, :nobody_asked}, fn node, _error ->
      deadline = Deadline.in_ms(@ask_timeout)
      me = %{cluster_id: cluster.cluster_id, member_id: cluster.member_id, node: node(), role: own_role}
      arguments = [store_id, me, Deadline.remaining(Deadline.before(deadline))]

      case Remote.call(node, __MODULE__, :role, arguments, deadline) do
        {:ok, role} -> {:halt, {:ok, %{node: node, cluster_id: cluster.cluster_id, role: role, left?: true}}}
        {:error, reason} -> {:cont, {:error, reason}}
      end
    end)
  end

  @doc "Why a member is replaced, as its alarm says."
  @spec why(map) :: String.t()
  def why(%{expected_digest: _differs}), do: "whose state differed from that of the others"
  def why(_log_lost), do: "whose disk had gone back in time"

  @doc "The role of a member, as a majority knows it. Called on other nodes."
  @spec role(atom, map, timeout) :: {:ok, Join.role()} | {:error, term}
  def role(store_id, %{cluster_id: cluster_id} = member, timeout) do
    case Members.confirmed(store_id, Deadline.in_ms(timeout)) do
      {:ok, %{cluster_id: ^cluster_id} = cluster} -> role_in(cluster, member)
      {:ok, _other} -> {:error, :another_cluster}
      {:error, reason} -> {:error, reason}
    end
  end

  defp role_in(cluster, member) do
    cond do
      known = Enum.find(cluster.members, &(&1.id == member.member_id)) -> {:ok, role_of(known)}
      Enum.any?(cluster.members, &(&1.node == member.node)) -> {:ok, member.role}
      true -> {:error, :not_a_member}
    end
  end

  defp role_of(%{witness: true}), do: :witness
  defp role_of(%{voter: true}), do: :voter
  defp role_of(_learner_or_none), do: :learner
end
