defmodule Tank.Store.Registry.Own do
  @moduledoc false
  # This node's rows, and the processes that they depend on. Pure, besides monitors.
  #
  #     announced by a process       --ends normally--> stays until it is unannounced
  #                                  --crashes, is killed or shut down--> retired
  #     a store of this library      --closes, or its server ends in any way--> retired
  #                                  --is unannounced--> hidden, as long as that server lives
  #
  # A hidden entry has no row: looking for running stores again must not bring it back.

  alias Tank.Store.Registry.Row

  @type kind :: :process | :store
  @type entry :: %{row: Row.t() | nil, kind: kind, pid: pid | nil}
  @type t :: %{entries: %{optional(atom) => entry}, monitors: %{optional(atom) => reference}}
  @type change :: {:announced | :retired, Row.t()}

  @doc "From what a former registry left: processes that ended meanwhile are told like others."
  @spec new(%{optional(atom) => entry}) :: t
  def new(entries) do
    monitors = for {id, %{pid: pid}} when pid != nil <- entries, into: %{}, do: {id, Process.monitor(pid)}
    %{entries: entries, monitors: monitors}
  end

  @doc "The rows, by store id."
  @spec rows(t) :: %{optional(atom) => Row.t()}
  def rows(own), do: for({id, %{row: row}} when row != nil <- own.entries, into: %{}, do: {id, row})

  @doc "Whether a process, or a running store, is known already: announced or hidden."
  @spec known?(t, atom, pid) :: boolean
  def known?(own, id, pid), do: match?(%{^id => %{pid: ^pid}}, own.entries)

  @doc "The entry of a store."
  @spec entry(t, atom) :: entry | nil
  def entry(own, id), do: own.entries[id]

  @doc "Announces a row that depends on `pid`, in the place of the one that there is."
  @spec announce(t, kind, pid, Row.t()) :: {t, [change]}
  def announce(own, kind, pid, %{store_id: id} = row) do
    {own, retired} = retire_dead(own, id)

    # What says the same as before is no change: it has been registered since then.
    case own.entries[id] do
      %{row: %{} = old} ->
        if Row.same?(old, row), do: set(own, old, kind, pid, []), else: set_new(own, row, kind, pid, [])

      _none_or_hidden ->
        set_new(own, row, kind, pid, retired)
    end
  end

  @doc "Gives a row the name that the node has now."
  @spec rename(t, Row.t()) :: {t, [change]}
  def rename(own, %{store_id: id} = row),
    do: {put_in(own.entries[id].row, row), retired(own.entries[id]) ++ [{:announced, row}]}

  @doc "Retires a store for good."
  @spec remove(t, atom) :: {t, [change]}
  def remove(own, id) do
    own = demonitor(own, id)
    {entry, entries} = Map.pop(own.entries, id)
    {%{own | entries: entries}, retired(entry)}
  end

  @doc "Retires a store until its server is another one than `pid`."
  @spec hide(t, atom, pid) :: {t, [change]}
  def hide(own, id, pid) do
    {put(own, id, %{row: nil, kind: :store, pid: pid}), retired(own.entries[id])}
  end

  @doc "A monitored process has ended; nil when it is none of these."
  @spec ended(t, reference, term) :: {atom, t, [change]} | nil
  def ended(own, monitor, reason) do
    with {id, ^monitor} <- Enum.find(own.monitors, fn {_id, ref} -> ref == monitor end) do
      if own.entries[id].kind == :process and normal?(reason) do
        own = demonitor(own, id)
        {id, put_in(own.entries[id].pid, nil), []}
      else
        {own, changes} = remove(own, id)
        {id, own, changes}
      end
    end
  end

  # When a process was killed, and its successor announces the store again before its end is told.
  defp retire_dead(own, id) do
    case own.entries[id] do
      %{pid: pid} when pid != nil -> if Process.alive?(pid), do: {own, []}, else: remove(own, id)
      _none -> {own, []}
    end
  end

  defp set_new(own, row, kind, pid, retired), do: set(own, row, kind, pid, retired ++ [{:announced, row}])
  defp set(own, row, kind, pid, changes), do: {put(own, row.store_id, %{row: row, kind: kind, pid: pid}), changes}

  defp put(own, id, entry) do
    own = demonitor(own, id)
    monitors = Map.put(own.monitors, id, Process.monitor(entry.pid))
    %{own | entries: Map.put(own.entries, id, entry), monitors: monitors}
  end

  defp demonitor(own, id) do
    {monitor, monitors} = Map.pop(own.monitors, id)
    if monitor, do: Process.demonitor(monitor, [:flush])
    %{own | monitors: monitors}
  end

  defp retired(%{row: row}) when row != nil, do: [{:retired, row}]
  defp retired(_none), do: []

  # A call from another node (`:erpc`, `:rpc`) ends in a process that exits with what it returns.
  defp normal?(:normal), do: true
  defp normal?({ref, :return, _value}) when is_reference(ref), do: true
  defp normal?(_reason), do: false
end
