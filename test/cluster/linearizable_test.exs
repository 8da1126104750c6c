defmodule Tank.Store.LinearizableTest do
  # The checker has to find what is wrong, or what it says of the store is worth nothing.
  use ExUnit.Case, async: true

  import Tank.Store.Linearizable

  defp entry(call, return, operation, result),
    do: %{operation: operation, result: result, call: call, return: return}

  defp put(call, return, value, result), do: entry(call, return, {:put, value}, result)
  defp get(call, return, value), do: entry(call, return, :get, {:ok, value})

  test "what came one after the other" do
    assert check([get(1, 2, nil), put(3, 4, :a, {:ok, 1}), get(5, 6, :a), put(7, 8, :b, {:ok, 2}), get(9, 10, :b)]) ==
             :ok
  end

  test "a read of what was overwritten before it began" do
    stale = get(5, 6, :a)
    assert check([put(1, 2, :a, {:ok, 1}), put(3, 4, :b, {:ok, 2}), stale]) == {:violation, stale}
  end

  test "a read of nothing after an acknowledged write: the write was lost" do
    lost = get(3, 4, nil)
    assert check([put(1, 2, :a, {:ok, 1}), lost]) == {:violation, lost}
  end

  test "a read during a write sees the old value or the new one, and nobody goes back afterwards" do
    writes = [put(1, 2, :a, {:ok, 1}), put(3, 10, :b, {:ok, 2})]
    assert check(writes ++ [get(4, 5, :a), get(6, 7, :b)]) == :ok
    assert {:violation, _entry} = check(writes ++ [get(4, 5, :b), get(6, 7, :a)])
  end

  test "an unknown outcome may show later, once, or never" do
    writes = [put(1, 2, :a, {:ok, 1}), put(3, nil, :b, :unknown)]
    assert check(writes ++ [get(4, 5, :a), get(8, 9, :a)]) == :ok
    assert check(writes ++ [get(4, 5, :a), get(8, 9, :b)]) == :ok
    assert {:violation, _entry} = check(writes ++ [get(4, 5, :b), get(8, 9, :a)])
    assert {:violation, _entry} = check([get(1, 2, :b), put(3, nil, :b, :unknown)]), "before it was asked for"
  end

  test "what surely had no effect must have none" do
    assert {:violation, _entry} = check([put(1, 2, :a, :failed), get(3, 4, :a)])
  end

  test "a comparison succeeds with the revision that is there, and with no other" do
    first = put(1, 2, :a, {:ok, 1})
    compare = fn revision, result -> entry(3, 4, {:compare_and_put, revision, :b}, result) end
    assert check([first, compare.(1, {:ok, 2}), get(5, 6, :b)]) == :ok
    assert check([first, compare.(7, {:conflict, 1}), get(5, 6, :a)]) == :ok
    assert {:violation, _entry} = check([first, compare.(7, {:ok, 2})])
    assert {:violation, _entry} = check([first, compare.(7, {:conflict, 3})])
    assert {:violation, _entry} = check([first, compare.(1, {:conflict, 1})])
  end

  test "two comparisons with the same revision: one wins" do
    compare = fn call, value, result -> entry(call, call + 5, {:compare_and_put, 1, value}, result) end
    first = put(1, 2, :a, {:ok, 1})
    assert check([first, compare.(3, :b, {:ok, 2}), compare.(4, :c, {:conflict, 2})]) == :ok
    assert {:violation, _entry} = check([first, compare.(3, :b, {:ok, 2}), compare.(4, :c, {:ok, 3})])
  end

  test "a refusal tells of a write whose outcome nobody knew" do
    lost = put(3, nil, :b, :unknown)
    refused = entry(4, 5, {:compare_and_put, 1, :c}, {:conflict, 2})
    assert check([put(1, 2, :a, {:ok, 1}), lost, refused, get(6, 7, :b)]) == :ok
    assert {:violation, _entry} = check([put(1, 2, :a, {:ok, 1}), lost, refused, get(6, 7, :a)])
  end

  test "too many orders are not decided, and that is said" do
    writes = for n <- 1..20, do: put(1, nil, n, :unknown)
    reads = for n <- 1..20, do: get(n + 2, 100, n)
    assert check(writes ++ reads) == :undecided
  end
end
