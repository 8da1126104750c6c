defmodule Tank.Store.Formation.Decision do
  @moduledoc false
  # What a store that looks for its cluster does next, by what the listed nodes say. Pure.

  alias Tank.Store.Error.Cluster
  alias Tank.Store.Formation

  @typedoc """
  What is known: this node with its search, the listed nodes sorted and this one among them, what the others answered, and
  the cluster that this node's directory holds, if it does.
  """
  @type known :: %{
          node: node,
          token: reference,
          nodes: [node],
          answers: %{node => Formation.answer()},
          formation: Formation.t(),
          holds: non_neg_integer | nil
        }

  @type t ::
          :open
          | {:refuse, %{node => non_neg_integer}}
          | {:join, cluster_id :: non_neg_integer, [node]}
          | {:found, [{node, reference}], needed :: pos_integer}
          | {:wait, String.t()}

  @spec make(known) :: t
  def make(%{holds: nil} = known) do
    holders = holders(known)

    case holders |> Map.values() |> Enum.uniq() do
      [] ->
        found_or_wait(known)

      [cluster_id] ->
        {:join, cluster_id, holders |> Map.keys() |> Enum.sort()}

      _several ->
        {:wait, "the listed nodes hold different clusters: #{Cluster.holders(holders)}. #{Cluster.what_to_do()}"}
    end
  end

  def make(%{holds: cluster_id} = known) do
    holders = holders(known)

    if holders == %{} or cluster_id in Map.values(holders),
      do: :open,
      else: {:refuse, Map.put(holders, known.node, cluster_id)}
  end

  @doc "How many blank nodes it takes to found a cluster."
  @spec needed([node], :all | :majority) :: pos_integer
  def needed(nodes, :all), do: length(nodes)
  def needed(nodes, :majority), do: div(length(nodes), 2) + 1

  defp holders(known), do: for({node, {:holds, cluster_id}} <- known.answers, into: %{}, do: {node, cluster_id})

  defp found_or_wait(%{formation: formation, nodes: nodes} = known) do
    mine = {:blank, known.token, nodes, formation.role}
    answers = Map.put(known.answers, known.node, mine)
    # Whoever was given another list may expect another node to found.
    blank = for {node, {:blank, token, ^nodes, role}} <- answers, do: {node, token, role}
    founder = for({node, _token, :voter} <- blank, do: node) |> Enum.min(fn -> nil end)
    needed = needed(nodes, formation.founding)

    cond do
      length(blank) < needed -> {:wait, missing(nodes, answers)}
      founder == nil -> {:wait, "none of the listed nodes is started as a voter"}
      founder == known.node -> {:found, for({node, token, _role} <- blank, do: {node, token}), needed}
      true -> {:wait, "#{founder} is about to found the cluster"}
    end
  end

  defp missing(nodes, answers) do
    for(node <- nodes, why = why(answers[node], nodes), do: "#{node} #{why}") |> Enum.join(", ")
  end

  defp why({:blank, _token, nodes, _role}, nodes), do: nil
  defp why({:blank, _token, other, _role}, _nodes), do: "was given another list of nodes (#{Enum.join(other, ", ")})"
  defp why({:error, :nodedown}, _nodes), do: "cannot be reached"
  defp why({:error, :timeout}, _nodes), do: "does not answer"
  defp why(_unknown, _nodes), do: "has not started the store"
end
