defmodule Tank.Store.Join do
  @moduledoc false
  # Joining the cluster of another node. The local data goes only when the other cluster has taken this member in.
  #
  #     caller            Server of the local store               remote node
  #     describe --------------------------------------------->   runs the store, and has a leader?
  #     leave what the store is a member of
  #     Server.join ----> close, set the directory aside,
  #                       open a new member
  #                       add -------------------------------->   the leader adds it as a learner, and waits until it
  #                                                               has caught up
  #                       discard what was set aside
  #                       promote ---------------------------->   the leader lets it vote
  #
  # A learner counts for nothing: when adding it fails, the new member is given up, and the old one opened again. A voter
  # counts for the quorum, and a cluster of one that gets a second voter cannot do without it. So the old member is
  # discarded before the promotion: no crash brings it back in the place of a voter. From then on the new member stays,
  # and when it is not known whether it was promoted, the Server asks for that again until it is (`resolve/4`). After a
  # restart, the engine does (native/tank_engine/src/engine/promotion.rs).
  #
  # There is no lock: whatever else goes on, each step succeeds or fails on its own and ends in time.

  alias Tank.Store.{Call, Deadline, Error, Leave, LongCall, Members, Native, NodeName, Remote, Running, Server}

  # How long the remote cluster is asked to take back a member that was perhaps taken in after all.
  @withdraw_timeout 60_000

  @type role :: :voter | :learner | :witness

  @spec join(atom, node, role, Deadline.t()) :: :ok | {:error, term}
  def join(store_id, node, role, deadline) do
    deadline = Deadline.before(deadline)

    with {:ok, store} <- here(store_id),
         {:remote, true} <- {:remote, node != node()},
         {:ok, remote} <- describe(store_id, node, deadline),
         {:ok, left?} <- leave(store_id, store, deadline) do
      request = %{node: node, cluster_id: remote.cluster_id, role: role, left?: left?}
      Server.join(store_id, request, deadline)
    else
      # Joining itself.
      {:remote, false} -> :ok
      {:error, reason} -> {:error, in_time(reason)}
    end
  end

  @doc """
  Has the remote cluster take the member `member_id` of this node, whose engine is `store`, in. Called by the Server.
  After `{:unknown, reason}` it is a learner or a voter, and what was set aside is gone.
  """
  @spec admit(atom, Native.store(), non_neg_integer, map, Deadline.t()) :: :ok | {:error, term} | {:unknown, term}
  def admit(store_id, store, member_id, %{node: node, role: role}, deadline) do
    # What the remote node is given is a bit less than what is waited for.
    ask = fn function, arguments ->
      arguments = [store_id, member_id] ++ arguments ++ [Deadline.remaining(Deadline.before(deadline))]
      Remote.call(node, __MODULE__, function, arguments, deadline)
    end

    with :ok <- ask.(:add, [node(), role]),
         :ok <- discard_aside(store, role != :learner) do
      if role == :learner,
        do: :ok,
        else: with({:error, reason} <- ask.(:promote, []), do: {:unknown, in_time(reason)})
    else
      {:error, reason} ->
        withdraw(store_id, member_id, node)
        {:error, in_time(reason)}
    end
  end

  defp discard_aside(store, is_to_vote) do
    with {:error, reason} <- LongCall.discard_aside(store, is_to_vote), do: {:error, Error.public(reason)}
  end

  @doc "Promotes a member again of which it is not known whether it votes; `:removed` when it is no member any more."
  @spec resolve(atom, non_neg_integer, map, Deadline.t()) :: :voter | :removed | {:error, term}
  def resolve(store_id, member_id, %{node: node}, deadline) do
    arguments = [store_id, member_id, Deadline.remaining(Deadline.before(deadline))]
    Remote.call(node, __MODULE__, :make_voter, arguments, deadline)
  end

  # -- On the remote node

  @doc "What a store that wants to join has to know."
  @spec describe(atom, timeout) :: {:ok, %{cluster_id: non_neg_integer}} | {:error, term}
  def describe(store_id, timeout) when is_integer(timeout) or timeout == :infinity do
    deadline = Deadline.in_ms(timeout)

    # Under a name that it had before its node was distributed, nobody that joins would find it.
    with {:ok, store} <- Running.fetch(store_id),
         :ok <- NodeName.adopt(store, deadline),
         {:ok, cluster} <- Members.confirmed(store_id, deadline),
         do: {:ok, Map.take(cluster, [:cluster_id])}
  end

  @doc "Adds a learner, and waits until it has caught up."
  @spec add(atom, non_neg_integer, node, role, timeout) :: :ok | {:error, term}
  def add(store_id, member_id, node, role, timeout) do
    deadline = Deadline.in_ms(timeout)

    with {:ok, store} <- Running.fetch(store_id),
         {:ok, cluster} <- Members.of(store),
         :ok <- remove_predecessors(store, cluster, member_id, node, deadline),
         do: Members.change(store, {:add_learner, member_id, node, role == :witness}, deadline)
  end

  @doc "Lets a learner vote."
  @spec promote(atom, non_neg_integer, timeout) :: :ok | {:error, term}
  def promote(store_id, member_id, timeout) do
    with {:ok, store} <- Running.fetch(store_id),
         do: Members.change(store, {:promote, member_id}, Deadline.in_ms(timeout))
  end

  @doc "Lets a member vote that may do so already. The leader is asked for either."
  @spec make_voter(atom, non_neg_integer, timeout) :: :voter | :removed | {:error, term}
  def make_voter(store_id, member_id, timeout) do
    deadline = Deadline.in_ms(timeout)

    with {:ok, store} <- Running.fetch(store_id),
         {:ok, cluster} <- Members.confirmed(store_id, Deadline.half(deadline)) do
      case Enum.find(cluster.members, &(&1.id == member_id)) do
        nil -> :removed
        %{voter: true} -> :voter
        _learner -> with :ok <- Members.change(store, {:promote, member_id}, deadline), do: :voter
      end
    end
  end

  @doc "Removes a member that may have been added."
  @spec take_back(atom, non_neg_integer) :: :ok | {:error, term}
  def take_back(store_id, member_id) do
    with {:ok, store} <- Running.fetch(store_id),
         do: Members.change(store, {:remove, member_id}, Deadline.in_ms(@withdraw_timeout))
  end

  # A node has one member of a store: an older one lost its directory, or was not removed when it left.
  defp remove_predecessors(store, cluster, member_id, node, deadline) do
    cluster.members
    |> Enum.filter(&(&1.node == node and &1.id != member_id))
    |> Enum.reduce_while(:ok, fn member, :ok ->
      case Members.change(store, {:remove, member.id}, deadline) do
        :ok -> {:cont, :ok}
        {:error, reason} -> {:halt, {:error, reason}}
      end
    end)
  end

  # -- On this node

  defp here(store_id) do
    with {:error, :noproc} <- Running.fetch(store_id),
         do: {:error, {:tank, :not_a_tank_store, %{store_id: store_id}}}
  end

  defp describe(store_id, node, deadline) do
    case Remote.call(node, __MODULE__, :describe, [store_id, Deadline.remaining(deadline)], deadline) do
      {:error, :nodedown} ->
        {:error, {:tank, :failed_to_join_remote_node, %{store_id: store_id, node: node}}}

      answer ->
        answer
    end
  end

  # Whether there was a cluster to leave.
  defp leave(store_id, store, deadline) do
    with {:ok, cluster} <- Members.of(store) do
      if Members.others(cluster) == [],
        do: {:ok, false},
        else: with(:ok <- Leave.leave(store_id, store, cluster, deadline), do: {:ok, true})
    end
  end

  defp withdraw(store_id, member_id, node) do
    deadline = Deadline.in_ms(@withdraw_timeout)
    spawn(fn -> Remote.call(node, __MODULE__, :take_back, [store_id, member_id], deadline) end)
  end

  @doc "Waits until the new member knows that it is one, and who leads. That it is one is settled by then."
  @spec settle(Native.store(), Deadline.t()) :: :ok
  def settle(store, deadline) do
    _readable? = Call.await_readable(store, Deadline.remaining(deadline))
    :ok
  end

  defp in_time(:no_quorum), do: :timeout
  defp in_time(reason), do: reason
end
