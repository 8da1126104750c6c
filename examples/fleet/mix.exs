defmodule Fleet.MixProject do
  use Mix.Project

  def project do
    [
      app: :fleet,
      version: "0.1.0",
      elixir: "~> 1.14",
      start_permanent: Mix.env() == :prod,
      deps: [{:tank_store, path: "../.."}],
      releases: [
        fleet: [
          include_executables_for: [:unix],
          steps: [:assemble, &Tank.Store.Release.strip/1, &Tank.Store.Release.hide_cookie/1]
        ]
      ]
    ]
  end

  def application do
    # The dashboard needs :inets and :crypto.
    [extra_applications: [:logger, :inets, :crypto], mod: {Fleet.Application, []}]
  end
end
