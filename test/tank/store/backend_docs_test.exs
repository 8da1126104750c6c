defmodule Tank.Store.BackendDocsTest do
  # The examples of the modules below Tank.Store.Backend, which use a store with the id :app.
  use Tank.Store.TankCase, async: false

  setup_all do
    dir = module_dir(__MODULE__)
    {:ok, :app} = Tank.Store.Cluster.start(dir, :app)

    on_exit(fn ->
      Tank.Store.Cluster.stop(:app)
      File.rm_rf!(dir)
    end)
  end

  doctest Tank.Store.Backend
  doctest Tank.Store.Backend.Key
  doctest Tank.Store.Backend.ListOptions
end
