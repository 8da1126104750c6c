defmodule Tank.Store.Registry.Subscribers do
  @moduledoc false
  # Who hears of changes, until it dies.

  alias Tank.Store.Registry.{Row, Table}

  @type t :: %{optional(pid) => %{monitor: reference, snapshot?: boolean}}

  @doc "Those that a former registry left."
  @spec new(%{optional(pid) => boolean}) :: t
  def new(left), do: Map.new(left, fn {pid, snapshot?} -> {pid, entry(pid, snapshot?)} end)

  @doc "Adds one. With a snapshot, it gets `rows` first; once, however often it asks."
  @spec add(t, pid, boolean, [Row.t()]) :: t
  def add(subscribers, pid, snapshot?, rows) do
    known = subscribers[pid]
    had_snapshot? = known != nil and known.snapshot?
    if snapshot? and not had_snapshot?, do: Enum.each(rows, &send(pid, {:store_event, :announced, &1}))
    Table.put(:subscribers, pid, snapshot? or had_snapshot?)
    Map.put(subscribers, pid, %{(known || entry(pid, false)) | snapshot?: snapshot? or had_snapshot?})
  end

  @doc "Removes one."
  @spec remove(t, pid) :: t
  def remove(subscribers, pid) do
    {known, subscribers} = Map.pop(subscribers, pid)
    if known, do: Process.demonitor(known.monitor, [:flush])
    Table.put(:subscribers, pid, nil)
    subscribers
  end

  @doc "Tells all of them."
  @spec tell(t, [{:announced | :retired, Row.t()}]) :: :ok
  def tell(subscribers, changes) do
    for {type, row} <- changes, {pid, _entry} <- subscribers, do: send(pid, {:store_event, type, row})
    :ok
  end

  @doc "What makes `new` out of `old`: what went, then what came or is different."
  @spec difference(%{optional(atom) => Row.t()}, %{optional(atom) => Row.t()}) :: [{:announced | :retired, Row.t()}]
  def difference(old, new) do
    gone = for {id, row} <- old, not is_map_key(new, id), do: {:retired, row}
    come = for {id, row} <- new, old[id] != row, do: {:announced, row}
    gone ++ come
  end

  defp entry(pid, snapshot?), do: %{monitor: Process.monitor(pid), snapshot?: snapshot?}
end
