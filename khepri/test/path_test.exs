defmodule Khepri.PathTest do
  use ExUnit.Case, async: true
  import Tank.Khepri.Records

  doctest Tank.Khepri.Path

  @star {:if_name_matches, :any, :undefined}
  @star_star {:if_path_matches, :any, :undefined}

  @strings [
    {"", []},
    {"/", []},
    {"//", [""]},
    {"/:foo", [:foo]},
    {"/foo", ["foo"]},
    {"foo", [?., "foo"]},
    {":foo/bar", [?., :foo, "bar"]},
    {"/foo/", ["foo"]},
    {"/foo//", ["foo", ""]},
    {"///:foo///:bar", ["", "", :foo, "", "", :bar]},
    {"/:a%20b/%2E", [:"a b", "."]},
    {"/100%/%zz", ["100%", "%zz"]},
    {"/:foo/./../:bar", [:foo, ?., ?^, :bar]},
    {".", [?.]},
    {"..", [?^]},
    {"^", [?^]},
    {"/*", [@star]},
    {"/:foo/**", [:foo, @star_star]},
    {"/a*b", [{:if_name_matches, '^a.*b$', :undefined}]}
  ]

  for {string, path} <- @strings do
    test "#{inspect(string)} is the path #{inspect(path)}" do
      assert :khepri_path.from_string(unquote(string)) == unquote(Macro.escape(path))
      assert :khepri_path.from_binary(unquote(string)) == unquote(Macro.escape(path))
      assert :khepri_path.from_string(unquote(String.to_charlist(string))) == unquote(Macro.escape(path))
    end
  end

  for {string, path} <- @strings, string not in ["/foo/", "^", "/:foo/./../:bar", "foo", "/100%/%zz"] do
    test "the path of #{inspect(string)} has a string with the same path" do
      path = unquote(Macro.escape(path))

      unless Enum.any?(path, &is_tuple/1),
        do: assert(path |> :khepri_path.to_string() |> :khepri_path.from_string() == path)
    end
  end

  test "native paths stay what they are, less a leading root" do
    for path <- [[:a], [:a, "b"], [?., :a], [?^, :a], [@star, :b], []],
        do: assert(:khepri_path.from_string(path) == path)

    assert :khepri_path.from_string([?/, :a]) == [:a]
  end

  test "what is no path raises" do
    for other <- [:atom, 1, %{}, ['a']] do
      assert_raise ErlangError, fn -> :khepri_path.from_string(other) end
    end

    assert catch_error(:khepri_path.from_string(7)) == {:khepri_ex, :invalid_path, %{path: 7}}
    assert :khepri_path.is_valid([:a, {:x}]) == {false, {:x}}
    info = %{path: [:a, {:x}], component: {:x}}
    assert catch_error(:khepri_path.ensure_is_valid([:a, {:x}])) == {:khepri_ex, :invalid_path, info}
  end

  test "relative paths" do
    assert :khepri_path.realpath([:a, ?., ?^, ?^, :b]) == [:b]
    assert :khepri_path.abspath([?^, :c], [:a, :b]) == [:a, :c]
    assert :khepri_path.abspath([:c], [:a, :b]) == [:c]
    assert :khepri_path.abspath([], [:a]) == []
  end

  test "which node a component names" do
    assert :khepri_path.targets_specific_node([:a, if_all(conditions: [:b, if_has_data()])]) == {true, [:a, :b]}
    assert :khepri_path.targets_specific_node([:a, @star]) == false
    assert :khepri_path.component_targets_specific_node(if_any(conditions: [:a, :a])) == {true, :a}
    assert :khepri_path.component_targets_specific_node(if_any(conditions: [:a, :b])) == false
    assert :khepri_path.component_targets_specific_node(if_any(conditions: [:a, if_has_data()])) == false
  end

  test "sigils" do
    import :khepri_path, only: [sigil_p: 2, sigil_P: 2]
    name = "wood"
    assert ~p"/:stock/#{name}" == [:stock, "wood"]
    assert ~P"/:stock/#" == [:stock, "#"]
  end
end
