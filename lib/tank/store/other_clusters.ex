defmodule Tank.Store.OtherClusters do
  @moduledoc false
  # Notices that a store of the same id on another node is in another cluster, which counts on this node or lists it. That
  # is an alarm on both sides; nothing else changes.
  #
  #     a frame of another cluster, or a node that was asked or asks --met--> a moment later that node is asked
  #                                                                               |-- holds another cluster: alarm
  #                                                                               |-- holds this one or none: forgotten
  #                                                                               +-- does not say: alarm for a while, if it
  #                                                                                   said before which one it holds
  #
  # Frames alone are no reason: a member that was removed or joined another cluster gets some of its former cluster's until
  # all have heard of that. Nodes that are asked are told this node's cluster, and so notice the same. One that was refused
  # for its cluster does not run any more a moment later.

  use GenServer

  alias Tank.Store.{Alarms, Error, Formation, Names}

  # What is on its way after a change of the members has arrived by then.
  @look_after_ms 2_000
  # How soon a conflict that was ended is noticed.
  @look_again_ms 10_000
  # Members send something more often to those that they count on. The inbox tells of it once a second.
  @recent_ms 3_000
  # Tries to start it are farther apart than a minute, if its supervisor gave up.
  @said_kept_ms 600_000

  @typedoc "`:said`: by itself, or by a node that asked it."
  @type why :: :frames | :said

  def start_link(config), do: GenServer.start_link(__MODULE__, config.store_id, name: name(config.store_id))

  @doc "The store of a node is, or was a moment ago, in another cluster."
  @spec met(atom, node, non_neg_integer, why) :: :ok
  def met(store_id, node, cluster_id, why), do: GenServer.cast(name(store_id), {:met, node, cluster_id, why})

  @doc "Asks the nodes of a list, once."
  @spec look(atom, Formation.nodes()) :: :ok
  def look(store_id, nodes), do: GenServer.cast(name(store_id), {:look, nodes})

  @impl true
  def init(store_id) do
    Alarms.clear(store_id, :other_cluster)
    {:ok, %{store_id: store_id, met: %{}, timer: nil}}
  end

  @impl true
  def handle_cast({:met, node, cluster_id, why}, state) do
    said? = why == :said or match?(%{^node => %{said?: true}}, state.met)
    met = %{cluster_id: cluster_id, said?: said?, at: now()}
    {:noreply, arm(put_in(state.met[node], met), @look_after_ms)}
  end

  def handle_cast({:look, nodes}, state) do
    store_id = state.store_id

    # The list may be a function's, and others may not answer: neither holds this process up.
    spawn(fn ->
      nodes = if is_function(nodes, 0), do: nodes.(), else: nodes

      with {:ok, mine} <- Formation.cluster_id(store_id) do
        answers = Formation.ask(store_id, nodes -- [node()], %{node() => mine})
        for {node, {:holds, other}} <- answers, other != mine, do: met(store_id, node, other, :said)
      end
    end)

    {:noreply, state}
  end

  @impl true
  def handle_info(:look, %{store_id: store_id} = state) do
    state = %{state | timer: nil}

    case Formation.cluster_id(store_id) do
      {:ok, mine} ->
        answers = Formation.ask(store_id, Map.keys(state.met), %{node() => mine})
        met = for {node, met} <- state.met, met = still(met, answers[node], mine), into: %{}, do: {node, met}
        others = for {node, met} <- met, met.said?, into: %{}, do: {node, met.cluster_id}
        tell(store_id, mine, others)
        {:noreply, if(met == %{}, do: %{state | met: met}, else: arm(%{state | met: met}, @look_again_ms))}

      :error ->
        {:noreply, arm(state, @look_again_ms)}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  # What is known of a node by its answer; nil when there is nothing wrong with it.
  defp still(met, {:holds, other}, mine) when other != mine do
    if met.said? or now() - met.at < @recent_ms, do: %{met | cluster_id: other, said?: true}
  end

  defp still(_met, {:holds, _mine}, _this), do: nil
  defp still(_met, {:blank, _token, _nodes, _role}, _mine), do: nil
  defp still(met, _no_answer, _mine), do: if(now() - met.at < kept_ms(met), do: met)

  defp kept_ms(%{said?: true}), do: @said_kept_ms
  defp kept_ms(%{said?: false}), do: @recent_ms

  defp tell(store_id, _mine, others) when others == %{}, do: Alarms.clear(store_id, :other_cluster)

  defp tell(store_id, mine, others) do
    clusters = Map.put(others, node(), mine)

    message =
      "stores of this id are in different clusters: #{Error.Cluster.holders(clusters)}. #{Error.Cluster.what_to_do()}. " <>
        "See the guide on clusters"

    Alarms.set(store_id, :other_cluster, message, %{clusters: clusters})
  end

  defp arm(%{timer: nil} = state, ms), do: %{state | timer: Process.send_after(self(), :look, ms)}
  defp arm(state, _ms), do: state

  defp now, do: System.monotonic_time(:millisecond)

  defp name(store_id), do: {:via, Registry, {Names, {:other_clusters, store_id}}}
end
