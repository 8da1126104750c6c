defmodule Tank.Store.Join do
  @moduledoc false
  # Joining the cluster of another node. The local data goes only when the other cluster has taken this member in.
  #
  #     caller            Server of the local store               remote node
  #     describe --------------------------------------------->   runs the store, and has a leader?
  #     leave what the store is a member of
  #     Server.join ----> close, set the directory aside,
  #                       open a new member
  #                       admit ------------------------------>   the leader adds it as a learner, waits until it has
  #                                                               caught up, and promotes it
  #                       discard what was set aside; or, if that failed: close, and open the old member again
  #
  # There is no lock: whatever else goes on, each step succeeds or fails on its own and ends in time.

  alias Tank.Store.{Call, Deadline, Leave, Members, Remote, Running, Server}

  # How long the remote cluster is asked to take back a member that was perhaps taken in after all.
  @withdraw_timeout 60_000

  @type role :: :voter | :learner

  @spec join(atom, node, role, Deadline.t()) :: :ok | {:error, term}
  def join(store_id, node, role, deadline) do
    deadline = Deadline.before(deadline)

    with {:ok, store} <- here(store_id),
         {:remote, true} <- {:remote, node != node()},
         {:ok, remote} <- describe(store_id, node, deadline),
         {:ok, left?} <- leave(store, deadline) do
      request = %{node: node, cluster_id: remote.cluster_id, role: role, left?: left?}
      Server.join(store_id, request, deadline)
    else
      # Joining itself.
      {:remote, false} -> :ok
      {:error, :no_quorum} -> {:error, :timeout}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Has the remote cluster take the member `member_id` of this node in. Called by the Server."
  @spec admit(atom, non_neg_integer, map, Deadline.t()) :: :ok | {:error, term}
  def admit(store_id, member_id, %{node: node, role: role}, deadline) do
    args = [store_id, member_id, node(), role, Deadline.remaining(deadline)]

    with {:error, reason} <- Remote.call(node, __MODULE__, :take_in, args, deadline) do
      withdraw(store_id, member_id, node)
      {:error, if(reason == :no_quorum, do: :timeout, else: reason)}
    end
  end

  # -- On the remote node

  @doc "What a store that wants to join has to know."
  @spec describe(atom, timeout) :: {:ok, %{cluster_id: non_neg_integer}} | {:error, term}
  def describe(store_id, timeout) when is_integer(timeout) or timeout == :infinity do
    with {:ok, cluster} <- Members.confirmed(store_id, Deadline.in_ms(timeout)),
         do: {:ok, Map.take(cluster, [:cluster_id])}
  end

  @doc "Adds a member, and makes it a voter once it has caught up."
  @spec take_in(atom, non_neg_integer, node, role, timeout) :: :ok | {:error, term}
  def take_in(store_id, member_id, node, role, timeout) do
    deadline = Deadline.in_ms(timeout)

    with {:ok, store} <- Running.fetch(store_id),
         {:ok, cluster} <- Members.of(store),
         :ok <- remove_predecessors(store, cluster, member_id, node, deadline),
         :ok <- Members.change(store, {:add_learner, member_id, node}, deadline) do
      if role == :voter, do: Members.change(store, {:promote, member_id}, deadline), else: :ok
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
  defp leave(store, deadline) do
    with {:ok, cluster} <- Members.of(store) do
      if Members.others(cluster) == [],
        do: {:ok, false},
        else: with(:ok <- Leave.leave(store, cluster, deadline), do: {:ok, true})
    end
  end

  defp withdraw(store_id, member_id, node) do
    deadline = Deadline.in_ms(@withdraw_timeout)
    spawn(fn -> Remote.call(node, __MODULE__, :take_back, [store_id, member_id], deadline) end)
  end

  @doc "Waits until the new member knows that it is one, and who leads. That it is one is settled by then."
  @spec settle(Tank.Store.Native.store(), Deadline.t()) :: :ok
  def settle(store, deadline) do
    _readable? = Call.await_readable(store, Deadline.remaining(deadline))
    :ok
  end
end
