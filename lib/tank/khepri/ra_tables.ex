defmodule Tank.Khepri.RaTables do
  @moduledoc false
  # What applications look up about a store in the tables of Ra, where Ra would have it: who leads, and figures of this
  # member. `ra` is an optional application; without it, or while it does not run, nothing is done.

  alias Tank.Store.Cluster

  @counters [
    last_applied: ~c"Index of the last applied log entry",
    commit_index: ~c"Index of the last committed log entry",
    snapshot_index: ~c"Index of the last log entry that is not kept",
    last_written_index: ~c"Index of the last durable log entry",
    last_index: ~c"Index of the last log entry",
    commit_latency: ~c"Not measured",
    term: ~c"Raft term"
  ]

  @doc "Whether there is Ra in this VM."
  @spec there? :: boolean
  def there?, do: Code.ensure_loaded?(:ra_leaderboard)

  @doc "Notes what is."
  @spec note(atom) :: :ok
  def note(store) do
    with {:ok, members} <- Cluster.members(store, favor: :low_latency, timeout: 1_000),
         {:ok, status} <- Cluster.status(store) do
      if status.leader, do: call(:ra_leaderboard, :record, [store, {store, status.leader}, members])
      note_state(store, status.role)
      note_counters(store, status)
    end

    :ok
  end

  defp note_state(store, role) do
    membership = if role == :learner, do: :non_voter, else: :voter
    state = if role in [:leader, :candidate], do: role, else: :follower
    call(:ets, :insert, [:ra_state, {store, state, membership}])
  end

  defp note_counters(store, status) do
    counters = call(:ra_counters, :fetch, [{store, node()}]) || call(:ra_counters, :new, [{store, node()}, spec()])

    if is_reference(counters) or is_tuple(counters) do
      for {value, at} <- Enum.with_index(values(status), 1), do: :counters.put(counters, at, value)
    end
  end

  defp spec, do: for({{name, help}, at} <- Enum.with_index(@counters, 1), do: {name, at, :gauge, help})

  # In the order of the counters.
  defp values(%{applied_index: applied, last_log_index: last, term: term, purged_index: purged}),
    do: [applied, applied, purged || 0, last, last, 0, term]

  @doc "Notes that the store does not run here."
  @spec clear(atom) :: :ok
  def clear(store) do
    call(:ra_leaderboard, :clear, [store])
    call(:ets, :delete, [:ra_state, store])
    call(:ra_counters, :delete, [{store, node()}])
    :ok
  end

  # Ra's tables come and go with it; its older versions lack some of the functions.
  defp call(module, function, arguments) do
    with answer when answer != :undefined <- apply(module, function, arguments), do: answer, else: (_none -> nil)
  catch
    :error, reason when reason in [:badarg, :undef] -> nil
  end
end
