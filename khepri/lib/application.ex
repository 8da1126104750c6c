defmodule Tank.Khepri.Application do
  @moduledoc false

  use Application

  @impl Application
  def start(_type, _args), do: Supervisor.start_link([], strategy: :one_for_one, name: Tank.Khepri.Supervisor)

  @impl Application
  def stop(_state) do
    for store <- Tank.Khepri.Cluster.get_store_ids(), do: Tank.Khepri.Cluster.stop(store)
    :ok
  end
end
