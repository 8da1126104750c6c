defmodule Tank.Store.NodeName do
  @moduledoc false
  # Under which name of its node a member is known. Members find each other by that name.
  #
  # A store that is the only member takes the name that its node has now: nobody has to find it yet. So it does when it was
  # opened before its node was distributed, as `nonode@nohost`, and when its directory is opened on a node of another
  # name. With others it cannot: those that do not reach it could not agree, and a copy of a directory must not take the
  # place of its original. Then it raises an alarm.

  alias Tank.Store.{Alarms, Deadline, Members, Native}

  @alarm :node_renamed
  # The only member needs nobody to agree.
  @rename_timeout 5_000

  @doc "Takes the name of the node, or raises or clears the alarm. Returns at once."
  @spec check(atom, Native.store()) :: :ok
  def check(store_id, store) do
    case former(store) do
      :none -> Alarms.clear(store_id, @alarm)
      {:only, _member} -> in_background(fn -> adopt(store, Deadline.in_ms(@rename_timeout)) end)
      {:one_of, member} -> Alarms.set(store_id, @alarm, message(member), %{former: member.node, node: node()})
    end
  end

  @doc "Has a store that is the only member take the name of its node, if it has another one."
  @spec adopt(Native.store(), Deadline.t()) :: :ok | {:error, Tank.Store.Error.reason()}
  def adopt(store, deadline) do
    case former(store) do
      {:only, member} -> Members.change(store, {:rename, member.id, node()}, deadline)
      _none_or_one_of_several -> :ok
    end
  end

  # This member as the cluster knows it, if that is under another name.
  defp former(store) do
    with {:ok, cluster} <- Members.of(store),
         %{node: former} = member when former != node() <- Enum.find(cluster.members, &(&1.id == cluster.member_id)) do
      if Members.others(cluster) == [], do: {:only, member}, else: {:one_of, member}
    else
      _same_or_no_member_yet -> :none
    end
  end

  defp in_background(fun) do
    spawn(fun)
    :ok
  end

  defp message(member) do
    "the other members know this one as #{member.node}, and do not find it on #{node()}. Start this node as " <>
      "#{member.node} again. To keep the new name, remove_member #{member.node} on another node, and let this store " <>
      "join again: it gets its data from there"
  end
end
