defmodule Tank.Store.GroveDocsTest do
  # The examples in the documentation of Tank.Store.Grove, which use a store of this name.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Cluster

  setup_all do
    {:ok, :grove_doc} = Cluster.start(module_dir(__MODULE__), :grove_doc, 60_000)
    on_exit(fn -> Cluster.stop(:grove_doc) end)
  end

  doctest Tank.Store.Grove
end
