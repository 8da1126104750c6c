# The guides as documentation of modules, so that their examples run as doctests.
for guide <- Path.wildcard("guides/*.md") do
  name = guide |> Path.basename(".md") |> Macro.camelize()

  defmodule Module.concat(Tank.Store.Guides, name) do
    @external_resource guide
    @moduledoc File.read!(guide)
  end
end
