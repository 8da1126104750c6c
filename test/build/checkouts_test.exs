defmodule Tank.Store.Build.CheckoutsTest do
  # Checkouts share Cargo's target directory, so that RocksDB is compiled once. Cargo tells their crates apart neither by
  # name (it hashes paths relative to the workspace) nor, with unlucky file times, by age: it would take the other
  # checkout's library for a fresh one. An environment variable that holds the checkout's path, and that each crate
  # reads, makes Cargo compare it.
  use ExUnit.Case, async: true

  test "Cargo sets the checkout's path" do
    config = File.read!(".cargo/config.toml")
    assert config =~ ~r/^\[env\]\n(.+\n)*TANK_STORE_CHECKOUT = \{ value = "\.", relative = true, force = true \}$/m
  end

  for manifest <- Path.wildcard("native/*/Cargo.toml"), crate = Path.dirname(manifest) do
    test "#{crate} depends on it" do
      assert File.read!(Path.join(unquote(crate), "src/lib.rs")) =~
               ~s|const _: Option<&str> = option_env!("TANK_STORE_CHECKOUT");|
    end
  end
end
