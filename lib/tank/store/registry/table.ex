defmodule Tank.Store.Registry.Table do
  @moduledoc false
  # What a registry that is killed leaves to the next one: this node's rows, what others said, and who is subscribed.
  #
  # The supervisor owns the table, so that subscribers go on hearing what changes, and nothing that did not change.
  # Events are sent before the table is written: should the registry be killed just between, one is sent twice.

  alias Tank.Store.Registry.{Own, Row}

  @type left :: %{
          own: %{optional(atom) => Own.entry()},
          others: %{optional(node) => %{optional(atom) => Row.t()}},
          subscribers: %{optional(pid) => boolean}
        }

  @doc "Makes the table, unless there is one; it belongs to the calling process."
  @spec make :: :ok
  def make do
    if :ets.whereis(__MODULE__) == :undefined, do: :ets.new(__MODULE__, [:named_table, :public])
    :ok
  end

  @doc "All that is in it."
  @spec load :: left
  def load do
    Enum.reduce(:ets.tab2list(__MODULE__), %{own: %{}, others: %{}, subscribers: %{}}, fn {{part, key}, value}, left ->
      put_in(left, [part, key], value)
    end)
  end

  @doc "Keeps a value, in the place of the one of its key; nil removes it."
  @spec put(:own | :others | :subscribers, term, term) :: true
  def put(part, key, nil), do: :ets.delete(__MODULE__, {part, key})
  def put(part, key, value), do: :ets.insert(__MODULE__, {{part, key}, value})
end
