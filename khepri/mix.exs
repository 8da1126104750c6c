defmodule Khepri.MixProject do
  use Mix.Project

  # As tank_store's (test/build/versions_test.exs).
  @version "0.1.0"

  def project do
    [
      app: :khepri,
      version: @version,
      elixir: "~> 1.14",
      description: "Khepri's API on the stores of tank_store",
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      start_permanent: Mix.env() == :prod,
      deps: [{:tank_store, path: ".."}]
    ]
  end

  # Where there is `ra`, this starts after it and stops before it: stores may be in the directory of a Ra system.
  def application do
    [
      mod: {Tank.Khepri.Application, []},
      extra_applications: [ra: :optional],
      registered: [Tank.Khepri.Supervisor]
    ]
  end
end
