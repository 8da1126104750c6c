defmodule Tank.Store.GuidesTest do
  use Tank.Store.TankCase, async: false

  @guides Path.wildcard("guides/*.md")
  @documents ~w(README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md bench/README.md) ++
               Path.wildcard("docs/**/*.md") ++ @guides

  setup_all do
    start_supervised!({Tank.Store, data_dir: module_dir(__MODULE__)})
    :ok
  end

  for guide <- @guides do
    doctest Module.concat(Tank.Store.Guides, guide |> Path.basename(".md") |> Macro.camelize())
  end

  test "links lead to files and to functions that exist" do
    for guide <- @documents, text = File.read!(guide) do
      for [_all, target] <- Regex.scan(~r/\]\(([^)#]+)\)/, text), not String.starts_with?(target, "https:") do
        assert File.exists?(Path.expand(target, Path.dirname(guide))), "#{guide}: #{target}"
      end

      for [_all, module, function, arity] <- Regex.scan(~r/`(Tank(?:\.\w+)+)\.(\w+)\/(\d)`/, text) do
        module = Module.concat([module])
        Code.ensure_loaded!(module)
        arity = String.to_integer(arity)
        assert function_exported?(module, String.to_atom(function), arity), "#{guide}: #{module}.#{function}/#{arity}"
      end
    end
  end
end
