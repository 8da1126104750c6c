defmodule Tank.Store.TermCacheTest do
  # Which values the library keeps decoded; that they are the same as before is seen everywhere. Where memory has no
  # bound, what is read alone is kept elsewhere: read_cache_test.exs.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Tree}

  @moduletag :tmp_dir

  @value Enum.to_list(1..1_000)

  setup %{tmp_dir: dir} do
    store = start_store(dir, memory_bytes_max: 100_000_000)
    for name <- ["once", "again", "listed"], do: {:ok, _revision} = Tree.put(store, [name, "value"], @value)
    {:ok, store: store, before: memory(store)}
  end

  test "a value that is read alone is decoded for others when it is read again", %{store: store, before: before} do
    read(store, "once")
    assert memory(store) == before
    for _time <- 1..2, do: read(store, "again")
    # Whatever was asked for is decoded in turn: it would be there, too.
    one = eventually("a decoded value", fn -> memory(store) > before and memory(store) - before end)
    read(store, "once")
    eventually("the other one", fn -> memory(store) == before + 2 * one or {:not_yet, memory(store) - before} end)
    for name <- ["once", "again"], _time <- 1..2, do: read(store, name)
    assert memory(store) == before + 2 * one
  end

  test "a value of a list is decoded for others at once", %{store: store, before: before} do
    assert {:ok, [%{value: @value}], _revision} = Tree.list(store, ["listed"])
    eventually("a decoded value", fn -> memory(store) > before end)
  end

  test "a transaction that reads and writes decodes for itself alone", %{store: store} do
    for n <- 1..20 do
      assert {:ok, _result} =
               Tree.transaction(store, fn tx ->
                 {:ok, [_before | rest]} = Tree.get(tx, ["once", "value"])
                 Tree.put(tx, ["once", "value"], [n | rest])
               end)
    end

    # With the versions before, which the history holds.
    before = memory(store)
    for _time <- 1..2, do: read(store, "again")
    one = eventually("a decoded value", fn -> memory(store) > before and memory(store) - before end)
    for _time <- 1..2, do: read(store, "listed")
    eventually("another one, and no more", fn -> memory(store) == before + 2 * one or {:not_yet, memory(store)} end)
  end

  defp read(store, name), do: {:ok, @value} = Tree.get(store, [name, "value"])

  defp memory(store) do
    {:ok, %{memory_bytes: bytes}} = Cluster.status(store)
    bytes
  end
end
