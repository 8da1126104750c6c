defmodule Tank.Store.Registry.Supervisor do
  @moduledoc false
  # Keeps the `:pg` scope and the registry of this node running. Neither takes the other with it.
  #
  # Finding stores must never end them: this is the last child of the library's supervisor, and gives up late.

  use Supervisor

  alias Tank.Store.Registry.{Meeting, Server, Table}

  def start_link(options), do: Supervisor.start_link(__MODULE__, options, name: __MODULE__)

  @impl true
  def init(_options) do
    # The table is this process's: it outlives the registry.
    :ok = Table.make()
    Supervisor.init([Meeting, Server], strategy: :one_for_one, max_restarts: 100, max_seconds: 5)
  end
end
