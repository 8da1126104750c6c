defmodule Tank.Store.Build.LayersTest do
  # Imports point down the layers of docs/layers.txt.
  use ExUnit.Case, async: true

  alias Tank.Store.Layers

  @moduletag :tmp_dir

  test "imports point down" do
    for section <- "docs/layers.txt" |> File.read!() |> Layers.parse() do
      assert Layers.problems(section, imports(section)) == []
    end
  end

  test "an import that is added in the other direction is found", %{tmp_dir: dir} do
    rust(dir, "lib.rs", "pub mod low;\npub mod high;\npub use low::{key, entry};\n")

    rust(
      dir,
      "low/mod.rs",
      "//! Not an import: crate::high.\npub mod key;\n#[cfg(test)]\nmod tests {\n    use crate::high;\n}\n"
    )

    rust(dir, "low/key.rs", "use super::entry::Entry;\n")
    rust(dir, "high.rs", "use crate::key::Key;\nuse crate::low::entry;\n")
    section = section(dir, ["low", "high"])
    assert Layers.problems(section, Layers.rust_imports(dir)) == []

    for import <- [
          "use crate::high::X;",
          "use crate::{key, high::X};",
          "use super::super::high::X;",
          "type X = crate::high::X;"
        ] do
      rust(dir, "low/key.rs", "use super::entry::Entry;\n#{import}\n")

      assert Layers.problems(section, Layers.rust_imports(dir)) ==
               ["#{dir}/low/key.rs:2: low imports high, which is above it in the layers"],
             import
    end

    excepted = %{section | except: [{"low", "high"}]}
    assert Layers.problems(excepted, Layers.rust_imports(dir)) == []
  end

  test "a unit that is not listed, and an exception that is not needed, are found", %{tmp_dir: dir} do
    rust(dir, "lib.rs", "")
    rust(dir, "low.rs", "use crate::new::X;\n")
    section = %{section(dir, ["low", "high"]) | except: [{"low", "high"}]}

    assert Layers.problems(section, Layers.rust_imports(dir)) == [
             "#{dir}: new is not in docs/layers.txt",
             "docs/layers.txt: low does not import high any more; remove the exception"
           ]
  end

  test "a graph of Elixir files gives the imports between units" do
    graph = """
    lib/tank/store/low.ex
    `-- lib/tank/store/high/part.ex (export)
    lib/tank/store/high.ex
    |-- lib/tank/store/high/part.ex
    |-- lib/tank/store/low.ex (compile)
    `-- lib/mix/other.ex
    """

    section = section("lib/tank/store", ["low", "high"])

    assert Layers.problems(section, Layers.elixir_imports(graph, "lib/tank/store")) == [
             "lib/tank/store/low.ex (lib/tank/store/high/part.ex): low imports high, which is above it in the layers"
           ]
  end

  defp imports(%{kind: :rust, root: root}), do: Layers.rust_imports(root)

  defp imports(%{kind: :elixir, root: root}) do
    {graph, 0} = System.cmd("mix", ~w(xref graph --format plain --no-compile), env: [{"MIX_ENV", "test"}])
    Layers.elixir_imports(graph, root)
  end

  defp section(root, units), do: %Layers{kind: :rust, root: root, units: units}

  defp rust(dir, name, text) do
    path = Path.join(dir, name)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
  end
end
