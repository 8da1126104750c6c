defmodule Tank.MountTest do
  use ExUnit.Case, async: true

  alias Tank.Mount

  doctest Tank.Mount

  defp new(fields), do: Mount.new(Keyword.merge([volume: "data", path: "/data"], fields))

  test "what is left out gets its default" do
    assert new([]) == {:ok, %Mount{volume: "data", path: "/data", read_only: false}}
  end

  test "a path has one spelling" do
    for {given, path} <- [{"/", "/"}, {"//", "/"}, {"/a/", "/a"}, {"/a//./b", "/a/b"}] do
      assert {:ok, %Mount{path: ^path}} = new(path: given)
    end
  end

  @bad [
    volume: [nil, "", "a/b", :data],
    path: [nil, "", "a", "./a", "/..", "/a/../b", "/a\0", "/" <> <<255>>, :a, ~c"/a"],
    read_only: [nil, "false", 0, :ro]
  ]

  for {field, values} <- @bad, value <- values do
    test "#{field} may not be #{inspect(value)}" do
      value = unquote(value)
      assert new([{unquote(field), value}]) == {:error, {unquote(:"invalid_#{field}"), value}}
    end
  end

  test "anything else is no mount" do
    for bad <- [nil, "data", [1], [{:path, "a"} | :b], %Tank.Volume{}] do
      assert Mount.new(bad) == {:error, {:invalid_mount, bad}}
      assert_raise ArgumentError, ~r/cannot build Tank.Mount/, fn -> Mount.new!(bad) end
    end
  end

  test "keys are the fields, each once" do
    assert new(readonly: true) == {:error, {:unknown_keys, [:readonly]}}
    assert Mount.new(path: "/a", path: "/b") == {:error, {:duplicate_keys, [:path]}}
  end
end
