# The compiler of the Rust library belongs to this project, and has to run before the project's own Elixir code
# is compiled. So it is loaded from its sources here.
for file <- ~w(failure progress target cargo library precompiled) do
  Code.require_file("lib/mix/tank_native/#{file}.ex", __DIR__)
end

Code.require_file("lib/mix/tasks/compile.tank_native.ex", __DIR__)

defmodule Tank.Store.MixProject do
  use Mix.Project

  # The workspace in Cargo.toml has the same version (test/build/versions_test.exs).
  @version "0.1.0"

  def project do
    [
      app: :tank_store,
      version: @version,
      elixir: "~> 1.14",
      description: "A replicated store for desired state, inside the BEAM: openraft and RocksDB behind NIFs",
      package: package(),
      docs: docs(),
      compilers: [:tank_native] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      # PropEr, for the tests, is no dependency: it lies beside OTP's own applications.
      prune_code_paths: Mix.env() != :test,
      start_permanent: Mix.env() == :prod,
      deps: []
    ]
  end

  def application do
    [
      # The dashboard and the build need the other ones, and nothing else does.
      extra_applications: [:logger, inets: :optional, crypto: :optional, ssl: :optional, public_key: :optional],
      mod: {Tank.Store.Application, []}
    ]
  end

  # What a build needs, and what its user reads: test/build/package_test.exs. It has no links until it has a public address.
  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{},
      files:
        ~w(lib native priv/dashboard .cargo Cargo.toml Cargo.lock mix.exs bin guides docs ops examples README.md ARCHITECTURE.md CHANGELOG.md
           CONTRIBUTING.md LICENSE),
      exclude_patterns: ["_build/", "fleet_data/", "proptest-regressions/"]
    ]
  end

  # For ExDoc, and for `mix tank.docs`, which makes do without.
  defp docs do
    [
      main: "readme",
      extras:
        ["README.md" | Path.wildcard("guides/*.md")] ++
          ~w(ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md examples/fleet/README.md bench/README.md docs/glossary.md docs/decisions/README.md) ++
          Path.wildcard("docs/decisions/20*.md"),
      groups_for_extras: [
        Guides: ~r{^(README|guides/)},
        "How it is built": ~r/^(ARCHITECTURE|CONTRIBUTING|CHANGELOG|bench|examples)/,
        Decisions: ~r{^docs/}
      ],
      groups_for_modules: [
        Pods: ~r/^Tank\.(Store$|Pod|Container|Volume|Mount|Nic)/,
        Stores: ~r/^Tank\.Store\.(Cluster|Tree|Path|Pattern|Entry|Change|NodeChange|Tx|Error|Status)$/,
        "What follows a store": ~r/^Tank\.Store\.(Watch|Projection|Lease|Lease\.Keeper|Registry)$/,
        Operations: ~r/^Tank\.Store\.(Ops|IEx|Dashboard|Metrics|Telemetry|Backup|Release)$/,
        Tests: ~r/^Tank\.Store\.Testing$/,
        "In the shape of other libraries": ~r/^Tank\.(Khepri|Store\.(Backend|Syncer|KVPair|Grove))(\.|$)/,
        "Mix tasks": ~r/^Mix\.Tasks\./,
        "The build": ~r/^Mix\.Tank/
      ]
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]
end
