defmodule Tank.Store.Members do
  @moduledoc false
  # The members of a store's cluster, as the engine knows them, and changes to them.

  alias Tank.Store.{Call, Deadline, Error, Native, Running}

  @type member :: %{
          id: non_neg_integer,
          node: node,
          voter: boolean,
          witness: boolean,
          matched: non_neg_integer | nil,
          reachable: boolean | nil
        }
  @type cluster :: %{
          member_id: non_neg_integer,
          cluster_id: non_neg_integer,
          members: [member],
          leader: non_neg_integer | nil,
          term: non_neg_integer,
          last_log_index: non_neg_integer | nil,
          purged_index: non_neg_integer | nil,
          role: :leader | :follower | :candidate | :learner | :shutdown,
          quorum: boolean,
          malformed_frames: non_neg_integer,
          foreign_frames: non_neg_integer
        }
  @type change ::
          {:add_learner, non_neg_integer, node, witness? :: boolean}
          | {:promote, non_neg_integer}
          | {:demote, non_neg_integer}
          | {:remove, non_neg_integer}
          | {:rename, non_neg_integer, node}

  @doc "The cluster as this member knows it, at once."
  @spec local(atom) :: {:ok, cluster} | {:error, Error.reason()}
  def local(store_id) do
    with {:ok, store} <- Running.fetch(store_id), do: of(store)
  end

  @doc "The same, of an open store that callers may not see yet."
  @spec of(Native.store()) :: {:ok, cluster} | {:error, Error.reason()}
  def of(store) do
    case Native.cluster(store) do
      {:ok, cluster} -> {:ok, Map.update!(cluster, :members, &Enum.map(&1, fn member -> with_node(member) end))}
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end

  @doc "The cluster once this member has confirmed, with a majority, that it knows the latest change."
  @spec confirmed(atom, Deadline.t()) :: {:ok, cluster} | {:error, Error.reason()}
  def confirmed(store_id, deadline) do
    with {:ok, store} <- Running.fetch(store_id),
         :ok <- Call.await_quorum(store, Deadline.remaining(deadline)),
         do: of(store)
  end

  @doc "The member that leads, as far as is known."
  @spec leader(cluster) :: member | nil
  def leader(cluster), do: Enum.find(cluster.members, &(&1.id == cluster.leader))

  @doc "The members that are not this one."
  @spec others(cluster) :: [member]
  def others(cluster), do: Enum.reject(cluster.members, &(&1.id == cluster.member_id))

  @doc "Has the leader, wherever it is, change the members."
  @spec change(Native.store(), change, Deadline.t()) :: :ok | {:error, Error.reason()}
  def change(store, change, deadline) do
    Call.request(&Native.change_members(store, &1, native(change), &2), Deadline.remaining(deadline))
  end

  @doc "Has this member, which leads, make another one the leader."
  @spec transfer(Native.store(), non_neg_integer, Deadline.t()) :: :ok | {:error, Error.reason()}
  def transfer(store, to, deadline) do
    Call.request(&Native.transfer_leader(store, &1, to, &2), Deadline.remaining(deadline))
  end

  @doc "If this member leads, makes the voter that has most of the log the leader. Best effort."
  @spec give_up_leadership(Native.store(), Deadline.t()) :: :ok
  def give_up_leadership(store, deadline) do
    with {:ok, %{role: :leader} = cluster} <- of(store),
         [_one | _more] = voters <- cluster |> others() |> Enum.filter(&(&1.voter and not &1.witness)) do
      _led? = transfer(store, Enum.max_by(voters, &{&1.reachable, &1.matched || 0}).id, deadline)
    end

    :ok
  end

  # Names of nodes come from the log: as many as there are members.
  defp with_node(member), do: %{member | node: String.to_atom(member.node)}

  defp native({:rename, id, node}), do: {:rename, id, Atom.to_string(node)}
  defp native({:add_learner, id, node, witness?}), do: {:add_learner, id, Atom.to_string(node), witness?}
  defp native(change), do: change
end
