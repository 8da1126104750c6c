defmodule Tank.Store.DocsTest do
  # The examples in the documentation of the modules below Tank.Store.
  use ExUnit.Case, async: true

  doctest Tank.Store.Cluster
  doctest Tank.Store.Error
  doctest Tank.Store.Path
  doctest Tank.Store.Projection
  doctest Tank.Store.Watch
  doctest Tank.Store.Pattern
end
