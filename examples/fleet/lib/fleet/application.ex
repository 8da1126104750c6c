defmodule Fleet.Application do
  # Everything of one node under one supervisor: two stores, and what lives on them.
  use Application

  @impl true
  def start(_type, _args) do
    children =
      [store(:fleet), store(:limits)] ++
        [
          {Tank.Store.Projection,
           store_id: :fleet, pattern: [:jobs], table: :jobs, key: &List.last(&1.path), value: & &1.value},
          {Tank.Store.Lease.Keeper,
           store_id: :fleet, lease: [:leaders, "planner"], ttl: 5_000, handler: &Fleet.Planner.lead/1},
          {Tank.Store.Syncer, store_id: :limits, prefix: [:limits], callbacks: Fleet.Limits},
          {Tank.Store.Dashboard, store_id: :fleet, port: Application.fetch_env!(:fleet, :dashboard_port)}
        ]

    # What follows a store is started again when the store is.
    Supervisor.start_link(children, strategy: :rest_for_one, name: Fleet.Supervisor)
  end

  # Nodes may boot in any order, minutes apart: a store waits for the others of the list.
  defp store(id) do
    dir = Path.join(Application.fetch_env!(:fleet, :data_dir), Atom.to_string(id))
    options = [store_id: id, data_dir: dir, timeout: :infinity]

    case Application.fetch_env!(:fleet, :nodes) do
      [] -> {Tank.Store.Cluster, options}
      nodes -> {Tank.Store.Cluster, options ++ [cluster: nodes]}
    end
  end
end
