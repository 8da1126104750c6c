defmodule Tank.Store.Application do
  @moduledoc false
  # The library's own supervisor. A store lives under it, and so outlives the process that started it.

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      {Registry, keys: :unique, name: Tank.Store.Names},
      {DynamicSupervisor, name: Tank.Store.Instances, strategy: :one_for_one},
      # Last, so that its end is not that of a store.
      Tank.Store.Registry.Supervisor
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: Tank.Store.Supervisor)
  end
end
