defmodule Tank.Store.Alarms do
  @moduledoc false
  # What is wrong with a store while it, or what is left of it, goes on: for the log and for `Tank.Store.Cluster.status/1`.
  #
  # An engine has alarms of its own, which its server logs (`log/3`). Those here are about stores without an open engine,
  # or about what only Elixir knows: whatever finds the cause calls `set/4`, and `clear/2` once the cause is gone. They
  # are kept in a table for as long as the library runs.

  use GenServer

  alias Tank.Store.Log

  @typedoc "`details` has a `:message` that says what happened and what to do."
  @type alarm :: {name :: atom, details :: %{required(:message) => String.t(), optional(atom) => term}}

  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Raises an alarm about a store. It is logged unless one of this name is raised already; its details are replaced."
  @spec set(atom, atom, String.t(), map) :: :ok
  def set(store_id, name, message, details \\ %{}) do
    details = Map.put(details, :message, message)
    new? = :ets.insert_new(__MODULE__, {{store_id, name}, details})
    if new?, do: log(store_id, :raised, {name, details}), else: :ets.insert(__MODULE__, {{store_id, name}, details})
    :ok
  end

  @doc "Clears an alarm, if it was raised."
  @spec clear(atom, atom) :: :ok
  def clear(store_id, name) do
    for {_key, details} <- :ets.take(__MODULE__, {store_id, name}), do: log(store_id, :cleared, {name, details})
    :ok
  end

  @doc "The alarms that are raised here about a store, by name."
  @spec list(atom) :: [alarm]
  def list(store_id),
    do: for([name, details] <- :ets.match(__MODULE__, {{store_id, :"$1"}, :"$2"}), do: {name, details}) |> Enum.sort()

  @doc "Logs that an alarm was raised or cleared."
  @spec log(atom, :raised | :cleared, alarm) :: :ok
  def log(store_id, :raised, {name, details}),
    do: Log.error(store_id, :alarm, "store #{inspect(store_id)}: alarm #{name}: #{details.message}")

  def log(store_id, :cleared, {name, _details}),
    do: Log.log(store_id, :notice, :alarm, "store #{inspect(store_id)}: alarm #{name} is cleared")

  @impl true
  def init(nil) do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    {:ok, nil}
  end
end
