defmodule Tank.Store.Linearizable do
  @moduledoc """
  Whether what clients saw of one key can be explained by one order of its operations, each taking effect at a moment
  between its call and its return.

  The search goes through calls and returns in the order of time, and keeps every state that the key may be in. Before an
  operation returns it must have taken effect; any others that were called by then may have done so before it. One that
  never returned, or whose outcome is unknown, may take effect at any moment after its call, or never.

  The key is a register of a value and a revision, both nil at first. Values are unique, so that a read tells which write
  it saw. The revision of a write that did not return is whatever somebody sees of it.
  """

  @type operation :: {:put, value :: term} | {:compare_and_put, revision :: pos_integer | nil, value :: term} | :get
  @type result ::
          {:ok, term}
          | {:conflict, revision :: pos_integer | nil}
          # It surely had no effect.
          | :failed
          | :unknown
  @type entry :: %{operation: operation, result: result, call: integer, return: integer | nil}

  # More than this many states at a time is not decided, which counts as a failure.
  @states_max 50_000

  @doc "Checks the operations of one key."
  @spec check([entry]) :: :ok | :undecided | {:violation, entry}
  def check(entries) do
    entries = entries |> Enum.reject(&without_effect?/1) |> drop_unseen() |> Enum.with_index()
    operations = Map.new(entries, fn {entry, id} -> {id, entry} end)

    entries
    |> Enum.flat_map(&events/1)
    # At the same moment they may have overlapped, so calls come first.
    |> Enum.sort_by(fn {at, kind, _id} -> {at, kind == :return} end)
    |> search({[], MapSet.new([{{nil, nil}, MapSet.new()}])}, operations)
  end

  # A read that failed says nothing.
  defp without_effect?(%{result: :failed}), do: true
  defp without_effect?(%{operation: :get, result: :unknown}), do: true
  defp without_effect?(_entry), do: false

  # A write with an unknown outcome that nobody saw can be left out: if there is an order with it, there is one without.
  # It may still be the one whose revision a refusal tells of.
  defp drop_unseen(entries) do
    known = for %{result: {:ok, seen}} <- entries, into: MapSet.new(), do: seen
    told = for %{result: {:conflict, revision}} <- entries, revision != nil, do: revision
    compared = for %{operation: {:compare_and_put, revision, _}, result: {:ok, _}} <- entries, revision, do: revision

    if Enum.all?(told ++ compared, &MapSet.member?(known, &1)),
      do: Enum.reject(entries, &(&1.result == :unknown and not MapSet.member?(known, written(&1.operation)))),
      else: entries
  end

  defp written({:put, value}), do: value
  defp written({:compare_and_put, _revision, value}), do: value

  defp events({%{result: :unknown} = entry, id}), do: [{entry.call, :call, id}]
  defp events({entry, id}), do: [{entry.call, :call, id}, {entry.return, :return, id}]

  defp search([], _found, _operations), do: :ok

  defp search([{_at, :call, id} | events], {open, states}, operations),
    do: search(events, {[id | open], states}, operations)

  defp search([{_at, :return, id} | events], {open, states}, operations) do
    case linearize(MapSet.to_list(states), id, open, operations, states) do
      :undecided -> :undecided
      [] -> {:violation, operations[id]}
      after_it -> search(events, {List.delete(open, id), forget(after_it, id)}, operations)
    end
  end

  defp forget(states, id), do: MapSet.new(states, fn {register, done} -> {register, MapSet.delete(done, id)} end)

  # All states in which `id` has taken effect, after any of the other open operations.
  defp linearize(states, id, open, operations, seen, found \\ [])
  defp linearize([], _id, _open, _operations, _seen, found), do: found

  defp linearize([{register, done} = state | states], id, open, operations, seen, found) do
    cond do
      MapSet.size(seen) > @states_max ->
        :undecided

      MapSet.member?(done, id) ->
        linearize(states, id, open, operations, seen, [state | found])

      true ->
        new =
          for other <- open,
              not MapSet.member?(done, other),
              {:ok, register} <- [take_effect(operations[other], register)],
              state = {register, MapSet.put(done, other)},
              not MapSet.member?(seen, state),
              do: state

        linearize(new ++ states, id, open, operations, MapSet.union(seen, MapSet.new(new)), found)
    end
  end

  defp take_effect(%{operation: :get, result: {:ok, value}}, {value, _revision} = register), do: {:ok, register}
  defp take_effect(%{operation: :get}, _register), do: :impossible
  defp take_effect(%{operation: {:put, value}, result: {:ok, revision}}, _register), do: {:ok, {value, revision}}
  defp take_effect(%{operation: {:put, value}, result: :unknown}, _register), do: {:ok, {value, :unseen}}

  defp take_effect(%{operation: {:compare_and_put, compared, value}, result: result}, {held, revision}) do
    case result do
      {:ok, new} when revision in [compared, :unseen] -> {:ok, {value, new}}
      :unknown when revision in [compared, :unseen] -> {:ok, {value, :unseen}}
      {:conflict, seen} when seen != compared and revision in [seen, :unseen] -> {:ok, {held, seen}}
      _impossible -> :impossible
    end
  end
end
