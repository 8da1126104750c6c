defmodule Tank.Store.Formation do
  @moduledoc false
  # Forming one cluster out of stores that are started with the same list of nodes, in whatever order they boot.
  #
  # One of the nodes, the first of the list when it is sorted, founds the cluster; the others wait for a cluster and
  # join it. A store that was just started alone is no cluster, and nobody joins it: so all may boot at once.
  #
  #     waiting --a node of the list is in a cluster--> joins it
  #        |------the first node, and it reaches a majority of the list, none of it in a cluster--> founds
  #        +------is a member already, or with others again--> done
  #
  # The founder needs a majority so that it does not found a second cluster after it lost its directory, while those
  # that hold the first one cannot be reached. It takes the same list on all nodes for that.
  #
  # What is joined replaces what was there. So a store that holds something is not joined to anything by itself.

  require Logger

  alias Tank.Store.{Deadline, Join, Members, Remote, Running, Server}

  @type nodes :: [node] | (() -> [node])

  # Others boot in seconds.
  @ask_again_ms 200
  # A node that does not answer must not hold up those that do.
  @ask_timeout 1_000

  @doc "Returns once the store is in the cluster of `nodes`, in that role if it had to join."
  @spec form(atom, nodes | nil, Join.role(), Deadline.t()) :: :ok | {:error, term}
  def form(_store_id, nil, _role, _deadline), do: :ok

  def form(store_id, nodes, role, deadline) do
    all = nodes |> list() |> Enum.concat([node()]) |> Enum.uniq() |> Enum.sort()

    with {:ok, cluster} <- Members.local(store_id) do
      if Members.others(cluster) != [] or all == [node()],
        do: :ok,
        else: look(store_id, nodes, role, all, deadline)
    end
  end

  @doc "Whether the store of this node is in a cluster that others may join. Asked by other nodes."
  @spec state(atom) :: :in_cluster | :waiting | :not_running
  def state(store_id) do
    case Members.local(store_id) do
      {:ok, cluster} ->
        if Members.others(cluster) != [] or Server.founder?(store_id), do: :in_cluster, else: :waiting

      {:error, _reason} ->
        :not_running
    end
  end

  defp look(store_id, nodes, role, all, deadline) do
    states = ask(store_id, List.delete(all, node()))
    present = for {node, :in_cluster} <- states, do: node
    reached = 1 + Enum.count(states, fn {_node, state} -> state in [:in_cluster, :waiting, :not_running] end)

    cond do
      present != [] ->
        join(store_id, nodes, role, hd(present), deadline)

      role == :voter and node() == hd(all) and reached * 2 > length(all) ->
        Server.found(store_id, deadline)

      true ->
        again(store_id, nodes, role, deadline, {:error, {:tank, :no_cluster_formed, %{reached: reached, nodes: all}}})
    end
  end

  defp join(store_id, nodes, role, node, deadline) do
    if empty?(store_id) do
      with {:error, reason} <- Join.join(store_id, node, role, deadline),
           do: again(store_id, nodes, role, deadline, {:error, reason})
    else
      Logger.error("store #{inspect(store_id)} holds entries of its own and does not join #{node} by itself")
      {:error, {:tank, :holds_data, %{store_id: store_id, node: node}}}
    end
  end

  defp again(store_id, nodes, role, deadline, error) do
    if Deadline.remaining(deadline) == 0 do
      error
    else
      receive after: (@ask_again_ms -> form(store_id, nodes, role, deadline))
    end
  end

  defp ask(store_id, nodes) do
    deadline = Deadline.in_ms(@ask_timeout)

    nodes
    |> Enum.map(&{&1, Task.async(fn -> Remote.call(&1, __MODULE__, :state, [store_id], deadline) end)})
    # Each call ends in time by itself.
    |> Enum.map(fn {node, task} -> {node, Task.await(task, :infinity)} end)
  end

  defp empty?(store_id) do
    with {:ok, store} <- Running.fetch(store_id), {:ok, status} <- Tank.Store.Native.status(store) do
      status.revision == 0
    else
      {:error, _reason} -> false
    end
  end

  defp list(nodes) when is_function(nodes, 0), do: nodes.()
  defp list(nodes), do: nodes
end
