defmodule Tank.Store.Registry.Others do
  @moduledoc false
  # What the registries of other nodes said about their own nodes. Pure.
  #
  # Each says all its rows when it is asked, and then each change, under its incarnation and the number of the change:
  #
  #     unknown --all rows--> current --next change--> current
  #                             |  ^---all rows--- behind <--a change was missed--+
  #                             |                                                 |
  #                             +---its process ends, its node stays--> orphaned -+--too long--> unknown
  #                             +---its node goes, or it says goodbye--> unknown
  #
  # What comes from a former incarnation, or was overtaken by what is known, is ignored. An incarnation is
  # `{vm, number}`; numbers of one VM rise, and one VM of a node ends before the next one begins.

  alias Tank.Store.Registry.Row

  @type incarnation :: {term, integer}
  @type rows :: %{optional(atom) => Row.t()}
  @type other :: %{pid: pid | nil, incarnation: incarnation | nil, seq: non_neg_integer, rows: rows}
  @type t :: %{optional(node) => other}

  @doc "From what a former registry of this node left: rows whose registries are not known yet."
  @spec new(%{optional(node) => rows}) :: t
  def new(left), do: Map.new(left, fn {node, rows} -> {node, %{pid: nil, incarnation: nil, seq: 0, rows: rows}} end)

  @doc "An incarnation of this node's registry, later than all before it."
  @spec incarnation :: incarnation
  def incarnation do
    started_at = :erlang.system_info(:start_time) + :erlang.time_offset()
    {{System.pid(), started_at}, :erlang.unique_integer([:monotonic])}
  end

  @doc "The registry `pid` has said all its rows."
  @spec all(t, pid, incarnation, non_neg_integer, [Row.t()]) :: {:ok, t} | :old
  def all(others, pid, incarnation, seq, rows) do
    other = others[node(pid)]

    case order(other, incarnation) do
      :older -> :old
      :same when seq < other.seq -> :old
      _newer_or_same -> {:ok, put(others, pid, incarnation, seq, own_rows(pid, rows))}
    end
  end

  @doc "The registry `pid` has said one change: `{:announced, row}` or `{:retired, store_id}`."
  @spec change(t, pid, incarnation, pos_integer, {:announced, Row.t()} | {:retired, atom}) :: {:ok, t} | :old | :gap
  def change(others, pid, incarnation, seq, change) do
    other = others[node(pid)]

    case order(other, incarnation) do
      :older -> :old
      :newer -> :gap
      :same when seq <= other.seq -> :old
      :same when seq > other.seq + 1 -> :gap
      :same -> {:ok, put(others, pid, incarnation, seq, changed(other.rows, pid, change))}
    end
  end

  @doc "Whether this is the registry that all is known from."
  @spec current?(t, pid) :: boolean
  def current?(others, pid), do: match?(%{pid: ^pid}, others[node(pid)])

  @doc "The registry `pid` has ended; its node is still there, and so may its stores be."
  @spec orphan(t, pid) :: {:orphaned, t} | :none
  def orphan(others, pid) do
    if current?(others, pid), do: {:orphaned, put_in(others[node(pid)].pid, nil)}, else: :none
  end

  @doc "Whether the rows of a node have no registry that stands for them."
  @spec orphaned?(t, node) :: boolean
  def orphaned?(others, node), do: match?(%{pid: nil}, others[node])

  @doc "The rows of a node."
  @spec rows(t, node) :: rows
  def rows(others, node), do: if(other = others[node], do: other.rows, else: %{})

  # The rows of an orphan without an incarnation were left by a former registry of this node.
  defp order(nil, _incarnation), do: :newer
  defp order(%{incarnation: {vm, known}}, {vm, number}) when number < known, do: :older
  defp order(%{incarnation: incarnation}, incarnation), do: :same
  defp order(_other, _incarnation), do: :newer

  defp put(others, pid, incarnation, seq, rows),
    do: Map.put(others, node(pid), %{pid: pid, incarnation: incarnation, seq: seq, rows: rows})

  # Nobody is heard about a node that is not its own.
  defp own_rows(pid, rows), do: for(row <- rows, Row.of_node?(row, node(pid)), into: %{}, do: {row.store_id, row})

  defp changed(rows, pid, {:announced, row}), do: Map.merge(rows, own_rows(pid, [row]))
  defp changed(rows, _pid, {:retired, store_id}), do: Map.delete(rows, store_id)
end
