defmodule Tank.Store.Build.VersionsTest do
  # The same number stands in several files, as each tool wants it in its own.
  use ExUnit.Case, async: true

  test "the Elixir applications and the Rust workspace have one version" do
    version = Mix.Project.config()[:version]
    assert setting("Cargo.toml", ~r/^\[workspace\.package\]\nversion = "([^"]+)"/m) == version

    assert setting("khepri/mix.exs", ~r/^  @version "([^"]+)"/m) == version

    for crate <- ["tank_engine", "tank_lab", "tank_nif", "tank_sim"] do
      assert setting("Cargo.lock", ~r/^name = "#{crate}"\nversion = "([^"]+)"/m) == version
    end
  end

  test "bin/setup and the README ask for the Rust that Cargo.toml needs" do
    rust = setting("Cargo.toml", ~r/^rust-version = "([^"]+)"/m)
    assert setting("bin/setup", ~r/^RUST_MIN=(.+)$/m) == rust
    assert setting("README.md", ~r/Rust (\d+\.\d+)/) == rust
  end

  test "bin/setup and the README ask for the Elixir that mix.exs needs" do
    "~> " <> elixir = Mix.Project.config()[:elixir]
    assert setting("bin/setup", ~r/^ELIXIR_MIN=(.+)$/m) == elixir
    assert setting("README.md", ~r/Elixir (\d+\.\d+)/) == elixir
  end

  defp setting(file, pattern) do
    assert [_match, value] = Regex.run(pattern, File.read!(file)), "#{file} does not say it: #{inspect(pattern)}"
    value
  end
end
