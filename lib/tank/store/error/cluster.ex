defmodule Tank.Store.Error.Cluster do
  @moduledoc false
  # What `{:tank, name, props}` means for the caller: the errors of forming, joining and changing a cluster.

  @doc "The message of a name, with what to do."
  @spec message(atom, map) :: String.t()
  def message(:not_a_tank_store, %{store_id: id}),
    do: "no store #{inspect(id)} runs on this node: start it with Tank.Store.Cluster.start/3 first"

  def message(:failed_to_join_remote_node, %{node: node}),
    do:
      "#{node} cannot be reached: is it up, and is the cookie the same? Nothing was changed here; join again once it answers"

  def message(:cluster_has_other_members, %{store_id: id}),
    do: "another node has joined the cluster of store #{inspect(id)} meanwhile: nothing was changed, try again"

  def message(:members_in_another_cluster, %{nodes: nodes}) do
    "there is no majority, and the members that answer (#{list(nodes)}) are in another cluster by now: " <>
      "Tank.Store.Cluster.force_new_cluster/2 lets this one go on alone, or join them after that"
  end

  def message(:members_missing, %{nodes: nodes}) do
    "no majority would be left, since these nodes do not answer: #{list(nodes)}. Nothing was changed; bring them back, or " <>
      "remove those members first with Tank.Store.Cluster.remove_member/3"
  end

  def message(:quorum_is_there, %{store_id: id}) do
    "the members of store #{inspect(id)} have a majority, and a new cluster would be a second one: nothing was changed. Give " <>
      "force: true if that is wanted"
  end

  def message(:not_a_member, %{node: node}),
    do: "#{node} is no member of this cluster: Tank.Store.Cluster.members/1 names those that are"

  def message(:is_a_witness, %{node: node}), do: "#{node} is a witness, which never leads: name another member"

  def message(:other_cluster, %{clusters: clusters}),
    do: "nodes of its list hold different clusters: #{holders(clusters)}. #{what_to_do()}"

  def message(:no_list_of_nodes, %{why: why}),
    do: "the function for :cluster failed: #{why}. Mend it, or give a list of nodes, and start again"

  def message(:no_cluster_formed, %{waits: waits}),
    do: "the cluster was not formed in time: #{waits}. Start the other nodes, or give a longer :timeout"

  def message(:formation_failed, %{why: why}),
    do: "forming the cluster failed, which is a fault of this library: #{inspect(why)}. Start the store again"

  def message(name, props), do: "#{name}: #{inspect(props)}"

  @doc "Nodes with the clusters that they hold, as text."
  @spec holders(%{node => non_neg_integer}) :: String.t()
  def holders(holders),
    do: holders |> Enum.sort() |> Enum.map_join(", ", fn {node, cluster_id} -> "#{node} holds #{cluster_id}" end)

  @doc "What an operator does about two clusters with one store id, as text."
  @spec what_to_do :: String.t()
  def what_to_do do
    "Nothing was changed. Decide which cluster to keep. On each node of the other cluster, make a backup if its data may " <>
      "be needed, stop the store, and remove its directory; started again with the list, it joins"
  end

  defp list(nodes), do: Enum.map_join(nodes, ", ", &to_string/1)
end
