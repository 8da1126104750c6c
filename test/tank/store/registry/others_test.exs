defmodule Tank.Store.Registry.OthersTest do
  # Incarnations and numbers: what is taken of what another node's registry says, whatever the order it comes in.
  use ExUnit.Case, async: true

  alias Tank.Store.Registry.Others

  # To the module, this node is as good as any other.
  setup do
    %{pid: self(), others: Others.new(%{})}
  end

  test "changes are taken in their order", %{others: others, pid: pid} do
    {:ok, others} = Others.all(others, pid, {:vm, 1}, 4, [row(:a)])
    {:ok, others} = Others.change(others, pid, {:vm, 1}, 5, {:announced, row(:b)})
    {:ok, others} = Others.change(others, pid, {:vm, 1}, 6, {:retired, :a})
    assert Others.rows(others, node()) == %{b: row(:b)}
  end

  test "one that is missed is asked for, one that is known is ignored", %{others: others, pid: pid} do
    assert Others.change(others, pid, {:vm, 1}, 1, {:announced, row(:a)}) == :gap
    {:ok, others} = Others.all(others, pid, {:vm, 1}, 4, [row(:a)])
    assert Others.change(others, pid, {:vm, 1}, 6, {:retired, :a}) == :gap
    # What was said before an unannounce does not bring the row back.
    {:ok, others} = Others.change(others, pid, {:vm, 1}, 5, {:retired, :a})
    assert Others.change(others, pid, {:vm, 1}, 3, {:announced, row(:a)}) == :old
    assert Others.change(others, pid, {:vm, 1}, 5, {:announced, row(:a)}) == :old
    assert Others.all(others, pid, {:vm, 1}, 4, [row(:a)]) == :old
    {:ok, others} = Others.all(others, pid, {:vm, 1}, 6, [row(:c)])
    assert Others.rows(others, node()) == %{c: row(:c)}
  end

  test "a former incarnation is ignored, a later one starts anew", %{others: others, pid: pid} do
    {:ok, others} = Others.all(others, pid, {:vm, 7}, 100, [row(:a)])
    assert Others.all(others, pid, {:vm, 6}, 200, [row(:b)]) == :old
    assert Others.change(others, pid, {:vm, 6}, 101, {:retired, :a}) == :old
    assert Others.change(others, pid, {:vm, 8}, 101, {:retired, :a}) == :gap
    assert Others.change(others, pid, {:vm, 8}, 1, {:retired, :a}) == :gap
    {:ok, others} = Others.all(others, pid, {:vm, 8}, 0, [row(:b)])
    {:ok, others} = Others.all(others, pid, {:another_vm, 1}, 0, Map.values(Others.rows(others, node())) ++ [row(:c)])
    assert Others.rows(others, node()) == %{b: row(:b), c: row(:c)}
  end

  test "an incarnation of this VM is later than those before it" do
    {vm, first} = Others.incarnation()
    assert {^vm, second} = Others.incarnation()
    assert second > first
  end

  test "nobody is heard about another node, and what is no row is dropped", %{others: others, pid: pid} do
    foreign = %{row(:a) | node: :foreign@nowhere}
    {:ok, others} = Others.all(others, pid, {:vm, 1}, 1, [foreign, row(:b), :nonsense, %{}])
    {:ok, others} = Others.change(others, pid, {:vm, 1}, 2, {:announced, foreign})
    assert Others.rows(others, node()) == %{b: row(:b)}
    assert Others.rows(others, :foreign@nowhere) == %{}
  end

  test "rows stay while their registry is away, under what it said", %{others: others, pid: pid} do
    assert Others.orphan(others, pid) == :none
    {:ok, others} = Others.all(others, pid, {:vm, 1}, 1, [row(:a)])
    assert Others.current?(others, pid)
    {:orphaned, others} = Others.orphan(others, pid)
    assert Others.orphaned?(others, node())
    refute Others.current?(others, pid)
    assert Others.rows(others, node()) == %{a: row(:a)}
    assert Others.all(others, pid, {:vm, 0}, 5, []) == :old
    {:ok, others} = Others.all(others, pid, {:vm, 2}, 0, [row(:a)])
    refute Others.orphaned?(others, node())
  end

  test "rows left by a former registry are taken over by whoever stands for them", %{pid: pid} do
    others = Others.new(%{node() => %{a: row(:a)}})
    assert Others.orphaned?(others, node())
    assert Others.change(others, pid, {:vm, 1}, 3, {:retired, :a}) == :gap
    assert {:ok, others} = Others.all(others, pid, {:vm, 1}, 3, [])
    assert Others.rows(others, node()) == %{}
  end

  defp row(id),
    do: %{store_id: id, node: node(), mode: :single, data_dir: "/", timeout: 5_000, registered_at: 1}
end
