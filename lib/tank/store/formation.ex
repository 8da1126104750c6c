defmodule Tank.Store.Formation do
  @moduledoc false
  # Forming one cluster out of stores that are started with the same list of nodes, in whatever order they boot.
  #
  # A store looks into its directory before it opens an engine. One that holds a member is opened as that member. A blank
  # one has no engine, serves nobody and takes no writes, until it knows what to become:
  #
  #     holds a member, FORMED ------------------------------------------------------------------> opens it
  #     holds a member, not FORMED --a listed node holds another cluster, and none holds this one--> error, stops
  #          +----- otherwise ------------------------------------------------------------------> opens it
  #     blank --a listed node holds a cluster, which has a quorum---------------------------------> joins that one
  #       |-----all listed nodes are blank, and this is the first voter of the list---------------> founds
  #       +-----otherwise: waits, asks again
  #
  # So no cluster is founded while a listed node may hold one. The proof: all listed nodes answer that they are blank, each
  # with the token of its search, and then promise, for the same token, to found nothing themselves. Each was blank from its
  # answer to its promise, so at one moment all of them were. Only equal lists count, so all expect the same node to found.
  # With `forming: :majority` the promises of a majority are enough. Two majorities share a node, and that node promises
  # only once; but a cluster that is held only by nodes outside the majority may get a second one.
  #
  # Files: Search asks and decides (Decision), in a process of its own; Forming is the part of the Server; Finish notes
  # FORMED once the member has its place.

  alias Tank.Store.{Deadline, Members, Names, OtherClusters, ProcessCall, Remote, Server}

  @type nodes :: [node] | (() -> [node])
  @typedoc "What a store is formed with."
  @type t :: %{nodes: nodes, role: Tank.Store.Join.role(), founding: :all | :majority}

  @typedoc "What a node says of its store; `:unknown` when its VM runs, and the store has not looked into its directory."
  @type answer ::
          {:holds, cluster_id :: non_neg_integer}
          | {:blank, token :: reference, [node], Tank.Store.Join.role()}
          | :unknown
          | {:error, :nodedown | :timeout | :noproc}

  # A node that does not answer must not hold up those that do.
  @ask_timeout 1_000

  @doc """
  What the store of this node holds. Asked by other nodes, which tell the clusters that they know of: their own, and those
  of nodes that they asked.
  """
  @spec state(atom, %{node => non_neg_integer}) :: answer
  def state(store_id, seen) do
    case {cluster_id(store_id), Server.noted(store_id, :forming)} do
      {{:ok, cluster_id}, _forming} ->
        for {node, other} <- seen, other != cluster_id, do: OtherClusters.met(store_id, node, other, :said)
        {:holds, cluster_id}

      {:error, {:ok, %{blank: {token, nodes, role}}}} ->
        {:blank, token, nodes, role}

      {:error, _opening_or_not_started} ->
        :unknown
    end
  rescue
    # The library is loaded and not started yet, or just being stopped: its registry of names does not run.
    ArgumentError -> :unknown
  end

  @doc "Has this node, if its search still has that token, promise to found no cluster, since `founder` does."
  @spec promise(atom, reference, node) :: boolean
  def promise(store_id, token, founder), do: call(store_id, {:promise, token, founder}) == true

  @doc "Ends a promise: `founder` did not get enough of them."
  @spec release(atom, reference, node) :: boolean
  def release(store_id, token, founder), do: call(store_id, {:release, token, founder}) == true

  @doc "What each of `nodes` says of its store."
  @spec ask(atom, [node], %{node => non_neg_integer}) :: %{node => answer}
  def ask(store_id, nodes, seen), do: on_all(for(node <- nodes, do: {node, [store_id, seen]}), :state)

  @doc "What a function of this module gives on each of some nodes, with arguments for each."
  @spec on_all([{node, [term]}], atom) :: %{node => term}
  def on_all(calls, function) do
    deadline = Deadline.in_ms(@ask_timeout)

    calls
    |> Enum.map(fn {node, args} ->
      {node, Task.async(fn -> ask_one(node, function, args, deadline) end)}
    end)
    # Each call ends in time by itself.
    |> Map.new(fn {node, task} -> {node, Task.await(task, :infinity)} end)
  end

  # Whatever goes wrong there, no more is known than that it did not answer.
  defp ask_one(node, function, args, deadline) do
    Remote.call(node, __MODULE__, function, args, deadline)
  catch
    :exit, _what_went_wrong -> {:error, :noproc}
  end

  @doc "The cluster of the store of this node, also when it is not open yet."
  @spec cluster_id(atom) :: {:ok, non_neg_integer} | :error
  def cluster_id(store_id) do
    with {:error, _not_open} <- Members.local(store_id),
         {:error, :noproc} <- Server.noted(store_id, :holds) do
      :error
    else
      {:ok, %{cluster_id: cluster_id}} -> {:ok, cluster_id}
      {:ok, cluster_id} -> {:ok, cluster_id}
    end
  end

  @doc "The ids of the stores of this node that wait for their cluster."
  @spec forming_ids :: [atom]
  def forming_ids, do: Names |> Registry.select([{{{:forming, :"$1"}, :_, :_}, [], [:"$1"]}]) |> Enum.sort()

  defp call(store_id, request) do
    case Server.whereis(store_id) do
      nil -> {:error, :noproc}
      server -> ProcessCall.call(server, request, @ask_timeout)
    end
  end
end
