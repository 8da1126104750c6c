defmodule Tank.Store.Application do
  @moduledoc false
  # The library's own supervisor. A store lives under it, and so outlives the process that started it.

  use Application

  # A supervisor waits for each child to open or to close, which takes long on a disk that hangs. With so many of them
  # two stores hardly ever have the same one.
  @instances 64

  @impl true
  def start(_type, _args), do: with(:ok <- Tank.Store.Native.check(), do: start())

  defp start do
    # This process lives as long as the application.
    :ok = Tank.Store.Identity.make()
    :ok = Tank.Store.Telemetry.detect()

    children = [
      {Registry, keys: :unique, name: Tank.Store.Names},
      Tank.Store.Alarms,
      Tank.Store.LastView,
      Tank.Store.Logs,
      # Before the stores: it stops after them, so that their watches are told.
      {DynamicSupervisor, name: Tank.Store.Watches, strategy: :one_for_one},
      {PartitionSupervisor, child_spec: DynamicSupervisor, name: Tank.Store.Instances, partitions: @instances},
      # What Khepri's API runs next to a store; nothing without it.
      {DynamicSupervisor, name: Tank.Khepri.Processes, strategy: :one_for_one},
      # Last, so that its end is not that of a store.
      Tank.Store.Registry.Supervisor
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: Tank.Store.Supervisor)
  end
end
