defmodule Tank.Store.LastView do
  @moduledoc false
  # What is left of stores whose servers ended though nobody stopped them: their last views, for reads of what this node
  # knows, until the store runs again.
  #
  #     server crashes or is killed, or its owner is -->  last view --the store is open again, or is stopped--> gone
  #                                                           |
  #                                                           +----------nobody restarts it for a while-------> gone
  #
  # The views are where callers look for stores (`Tank.Store.Running`). This process forgets those that nobody restarts:
  # they take as much memory as the store did.

  use GenServer

  alias Tank.Store.{Running, Server}

  # Opening a store takes seconds at the most, unless its disk hangs.
  @keep_ms 30_000

  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Notes that the calling process is the server of a store: what it leaves is forgotten in time."
  @spec follow(atom) :: :ok
  def follow(store_id), do: GenServer.cast(__MODULE__, {:follow, store_id, self()})

  @doc "Forgets what is left of a store that was stopped, unless it runs again."
  @spec forget(atom) :: :ok
  def forget(store_id) do
    # A server that has just begun opens the store before callers find it.
    if Server.whereis(store_id) == nil, do: Running.delete(store_id), else: :ok
  end

  @impl true
  # By monitor, the stores of the servers that run.
  def init(nil), do: {:ok, %{}}

  @impl true
  def handle_cast({:follow, store_id, server}, followed),
    do: {:noreply, Map.put(followed, Process.monitor(server), store_id)}

  @impl true
  def handle_info({:DOWN, monitor, :process, _server, _reason}, followed) do
    {store_id, followed} = Map.pop!(followed, monitor)
    Process.send_after(self(), {:forget, store_id}, @keep_ms)
    {:noreply, followed}
  end

  def handle_info({:forget, store_id}, followed) do
    forget(store_id)
    {:noreply, followed}
  end

  def handle_info(_other, followed), do: {:noreply, followed}
end
