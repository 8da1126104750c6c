defmodule Tank.Store.Missing do
  @moduledoc false
  # The members of a cluster that do not take part, and why: for a store without a quorum, and for a change of the members
  # that cannot come about.

  alias Tank.Store.{Deadline, Error, Formation, Members, Remote, Running}

  @type t :: [{node, why :: String.t()}]

  @doc """
  The other members that do not take part, as this one finds: if it leads, those that did not answer it a moment ago.
  """
  @spec of(atom, Members.cluster()) :: t
  def of(store_id, %{cluster_id: mine} = cluster) do
    nodes = cluster |> suspected() |> Enum.map(& &1.node) |> Enum.uniq()

    for {node, answer} <- Formation.ask(store_id, nodes, %{node() => mine}),
        why = why(answer, cluster),
        do: {node, why}
  end

  @doc "Members that are missing, for people."
  @spec text(t) :: String.t()
  def text(missing), do: missing |> Enum.sort() |> Enum.map_join(", ", fn {node, why} -> "#{node} #{why}" end)

  @doc """
  The reason why a change of the members did not come about in time: the members without which the changed cluster would
  have no majority, if the leader knows of such, and says so in time.
  """
  @spec reason(atom, Error.reason(), Deadline.t()) :: Error.reason() | tuple
  def reason(store_id, reason, deadline) when reason in [:timeout, :no_quorum] do
    with {:ok, %{quorum: true} = cluster} <- Members.local(store_id),
         [_one | _more] = nodes <- ask_leader(store_id, Members.leader(cluster), deadline) do
      {:tank, :members_missing, %{store_id: store_id, nodes: nodes}}
    else
      _unknown -> reason
    end
  end

  def reason(_store_id, reason, _deadline), do: reason

  @doc "The nodes of the members that are missing. Called on the leader's node."
  @spec of_leader(atom) :: [node]
  def of_leader(store_id) do
    with {:ok, store} <- Running.fetch(store_id), {:ok, %{role: :leader} = cluster} <- Members.of(store) do
      for({node, _why} <- of(store_id, cluster), do: node) |> Enum.sort()
    else
      _leads_no_more -> []
    end
  end

  defp ask_leader(_store_id, nil, _deadline), do: []
  defp ask_leader(store_id, %{node: leader}, _deadline) when leader == node(), do: of_leader(store_id)

  defp ask_leader(store_id, %{node: leader}, deadline) do
    case Remote.call(leader, __MODULE__, :of_leader, [store_id], deadline) do
      nodes when is_list(nodes) -> nodes
      _error -> []
    end
  end

  defp suspected(%{role: :leader} = cluster), do: for(member <- Members.others(cluster), !member.reachable, do: member)
  defp suspected(cluster), do: Members.others(cluster)

  defp why({:holds, mine}, %{cluster_id: mine, role: :leader}), do: "does not answer the leader"
  defp why({:holds, mine}, %{cluster_id: mine}), do: nil
  defp why({:holds, other}, _cluster), do: "is in another cluster, #{other}"
  defp why({:blank, _token, _nodes, _role}, _cluster), do: "has lost its data, and waits for a quorum to join"
  defp why({:error, :nodedown}, _cluster), do: "cannot be reached"
  defp why({:error, :timeout}, _cluster), do: "does not answer"
  defp why(_unknown, _cluster), do: "has not started the store"
end
