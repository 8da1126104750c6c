# The guides as documentation of modules, so that their examples run as doctests.
guides = Path.wildcard("guides/*.md")

for guide <- guides do
  name = guide |> Path.basename(".md") |> Macro.camelize()

  defmodule Module.concat(Tank.Store.Guides, name) do
    @external_resource guide
    @moduledoc File.read!(guide)

    # Mix asks: a guide that was added is noticed.
    @guides guides
    @doc false
    def __mix_recompile__?, do: Path.wildcard("guides/*.md") != @guides
  end
end
