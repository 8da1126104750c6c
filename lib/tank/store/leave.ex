defmodule Tank.Store.Leave do
  @moduledoc false
  # Leaving a cluster, and erasing what is left of it here.

  alias Tank.Store.{Deadline, Error, Identity, Instance, LongCall, Members, Missing, Native, Remote, Running, Server}

  # Who is there answers in milliseconds.
  @ask_timeout 2_000

  @doc "Leaves the cluster if there is one, stops the store, and erases its data. If it cannot leave, nothing changes."
  @spec reset(atom, Deadline.t()) :: :ok | {:error, term}
  def reset(store_id, deadline) do
    # Of this store: by the time that it has left, another one may run under its id.
    instance = Instance.whereis(store_id)

    with {:ok, store} <- Running.fetch(store_id),
         {:ok, dir} <- Server.data_dir(store_id),
         {:ok, cluster} <- Members.of(store),
         :ok <- leave(store_id, store, cluster, Deadline.before(deadline)),
         :ok <- Server.retire(store_id, Members.others(cluster) != [], deadline),
         :ok <- Instance.stop(store_id, instance, deadline) do
      erase(dir, store_id)
    else
      # One has come in since: it is to be left in good order.
      {:error, {:tank, :cluster_has_other_members, _props}} -> reset(store_id, deadline)
      {:error, :noproc} -> {:error, {:tank, :not_a_tank_store, %{store_id: store_id}}}
      {:error, :no_quorum} -> {:error, :timeout}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Has the others remove this member. A leader hands over first, so that nobody has to wait for an election."
  @spec leave(atom, Native.store(), Members.cluster(), Deadline.t()) :: :ok | {:error, Error.reason()}
  def leave(store_id, store, cluster, deadline) do
    case cluster |> Members.others() |> Enum.map(& &1.node) |> Enum.uniq() do
      [] ->
        :ok

      nodes ->
        with :ok <- anybody_left(store_id, cluster, nodes, Deadline.remaining(Deadline.half(deadline))) do
          Members.give_up_leadership(store, Deadline.half(deadline))
          remove(store_id, store, cluster, nodes, deadline)
        end
    end
  end

  # Without a quorum it may be that the others have gone on without this member, as another cluster. When all that can be
  # asked say so, nobody is left who could agree, and waiting is in vain.
  defp anybody_left(_store_id, %{quorum: true}, _nodes, _left_ms), do: :ok

  defp anybody_left(store_id, %{cluster_id: here}, nodes, left_ms) do
    deadline = Deadline.in_ms(min(left_ms, @ask_timeout))
    there = for {node, {:ok, id}} <- ask(nodes, :cluster_id, [store_id], deadline), do: {node, id}
    elsewhere = for {node, id} <- there, id != here, do: node

    if elsewhere != [] and length(elsewhere) == length(there),
      do: {:error, {:tank, :members_in_another_cluster, %{store_id: store_id, nodes: Enum.sort(elsewhere)}}},
      else: :ok
  end

  # A member that was removed without its knowledge hears of no leader any more, and the members that it knows may have
  # been replaced since. So when nobody answers, their nodes are asked too, whatever it believes of its quorum: that may
  # be of before.
  defp remove(store_id, store, cluster, nodes, deadline) do
    case Members.change(store, {:remove, cluster.member_id}, Deadline.half(deadline)) do
      {:error, reason} when reason in [:timeout, :no_quorum] ->
        case Missing.reason(store_id, :no_quorum, Deadline.half(deadline)) do
          :no_quorum -> ask_others(store_id, cluster, nodes, deadline)
          named -> {:error, named}
        end

      answer ->
        answer
    end
  end

  defp ask_others(store_id, cluster, nodes, deadline) do
    args = [store_id, cluster.cluster_id, cluster.member_id, Deadline.remaining(Deadline.before(deadline))]
    answers = ask(nodes, :remove_member, args, deadline)
    if Enum.any?(answers, &match?({_node, :ok}, &1)), do: :ok, else: {:error, :no_quorum}
  end

  # What a function of this module gives on other nodes, all at once.
  defp ask(nodes, function, args, deadline) do
    nodes
    |> Task.async_stream(&{&1, Remote.call(&1, __MODULE__, function, args, deadline)},
      # Each call ends in time by itself.
      timeout: :infinity,
      ordered: false,
      max_concurrency: length(nodes)
    )
    |> Stream.map(fn {:ok, answer} -> answer end)
  end

  @doc "The cluster that the store of this node is in. Called on other nodes."
  @spec cluster_id(atom) :: {:ok, non_neg_integer} | {:error, Error.reason()}
  def cluster_id(store_id) do
    with {:ok, cluster} <- Members.local(store_id), do: {:ok, cluster.cluster_id}
  end

  @doc "Has a cluster that this node's store is in part with a member. Called on other nodes."
  @spec remove_member(atom, non_neg_integer, non_neg_integer, timeout) :: :ok | {:error, Error.reason()}
  def remove_member(store_id, cluster_id, member_id, timeout) do
    with {:ok, store} <- Running.fetch(store_id), {:ok, cluster} <- Members.of(store) do
      if cluster.cluster_id == cluster_id,
        do: Members.change(store, {:remove, member_id}, Deadline.in_ms(timeout)),
        else: {:error, :noproc}
    end
  end

  defp erase(dir, store_id) do
    case LongCall.erase(dir, Atom.to_string(store_id)) do
      :ok -> Identity.forget(store_id)
      {:error, reason} -> {:error, Error.public(reason)}
    end
  end
end
