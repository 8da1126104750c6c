defmodule Tank.Store.Missing do
  @moduledoc false
  # Names the members without which a change of the members cannot come about: it would be a timeout otherwise.

  alias Tank.Store.{Deadline, Error, Members, Remote, Running}

  @doc """
  The reason why a change of the members did not come about in time: the members without which the changed cluster would
  have no majority, if the leader knows of such, and says so in time.
  """
  @spec reason(atom, Error.reason(), Deadline.t()) :: Error.reason() | tuple
  def reason(store_id, reason, deadline) when reason in [:timeout, :no_quorum] do
    with {:ok, %{quorum: true} = cluster} <- Members.local(store_id),
         [_one | _more] = nodes <- missing(store_id, Members.leader(cluster), deadline) do
      {:tank, :members_missing, %{store_id: store_id, nodes: nodes}}
    else
      _unknown -> reason
    end
  end

  def reason(_store_id, reason, _deadline), do: reason

  defp missing(_store_id, nil, _deadline), do: []
  defp missing(store_id, %{node: leader}, _deadline) when leader == node(), do: of_leader(store_id)

  defp missing(store_id, %{node: leader}, deadline) do
    case Remote.call(leader, __MODULE__, :of_leader, [store_id], deadline) do
      nodes when is_list(nodes) -> nodes
      _error -> []
    end
  end

  @doc "The nodes whose members did not answer the leader a moment ago. Called on the leader's node."
  @spec of_leader(atom) :: [node]
  def of_leader(store_id) do
    with {:ok, store} <- Running.fetch(store_id), {:ok, cluster} <- Members.of(store) do
      for(member <- cluster.members, member.in_touch == false, do: member.node) |> Enum.uniq() |> Enum.sort()
    else
      {:error, _reason} -> []
    end
  end
end
