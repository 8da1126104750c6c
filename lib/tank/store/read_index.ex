defmodule Tank.Store.ReadIndex do
  @moduledoc false
  # How new a follower's view has to be for a read that must not be stale: the leader knows.
  #
  #     caller --question--> inbox of the leader's node
  #        ^                      | its lease holds
  #        +--------index---------+
  #
  # The caller asks itself, since a question that goes through the engines of both nodes changes threads eight times on
  # its way. It asks once, and for a moment, and only few do at a time: the rest is left to the engine, where all who
  # wait share a question, and ask whoever comes to lead.

  alias Tank.Store.{Inbox, Native}

  # Hundreds of round trips in a data centre.
  @patience_ms 50

  @doc "Asks the leader; `:unknown` when that is for the engine to do, or there is no answer at once."
  @spec ask(Native.store(), timeout) :: {:ok, non_neg_integer} | :unknown
  def ask(store, timeout) do
    case Native.leader_elsewhere(store) do
      {asking, node, store_id, cluster_id, member_id} ->
        answer = ask({Inbox.name(store_id), node}, cluster_id, member_id, min(timeout, @patience_ms))
        # One that is killed before gives its place back with its memory.
        :ok = Native.asked(asking)
        answer

      nil ->
        :unknown
    end
  end

  defp ask(inbox, cluster_id, member_id, patience_ms) do
    ref = make_ref()
    # An answer that comes too late finds no alias, and nobody's mailbox.
    asker = :erlang.alias([:reply])
    question = {:tank_read_index, asker, ref, cluster_id, member_id}

    with :ok <- :erlang.send(inbox, question, [:noconnect, :nosuspend]),
         index when is_integer(index) <- await(ref, patience_ms) do
      {:ok, index}
    else
      _nothing ->
        :erlang.unalias(asker)
        receive do: ({^ref, _late} -> :unknown), after: (0 -> :unknown)
    end
  end

  defp await(ref, patience_ms) do
    receive do
      {^ref, index} -> index
    after
      patience_ms -> nil
    end
  end
end
