defmodule Tank.Store.Grove.GroupTest do
  use ExUnit.Case, async: true

  alias Tank.Store.Grove.Group

  test "any term is one component, and comes back as it was" do
    for group <- terms() do
      component = Group.to_component(group)
      assert byte_size(component) <= 255
      assert component == Group.to_component(group)

      case Group.from_component(component) do
        {:ok, same} -> assert same === group
        :in_value -> assert byte_size(:erlang.term_to_binary(group)) > 200
      end
    end
  end

  test "different terms have different components, as `===` compares them" do
    terms = Enum.uniq(terms())
    assert terms |> Enum.uniq_by(&Group.to_component/1) |> length() == length(terms)
    refute Group.to_component(1) == Group.to_component(1.0)
    refute Group.to_component({1, 2}) == Group.to_component({1.0, 2})
    refute Group.to_component(%{1 => :a}) == Group.to_component(%{1.0 => :a})
    refute Group.to_component(:a) == Group.to_component("a")
    refute Group.to_component(~c"ab") == Group.to_component("ab")
  end

  test "a map has one component, however it was made, and also as a part" do
    for size <- [1, 5, 31, 32, 33, 200] do
      pairs = for n <- 1..size, do: {{n, "key"}, n}
      one = Map.new(pairs)

      other =
        pairs
        |> Enum.reverse()
        |> Enum.reduce(%{gone: 1}, fn {k, v}, map -> Map.put(map, k, v) end)
        |> Map.delete(:gone)

      assert Group.to_component(one) == Group.to_component(other)
      assert Group.to_component([{one, :x}]) == Group.to_component([{other, :x}])
    end
  end

  test "components are the same on all releases of Erlang" do
    # What a store holds has these names: a change here loses groups.
    assert Group.to_component({:counter, "views"}) ==
             <<"t", 131, 104, 2, 119, 7, "counter", 109, 0, 0, 0, 5, "views">>

    assert Group.to_component(%{b: [1 | 2], a: 1.5}) ==
             <<"t", 131, 116, 2::32, 119, 1, "a", 70, 1.5::float, 119, 1, "b", 108, 1::32, 97, 1, 97, 2>>

    assert Group.to_component(~c"hi") == <<"t", 131, 108, 2::32, 97, ?h, 97, ?i, 106>>
    assert Group.to_component(:é) == <<"t", 131, 119, 2, "é">>
  end

  test "what is no component of a group is told apart" do
    for other <- [:atom, "", "t", "tnonsense", "h", "hshort", "x123"], do: assert(Group.from_component(other) == :none)
  end

  defp terms do
    [
      :counter,
      "views",
      "",
      nil,
      [],
      {},
      %{},
      {:counter, "views"},
      {:counter, :views},
      [1, 2, 3],
      ~c"string",
      [1 | 2],
      1,
      1.0,
      -7,
      1_000_000,
      123_456_789_012_345_678_901_234_567_890,
      <<1::3>>,
      %{a: %{b: {1, [2, %{c: "d"}]}}},
      %{1 => :integer, 1.0 => :float},
      MapSet.new([1, 2]),
      self(),
      make_ref(),
      &String.length/1,
      List.to_tuple(Enum.to_list(1..300)),
      Enum.to_list(1..1_000),
      Map.new(1..1_000, &{&1, {:value, &1}}),
      String.duplicate("x", 240),
      String.duplicate("x", 255),
      String.duplicate("x", 10_000),
      String.duplicate("y", 10_000)
    ]
  end
end
