defmodule Tank.Store.Faults.Ledger do
  @moduledoc """
  The record of what a store was asked and what it answered, and the judgement on what it holds after a fault.

  Each answered operation moves its pod on. Operations on a pod that one writer writes are ordered by their number;
  those on a shared pod by the revision that the store gave them. After a fault a pod must be what its last acknowledged
  operation left, or what an operation of unknown outcome may have made of it, and nothing else.
  """

  alias Tank.Store.Faults.Workload

  # base: what the pod was at the last check, an operation's id or nil when it was absent.
  @key %{base: nil, acknowledged: [], unknown: []}

  defstruct keys: %{}, acknowledged: 0, answered: %{}, revision: 0, revision_floor: 0, problems: []

  @type answer :: {:ok, revision :: pos_integer | nil} | :exists | :not_written | :unknown
  @type problem :: {kind :: atom, name :: String.t(), details :: map}
  @type t :: %__MODULE__{}

  @spec new :: t
  def new, do: %__MODULE__{}

  @doc "Notes the answer to an operation."
  @spec note(t, Workload.id(), answer) :: t
  def note(ledger, {run, writer, n} = id, answer) do
    {kind, name} = Workload.op(id)
    key = Map.get(ledger.keys, name, @key)

    %{ledger | answered: Map.put(ledger.answered, {run, writer}, n)}
    |> note_problem(name, problem(answer, kind, name, key, ledger))
    |> note_answer(id, kind, name, key, answer)
  end

  @doc "Notes that the writers of a run were stopped by a fault: each may have had one more operation under way."
  @spec note_crash(t, pos_integer) :: t
  def note_crash(ledger, run) do
    Enum.reduce(1..Workload.writers(run), ledger, fn writer, ledger ->
      note(ledger, {run, writer, Map.get(ledger.answered, {run, writer}, -1) + 1}, :unknown)
    end)
  end

  @doc """
  Judges what a store holds: its pods by name. Returns the ledger to go on with, and what is wrong.

  A problem `:lost` says how many acknowledged operations on that pod were lost.
  """
  @spec judge(t, %{String.t() => term}) :: {t, [problem]}
  def judge(ledger, pods) do
    names = MapSet.union(MapSet.new(Map.keys(ledger.keys)), MapSet.new(Map.keys(pods)))
    judged = for name <- names, do: judge_pod(name, Map.get(ledger.keys, name, @key), Map.fetch(pods, name))
    keys = for {name, id, _problems} when id != nil <- judged, into: %{}, do: {name, %{@key | base: id}}
    problems = Enum.flat_map(judged, &elem(&1, 2))

    {%{ledger | keys: keys, answered: %{}, problems: [], revision_floor: ledger.revision}, ledger.problems ++ problems}
  end

  @doc "How many acknowledged writes some problems stand for."
  @spec lost([problem]) :: non_neg_integer
  def lost(problems), do: Enum.sum(for {:lost, _name, %{operations: count}} <- problems, do: count)

  defp note_problem(ledger, _name, nil), do: ledger
  defp note_problem(ledger, name, {kind, details}), do: %{ledger | problems: [{kind, name, details} | ledger.problems]}

  defp note_answer(ledger, id, kind, name, key, {:ok, revision}) do
    {run, _writer, n} = id
    order = revision || {run, n}
    key = %{key | acknowledged: [{order, id, kind} | key.acknowledged]}
    keys = Map.put(ledger.keys, name, key)
    %{ledger | keys: keys, acknowledged: ledger.acknowledged + 1, revision: max(ledger.revision, revision || 0)}
  end

  defp note_answer(ledger, id, kind, name, key, :unknown) do
    %{ledger | keys: Map.put(ledger.keys, name, %{key | unknown: [{elem(id, 2), id, kind} | key.unknown]})}
  end

  defp note_answer(ledger, _id, _kind, _name, _key, _not_written), do: ledger

  # What an answer tells about the pod at that moment, where one writer writes it and so knows.
  defp problem({:ok, revision}, _kind, _name, _key, %{revision_floor: floor})
       when revision != nil and revision <= floor,
       do: {:revision_went_back, %{revision: revision, floor: floor}}

  defp problem(answer, :create, name, key, _ledger) do
    case {Workload.shared?(name), pending(key), left(key), answer} do
      {false, [], nil, :exists} -> {:absent_pod_exists, %{}}
      {false, [], id, {:ok, _revision}} when id != nil -> {:created_twice, %{there: id}}
      _fine -> nil
    end
  end

  defp problem(_answer, _kind, _name, _key, _ledger), do: nil

  defp judge_pod(name, key, :error), do: {name, nil, found_problems(name, key, nil)}

  defp judge_pod(name, key, {:ok, pod}) do
    case Workload.id(pod) do
      nil -> {name, nil, [{:damaged, name, %{pod: pod}}]}
      id -> {name, id, found_problems(name, key, id)}
    end
  end

  defp found_problems(name, key, found) do
    cond do
      found in allowed(name, key) -> []
      found != nil and not attempted?(name, key, found) -> [{:never_written, name, %{found: found}}]
      true -> [{:lost, name, %{operations: lost_count(key, found), last: last(key), found: found}}]
    end
  end

  defp allowed(name, key) do
    unknown = if Workload.shared?(name), do: key.unknown, else: pending(key)
    absent? = left(key) == nil or Enum.any?(unknown, &match?({_n, _id, :delete}, &1))
    [left(key) | for({_n, id, kind} <- unknown, kind != :create or absent?, do: effect(id, kind))]
  end

  defp attempted?(name, key, found) do
    known = for {_order, id, kind} <- key.acknowledged ++ key.unknown, do: effect(id, kind)
    match?({_kind, ^name}, Workload.op(found)) and found in [key.base | known]
  end

  # Acknowledged operations that came after the one whose pod was found; at least the last one.
  defp lost_count(key, found) do
    found_at = Enum.find_value(key.acknowledged, -1, fn {order, id, _kind} -> if id == found, do: order end)
    max(1, Enum.count(key.acknowledged, fn {order, _id, _kind} -> order > found_at end))
  end

  # What the last acknowledged operation left.
  defp left(key) do
    case last(key) do
      {_order, id, kind} -> effect(id, kind)
      nil -> key.base
    end
  end

  defp last(key), do: Enum.max(key.acknowledged, fn -> nil end)

  # Operations of unknown outcome that their writer made after the last acknowledged one.
  defp pending(key) do
    case last(key) do
      nil -> key.unknown
      {_order, last_id, _kind} -> Enum.filter(key.unknown, fn {_n, id, _kind} -> id > last_id end)
    end
  end

  defp effect(_id, :delete), do: nil
  defp effect(id, _kind), do: id
end
