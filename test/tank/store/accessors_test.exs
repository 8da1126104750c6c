defmodule Tank.Store.AccessorsTest do
  # put_at, get_at, delete_at and children_at, which later versions of Tank call.
  use ExUnit.Case, async: true
  use Tank.Store.Testing

  import Tank.Store.TankCase, only: [pod: 1]

  import Tank.Store, only: [put_at: 2, get_at: 1, delete_at: 1, children_at: 1]

  defp children(path) do
    {:ok, children} = children_at(path)
    Enum.sort(children)
  end

  test "a value is put, overwritten and deleted" do
    assert get_at([:tank_web, "users", "1"]) == {:error, :not_found}
    assert put_at([:tank_web, "users", "1"], %{name: "a"}) == :ok
    assert get_at([:tank_web, "users", "1"]) == {:ok, %{name: "a"}}
    assert put_at([:tank_web, "users", "1"], %{name: "b"}) == :ok
    assert get_at([:tank_web, "users", "1"]) == {:ok, %{name: "b"}}
    assert delete_at([:tank_web, "users", "1"]) == :ok
    assert get_at([:tank_web, "users", "1"]) == {:error, :not_found}
    assert delete_at([:tank_web, "users", "1"]) == :ok
  end

  test "nil and empty values are values" do
    for {value, i} <- Enum.with_index([nil, false, "", [], %{}, {}, :undefined, :not_found, {:error, :not_found}]) do
      :ok = put_at([:v, "#{i}"], value)
      assert get_at([:v, "#{i}"]) === {:ok, value}
    end

    assert {"0", nil} in children([:v])
  end

  test "atoms and strings are different components, at every level" do
    for path <- [[:a], ["a"], [:a, :a], [:a, "a"], ["a", :a], ["a", "a"]], do: :ok = put_at(path, path)
    for path <- [[:a], ["a"], [:a, :a], [:a, "a"], ["a", :a], ["a", "a"]], do: assert(get_at(path) == {:ok, path})
    assert children([:a]) == [{:a, [:a, :a]}, {"a", [:a, "a"]}]
    assert children(["a"]) == [{:a, ["a", :a]}, {"a", ["a", "a"]}]
    assert children([]) == [{:a, [:a]}, {"a", ["a"]}]
    :ok = delete_at([:a])
    assert children([]) == [{"a", ["a"]}]
    assert children([:a]) == []
    assert children(["a"]) == [{:a, ["a", :a]}, {"a", ["a", "a"]}]
  end

  test "a node that only has nodes below it has no value" do
    :ok = put_at([:a, :b, :c], 1)
    assert get_at([:a]) == {:error, :not_found}
    assert get_at([:a, :b]) == {:error, :not_found}
    assert children([]) == []
    assert children([:a]) == []
    assert children([:a, :b]) == [{:c, 1}]
  end

  test "children are the direct ones" do
    for path <- [[:a], [:a, "1"], [:a, "1", "x"], [:a, "2"], [:a, "3", "x"], [:ab, "4"], [:b]],
        do: :ok = put_at(path, 0)

    assert children([:a]) == [{"1", 0}, {"2", 0}]
    assert children([]) == [{:a, 0}, {:b, 0}]
  end

  test "a missing path, and one without children, has none" do
    :ok = put_at([:leaf], 1)
    assert children_at([:missing]) == {:ok, []}
    assert children_at([:missing, "deep", :path]) == {:ok, []}
    assert children_at([:leaf]) == {:ok, []}
    assert children_at([]) == {:ok, [{:leaf, 1}]}
  end

  test "a node keeps its value when children come and go" do
    :ok = put_at([:a, :b], 1)
    :ok = put_at([:a], 2)
    :ok = delete_at([:a, :b])
    assert get_at([:a]) == {:ok, 2}
    assert children_at([:a]) == {:ok, []}
  end

  test "deleting takes the whole subtree, and nothing beside it" do
    inside = [[:a, "b"], [:a, "b", :c], [:a, "b", "c", "d"], [:a, "b", <<0>>], [:a, "b", <<255, 255>>]]

    beside = [
      [:a],
      [:a, :b],
      [:a, "b\0"],
      [:a, "bb"],
      [:a, "a"],
      ["a", "b"],
      [:a, "c"],
      [:a, "b\x01"],
      [:a, <<?b, 255>>]
    ]

    for path <- inside ++ beside, do: :ok = put_at(path, path)
    assert delete_at([:a, "b"]) == :ok
    for path <- inside, do: assert(get_at(path) == {:error, :not_found})
    for path <- beside, do: assert(get_at(path) == {:ok, path})
  end

  test "deleting a node without a value takes what is below" do
    :ok = put_at([:a, :b, :c], 1)
    assert delete_at([:a]) == :ok
    assert get_at([:a, :b, :c]) == {:error, :not_found}
  end

  test "the root is a node: it may hold a value, has children, and deleting it deletes everything" do
    :ok = put_at([], "root")
    :ok = put_at([:a], 1)
    :ok = Tank.Store.put_pod(pod("web"))
    assert get_at([]) == {:ok, "root"}
    assert children_at([]) == {:ok, [{:a, 1}]}
    assert delete_at([]) == :ok
    assert get_at([]) == {:error, :not_found}
    assert children_at([]) == {:ok, []}
    assert Tank.Store.list_pods() == []
  end

  test "a pod is an entry at [:tank, :pods, name]" do
    :ok = Tank.Store.put_pod(pod("web"))
    assert get_at([:tank, :pods, "web"]) == {:ok, pod("web")}
    assert children_at([:tank, :pods]) == {:ok, [{"web", pod("web")}]}
    :ok = delete_at([:tank, :pods])
    assert Tank.Store.list_pods() == []
  end

  test "many children come back, each once" do
    names = for i <- 1..1_000, do: "n#{i}"
    names |> Task.async_stream(&put_at([:many, &1], &1), max_concurrency: 50) |> Stream.run()
    assert children([:many]) == names |> Enum.sort() |> Enum.map(&{&1, &1})
  end
end
