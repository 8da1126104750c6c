defmodule Tank.Store.PathTest do
  # Paths as strings.
  use ExUnit.Case, async: true

  alias Tank.Store.Path

  @table [
    {"", []},
    {"/", []},
    {"//", []},
    {"/:foo", [:foo]},
    {"/foo", ["foo"]},
    {":foo", [:foo]},
    {"foo/bar", ["foo", "bar"]},
    {"/:foo/bar", [:foo, "bar"]},
    {"///:foo///:bar", [:foo, :bar]},
    {"/:foo/:bar/", [:foo, :bar]},
    {"/foo bar", ["foo bar"]},
    {"/foo%20bar", ["foo bar"]},
    {"/:foo%20bar", [:"foo bar"]},
    {"/%3Afoo", [":foo"]},
    {"/%3afoo", [":foo"]},
    {"/a%2Fb", ["a/b"]},
    {"/%25", ["%"]},
    {"/%FF%00", [<<255, 0>>]},
    {"/süß", ["süß"]},
    {"/:", [:""]},
    {~s(/""), [""]},
    {"/%22%22", [~s("")]},
    {"/.", ["."]},
    {"/../a", ["..", "a"]},
    {"/*/**", ["*", "**"]},
    {"/:*", [:*]},
    {"/:Elixir.Tank.Store", [Tank.Store]}
  ]

  for {{string, path}, at} <- Enum.with_index(@table) do
    test "#{at}: #{inspect(string)} is #{inspect(path)}" do
      assert Path.from_string(unquote(string)) == {:ok, unquote(path)}
      assert Path.from_string(Path.to_string(unquote(path))) == {:ok, unquote(path)}
    end
  end

  test "what is no path has its errors" do
    for string <- ["/%", "/%2", "/%GG", "/a/%zz", "/:%FF"] do
      assert {:error, {:invalid_path, why}} = Path.from_string(string)
      assert is_binary(why)
    end

    assert {:error, {:invalid_path, _why}} = Path.from_string("/:" <> String.duplicate("a", 256), atoms: :create)
    assert_raise ArgumentError, fn -> Path.to_string([1]) end
    assert_raise ArgumentError, fn -> Path.from_string("/a", atoms: :all) end
  end

  test "no atom is made unless that is asked for" do
    name = "made_#{System.unique_integer([:positive])}_up"
    assert Path.from_string("/:#{name}") == {:error, {:unknown_atom, name}}
    assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
    assert {:ok, [atom]} = Path.from_string("/:#{name}", atoms: :create)
    assert Atom.to_string(atom) == name
    assert Path.from_string("/:#{name}") == {:ok, [atom]}
  end
end
