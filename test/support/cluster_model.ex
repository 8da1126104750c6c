defmodule Tank.Store.ClusterModel do
  @moduledoc """
  What the members of clusters may expect, as plain data: which node's store runs, which cluster it is in, and what
  follows from that for the next operation.

  A cluster's members are `{node, life}`: a store that leaves or joins begins another life, and an earlier one that the
  cluster still counts on never answers again.
  """

  defstruct nodes: %{}, clusters: %{}, next: 0

  @type node_id :: term
  @type operation ::
          {:start | :restart | :stop | :reset | :force | :put | :get | :members, node_id}
          | {:join | :remove, node_id, node_id}
  @typedoc "What an operation may give; `:no_answer` is one of the errors for the lack of a quorum."
  @type expected :: :ok | :no_answer | :either | {:error, term}

  @doc "Nodes with a running store each."
  def new(nodes), do: Enum.reduce(nodes, %__MODULE__{}, &anew(&2, &1, true))

  @doc "What `operation` must give, and the model after it did."
  @spec step(%__MODULE__{}, operation) :: {expected, %__MODULE__{}}
  def step(model, {kind, node}) when kind in [:start, :restart], do: {:ok, put_in(model.nodes[node].up, true)}
  def step(model, {:stop, node}), do: {:ok, put_in(model.nodes[node].up, false)}

  def step(model, {:reset, node}) do
    if up?(model, node),
      do: left(model, leave(model, node), &anew(&1, node, false)),
      else: {{:error, :not_a_tank_store}, model}
  end

  def step(model, {:force, node}) do
    cond do
      not up?(model, node) -> {{:error, :not_a_tank_store}, model}
      answers?(model, node) -> {{:error, :quorum_is_there}, model}
      true -> {:ok, anew(model, node, true)}
    end
  end

  def step(model, {:join, node, to}) do
    cond do
      not up?(model, node) -> {{:error, :not_a_tank_store}, model}
      not up?(model, to) -> {{:error, :noproc}, model}
      not answers?(model, to) -> {:no_answer, model}
      true -> left(model, leave(model, node), &come_in(&1, node, to))
    end
  end

  def step(model, {:remove, by, node}) do
    %{cluster: id} = model.nodes[by]
    lives = for {^node, _life} = member <- model.clusters[id], do: member

    cond do
      not up?(model, by) -> {{:error, :noproc}, model}
      not answers?(model, by) -> {:no_answer, model}
      lives == [] -> {{:error, :not_a_member}, model}
      true -> model |> part_with(id, lives) |> parted(model)
    end
  end

  def step(model, {kind, node}) when kind in [:put, :get, :members] do
    cond do
      not up?(model, node) -> {{:error, :noproc}, model}
      answers?(model, node) -> {:ok, model}
      true -> {:no_answer, model}
    end
  end

  @doc "Whether the store of the node runs."
  def up?(model, node), do: model.nodes[node].up

  @doc "Whether it is a member that a majority of its cluster can answer."
  def answers?(model, node) do
    %{cluster: id} = model.nodes[node]
    up?(model, node) and member?(model, node) and majority?(model, model.clusters[id])
  end

  @doc "The nodes of the cluster that the node's store is in."
  def members(model, node), do: model.clusters[model.nodes[node].cluster] |> Enum.map(&elem(&1, 0)) |> Enum.uniq()

  @doc "Which members of the node's cluster run."
  def running(model, node), do: Enum.filter(model.clusters[model.nodes[node].cluster], &lives?(model, &1))

  # -- Changes

  defp parted(:no_answer, model), do: {:no_answer, model}
  defp parted(new, _model), do: {:ok, new}

  defp left(model, :no_answer, _then), do: {:no_answer, model}
  defp left(model, :either, then), do: {:either, then.(model)}
  defp left(_model, without, then), do: {:ok, then.(without)}

  # Without the node's own life, or why not.
  defp leave(model, node) do
    %{cluster: id, life: life} = model.nodes[node]
    members = model.clusters[id]

    cond do
      Enum.all?(members, &(&1 == {node, life})) and members != [] -> model
      member?(model, node) -> part_with(model, id, [{node, life}])
      # It was removed, and may or may not know the nodes of those who can confirm it.
      majority?(model, members) -> if knows_one?(model, node), do: model, else: :either
      true -> :no_answer
    end
  end

  defp knows_one?(model, node) do
    known = model.nodes[node].known
    Enum.any?(running(model, node), fn {other, _life} -> other in known end)
  end

  # A change comes about when majorities of the members before and after it can agree to it.
  defp part_with(model, id, lives) do
    before = model.clusters[id]
    later = before -- lives

    if majority?(model, before) and majority?(model, later) do
      known = before |> Enum.filter(&lives?(model, &1)) |> Enum.map(&elem(&1, 0))
      all = Enum.map(before, &elem(&1, 0))

      for node <- known, into: %{} do
        {node, %{model.nodes[node] | known: all}}
      end
      |> then(&%{model | nodes: Map.merge(model.nodes, &1), clusters: Map.put(model.clusters, id, later)})
    else
      :no_answer
    end
  end

  defp come_in(model, node, to) do
    %{cluster: id} = model.nodes[to]
    life = model.next
    members = for({other, _life} = member <- model.clusters[id], other != node, do: member) ++ [{node, life}]
    state = %{up: true, cluster: id, life: life, known: []}
    %{model | nodes: Map.put(model.nodes, node, state), clusters: Map.put(model.clusters, id, members), next: life + 1}
  end

  defp anew(model, node, up?) do
    id = model.next
    state = %{up: up?, cluster: id, life: id, known: []}
    clusters = Map.put(model.clusters, id, [{node, id}])
    %{model | nodes: Map.put(model.nodes, node, state), clusters: clusters, next: id + 1}
  end

  defp member?(model, node) do
    %{cluster: id, life: life} = model.nodes[node]
    {node, life} in model.clusters[id]
  end

  defp lives?(model, {node, life}), do: model.nodes[node].up and model.nodes[node].life == life
  defp majority?(model, members), do: Enum.count(members, &lives?(model, &1)) * 2 > length(members)
end
