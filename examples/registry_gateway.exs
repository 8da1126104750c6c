# The gateway of examples/registry.exs.

defmodule RegistryGateway do
  use GenServer

  alias Tank.Store.Registry

  # On its own: whoever calls this need not live on.
  def start, do: GenServer.start(__MODULE__, [], name: __MODULE__)

  @doc "The nodes that a store runs on, as far as the gateway was told."
  def nodes(store_id), do: GenServer.call(__MODULE__, {:nodes, store_id})

  @doc "Sends a request to a store, on any of its nodes; here it only asks how the store is."
  def request(store_id) do
    case nodes(store_id) do
      [] ->
        {:error, :nowhere}

      nodes ->
        node = Enum.random(nodes)
        {:ok, status} = :erpc.call(node, Tank.Store.Cluster, :status, [store_id], 5_000)
        {node, "revision #{status.revision}"}
    end
  end

  @doc "What was heard, a line each."
  def log, do: GenServer.call(__MODULE__, :log)

  def kill_registry, do: Process.exit(Process.whereis(Registry), :kill)

  @impl true
  def init([]) do
    # All stores that run come first, and then each change: there is no moment between that could be missed.
    :ok = Registry.subscribe(self(), snapshot: true)
    {:ok, %{routes: %{}, log: []}}
  end

  @impl true
  def handle_call({:nodes, store_id}, _from, state) do
    {:reply, state.routes |> Map.get(store_id, %{}) |> Map.keys() |> Enum.sort(), state}
  end

  def handle_call(:log, _from, state), do: {:reply, Enum.reverse(state.log), state}

  @impl true
  def handle_info({:store_event, type, row}, state) do
    line = "#{type} #{row.store_id} on #{row.node}"
    {:noreply, %{state | routes: route(type, row, state.routes), log: [line | state.log]}}
  end

  defp route(:announced, row, routes),
    do: Map.update(routes, row.store_id, %{row.node => row}, &Map.put(&1, row.node, row))

  defp route(:retired, row, routes), do: Map.update(routes, row.store_id, %{}, &Map.delete(&1, row.node))
end
