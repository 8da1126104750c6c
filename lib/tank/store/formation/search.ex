defmodule Tank.Store.Formation.Search do
  @moduledoc false
  # The process that finds out what a store becomes: asks the listed nodes until that is decided, and ends with
  # `{:decided, decision}` as its exit reason, for the Server that it is linked to. Between two rounds it tells the Server
  # with which list it asks and what it waits for.

  alias Tank.Store.{Deadline, Formation, Join, ProcessCall, Remote}
  alias Tank.Store.Formation.Decision

  @typedoc "`holds`: the cluster whose member is in the directory, or nil. `failed`: why the last join failed, or nil."
  @type t :: %{
          server: pid,
          store_id: atom,
          formation: Formation.t(),
          token: reference,
          holds: non_neg_integer | nil,
          failed: term
        }

  @type decision :: :open | :found | {:join, map} | {:error, term}

  # Others boot in seconds. Later, a node that comes back may wait for a second.
  @ask_again_ms 200
  @ask_again_max_ms 1_000
  # Whether a cluster has a quorum is told at once, or not at all.
  @describe_timeout 2_000
  # So long a member that was never in the cluster of its list waits for nodes that do not answer: they may hold another one,
  # and start at this moment too.
  @patience_ms 10_000
  # It takes as long as the data does. When the other node dies, that is noticed before.
  @admit_timeout 60 * 60 * 1000

  @spec start_link(t) :: pid
  def start_link(search) do
    spawn_link(fn ->
      # What refused this member a moment ago is not asked again at once.
      if search.failed, do: receive(after: (@ask_again_max_ms -> :ok))
      search = Map.put(search, :patient_until, Deadline.in_ms(@patience_ms))
      exit({:decided, decide(search, @ask_again_ms)})
    end)
  end

  @doc "Has a cluster take the new member in; ends with `{:decided, {:admitted, result}}`."
  @spec admit((Deadline.t() -> :ok | {:error, term} | {:unknown, term})) :: pid
  def admit(admit),
    do: spawn_link(fn -> exit({:decided, {:admitted, admit.(Deadline.in_ms(@admit_timeout))}}) end)

  @spec decide(t, pos_integer) :: decision
  defp decide(search, pause_ms) do
    case nodes(search) do
      {:ok, nodes} ->
        others = List.delete(nodes, node())
        tell(search, nodes, nil)
        answers = Formation.ask(search.store_id, others, seen(search))
        known = search |> Map.take([:token, :formation, :holds]) |> Map.merge(%{node: node(), nodes: nodes})

        known
        |> Map.put(:answers, answers)
        |> Decision.make()
        |> act(Map.put(search, :answers, answers), nodes, pause_ms)

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp act(:open, search, nodes, pause_ms) do
    silent = for {node, {:error, _reason}} <- search.answers, do: node

    if silent == [] or Deadline.remaining(search.patient_until) == 0,
      do: :open,
      else: again(search, nodes, "#{Enum.join(silent, ", ")} did not say whether it holds another cluster", pause_ms)
  end

  defp act({:refuse, clusters}, search, _nodes, _pause),
    do: {:error, {:tank, :other_cluster, %{store_id: search.store_id, clusters: clusters}}}

  defp act({:join, cluster_id, holders}, search, nodes, pause_ms) do
    case Enum.find(holders, &quorum?(search.store_id, &1, cluster_id)) do
      nil ->
        why = "the cluster #{cluster_id}, which #{Enum.join(holders, ", ")} holds, has no quorum that answers"
        again(search, nodes, why, pause_ms)

      node ->
        {:join, %{node: node, cluster_id: cluster_id, role: search.formation.role, left?: false}}
    end
  end

  defp act({:found, blank, needed}, search, nodes, pause_ms) do
    calls = for {node, token} <- blank, do: {node, [search.store_id, token, node()]}
    promises = for {node, true} <- Formation.on_all(calls, :promise), do: node

    if length(promises) >= needed do
      :found
    else
      Formation.on_all(Enum.filter(calls, fn {node, _args} -> node in promises end), :release)
      again(search, nodes, "#{Enum.join(nodes -- promises, ", ")} did not promise to found no cluster", pause_ms)
    end
  end

  defp act({:wait, why}, search, nodes, pause_ms), do: again(search, nodes, why, pause_ms)

  defp again(search, nodes, why, pause_ms) do
    failed = if search.failed, do: "; joining failed: #{inspect(search.failed)}", else: ""
    tell(search, nodes, why <> failed)
    receive after: (pause_ms -> decide(search, min(pause_ms * 5 / 4, @ask_again_max_ms) |> ceil()))
  end

  # What this node knows of clusters, for the others: so also those are told that do not ask by themselves.
  defp seen(search) do
    mine = if search.holds, do: %{node() => search.holds}, else: %{}
    for {node, {:holds, cluster_id}} <- search[:answers] || %{}, into: mine, do: {node, cluster_id}
  end

  defp quorum?(store_id, node, cluster_id) do
    deadline = Deadline.in_ms(@describe_timeout)
    args = [store_id, Deadline.remaining(Deadline.before(deadline))]
    match?({:ok, %{cluster_id: ^cluster_id}}, Remote.call(node, Join, :describe, args, deadline))
  end

  # The Server answers at once, or is ending.
  defp tell(search, nodes, waits), do: ProcessCall.call(search.server, {:searching, search.token, nodes, waits}, 5_000)

  # The list may be a function's: of the user, who may be wrong.
  defp nodes(%{store_id: store_id, formation: %{nodes: nodes}}) do
    nodes = if is_function(nodes, 0), do: nodes.(), else: nodes

    if is_list(nodes) and Enum.all?(nodes, &(is_atom(&1) and &1 not in [nil, true, false])),
      do: {:ok, [node() | nodes] |> Enum.uniq() |> Enum.sort()},
      else: {:error, no_list(store_id, "it gave #{inspect(nodes)}, not a list of nodes")}
  catch
    kind, reason -> {:error, no_list(store_id, Exception.format(kind, reason, __STACKTRACE__))}
  end

  defp no_list(store_id, why), do: {:tank, :no_list_of_nodes, %{store_id: store_id, why: why}}
end
