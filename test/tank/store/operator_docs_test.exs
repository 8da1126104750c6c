defmodule Tank.Store.OperatorDocsTest do
  # Examples that need a store under the name :tank, each its own.
  use ExUnit.Case, async: true
  use Tank.Store.Testing

  doctest Tank.Store.Dashboard
  doctest Tank.Store.IEx
  doctest Tank.Store.Lease.Keeper
  doctest Tank.Store.Metrics
  doctest Tank.Store.Ops
  doctest Tank.Store.Syncer
end
