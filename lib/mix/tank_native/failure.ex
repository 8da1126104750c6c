defmodule Mix.TankNative.Failure do
  @moduledoc """
  Why the library could not be built, in words that say what to do.

  Cargo's own message has been printed by then; often it names a file or a function of a crate, and not what is missing
  on the machine.
  """

  @typedoc "What the machine lacks, or a sentence."
  @type reason :: :no_cargo | {:old_cargo, String.t(), Version.t()} | String.t()

  # What Cargo and the tools below it print, and what it means. The first that matches counts: a full disk is behind
  # whatever else fails on it.
  @causes [
    {~r/No space left on device|\(os error 28\)|Disk quota exceeded/,
     "The disk is full. Building needs about 2 GB in Cargo's target directory; free some space, or put it elsewhere\n" <>
       "with CARGO_TARGET_DIR."},
    {~r/Unable to find libclang/,
     "libclang is missing: it reads the C headers of RocksDB. BIN_SETUP installs it (libclang-dev) on Debian and\n" <>
       "Ubuntu and says what to install elsewhere. If it is there, set LIBCLANG_PATH to the directory it is in."},
    {~r/'stdbool\.h' file not found|'stdarg\.h' file not found|'stddef\.h' file not found/,
     "libclang is there, but its own C headers are missing. BIN_SETUP installs them (libclang-dev) on Debian and\n" <>
       "Ubuntu and says what to install elsewhere."},
    {~r/failed to find tool "[^"]*(\+\+|clang|gcc|cc)[^"]*"|linker `[^`]+` not found|Is `[^`]+` installed\?/,
     "A C++ compiler is missing: RocksDB is written in C++20. BIN_SETUP installs it (g++) on Debian and Ubuntu and\n" <>
       "says what to install elsewhere."},
    {~r/unrecognized command[- ]line option .?-std=|invalid value .?c\+\+20|unsupported.*-std=c\+\+20/,
     "The C++ compiler is too old: RocksDB is written in C++20, which GCC knows since 11 and Clang since 14."},
    {~r/fatal error: Killed|Killed signal terminated|SIGKILL: kill|cannot allocate memory/i,
     "The build was killed, most likely as memory ran out. Each C++ compiler takes up to 1 GB: try again with fewer at a\n" <>
       "time, CARGO_BUILD_JOBS=1."},
    {~r/failed to download|[Cc]ould(n't| not) resolve host|spurious network error|download of .* failed|Unable to update registry/,
     "The Rust crates could not be downloaded. Check the network and the proxy settings, and try again: what was\n" <>
       "downloaded is kept. Without a network, build the library on another machine of the same kind and set\n" <>
       "TANK_STORE_NIF_PATH to it."},
    {~r/rustc [\d.]+\S* is not supported by|requires rustc [\d.]+/,
     "Rust is too old. `rustup update stable` brings the current one."},
    {~r/cannot update the lock file|lock file .* needs to be updated/,
     "Cargo.lock does not fit Cargo.toml. In a checkout that you have changed, run `cargo update --workspace`;\n" <>
       "otherwise this is a mistake of ours."}
  ]

  @doc "Ends the build with a message for `reason`."
  @spec raise!(reason()) :: no_return()
  def raise!(:no_cargo) do
    raise!("""
    Cargo was not found on the PATH. tank_store compiles its engine with Rust. Install Rust with rustup, as the Rust
    web site describes, and try again; or set TANK_STORE_NIF_PATH to a library that is built already.
    """)
  end

  def raise!({:old_cargo, version, required}) do
    raise!("""
    Cargo #{version} is too old: tank_store needs Rust #{required.major}.#{required.minor} or later. `rustup update stable`
    brings the current one. The Rust in a distribution's packages is often too old; rustup's can be installed beside it.
    """)
  end

  def raise!(message), do: Mix.raise("tank_store: " <> String.trim_trailing(message))

  @doc "Ends the build after Cargo failed with `status` and printed `output`."
  @spec raise_cargo!(non_neg_integer(), [String.t()], Path.t()) :: no_return()
  def raise_cargo!(status, output, root) do
    raise!(
      explain(output, root) ||
        "the Rust library was not built: Cargo ended with exit code #{status}; what it printed stands above."
    )
  end

  @doc "What is behind Cargo's output, if it is one of the causes we know."
  @spec explain([String.t()], Path.t()) :: String.t() | nil
  def explain(output, root) do
    text = Enum.join(output, "\n")

    with {_pattern, advice} <- Enum.find(@causes, fn {pattern, _advice} -> text =~ pattern end) do
      "the Rust library was not built.\n\n" <> String.replace(advice, "BIN_SETUP", Path.join(root, "bin/setup"))
    end
  end
end
