defmodule Tank.Store.Application do
  @moduledoc false
  # The library's own supervisor. A store lives under it, and so outlives the process that started it.

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      {Registry, keys: :unique, name: Tank.Store.Names},
      # Before the stores: it stops after them, so that their watches are told.
      {DynamicSupervisor, name: Tank.Store.Watches, strategy: :one_for_one},
      {DynamicSupervisor, name: Tank.Store.Instances, strategy: :one_for_one}
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: Tank.Store.Supervisor)
  end
end
