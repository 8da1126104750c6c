defmodule Mix.TankNative.FailureTest do
  use ExUnit.Case, async: true

  alias Mix.TankNative.Failure

  # What the tools printed when the thing was taken away, shortened, and a part of what we say then.
  @causes [
    {"no libclang",
     """
       thread 'main' (8839) panicked at build.rs:1:30:
       Unable to find libclang: "couldn't find any valid shared libraries matching: ['libclang.so', 'libclang-*.so']"
     """, "libclang-dev"},
    {"libclang without its headers", "/usr/include/stdint.h:26:10: fatal error: 'stddef.h' file not found",
     "libclang-dev"},
    {"no C++ compiler", ~s|error occurred in cc-rs: failed to find tool "c++": No such file or directory (os error 2)|,
     "A C++ compiler is missing"},
    {"another C++ compiler than there is",
     ~s|error occurred in cc-rs: failed to find tool "clang++-17": No such file or directory (os error 2)|,
     "A C++ compiler is missing"},
    {"no linker", "error: linker `cc` not found", "A C++ compiler is missing"},
    {"a C++ compiler that is too old", "c++: error: unrecognized command line option '-std=c++20'",
     "GCC knows since 11"},
    {"no network",
     """
     error: failed to get `arc-swap` as a dependency of package `tank_engine v0.1.0`
     Caused by:
       [6] Could not resolve hostname (Could not resolve host: index.example)
     """, "could not be downloaded"},
    {"a connection that breaks", "error: failed to download `serde v1.0.229`", "could not be downloaded"},
    {"a full disk",
     """
     error: failed to write to `target/release/deps/rmeta02rpfm/full.rmeta`: No space left on device (os error 28)
     error: could not compile `cc` (lib) due to 1 previous error
     """, "The disk is full"},
    {"a full disk below the C++ compiler", "/tmp/ccs.s: fatal error: error writing to out.o: No space left on device",
     "The disk is full"},
    {"no memory", "c++: fatal error: Killed signal terminated program cc1plus", "CARGO_BUILD_JOBS=1"},
    {"rustc older than cargo", "error: rustc 1.85.0 is not supported by the following packages:",
     "rustup update stable"},
    {"a lock file left behind",
     "error: cannot update the lock file Cargo.lock because --locked was passed to prevent this", "cargo update"}
  ]

  for {cause, output, advice} <- @causes do
    test "explains #{cause}" do
      output = String.split(unquote(output), "\n")

      assert_raise Mix.Error, ~r/#{Regex.escape(unquote(advice))}/, fn ->
        Failure.raise_cargo!(101, output, "/checkout")
      end
    end
  end

  test "names bin/setup where it lies, since the project may be a dependency of another" do
    assert Failure.explain(["Unable to find libclang: x"], "/app/deps/tank_store") =~ "/app/deps/tank_store/bin/setup"
  end

  test "a mistake in the code is explained by the compiler, not by us" do
    output = ["error[E0308]: mismatched types", "error: could not compile `tank_nif` (lib) due to 1 previous error"]

    assert_raise Mix.Error, ~r/exit code 101; what it printed stands above/, fn ->
      Failure.raise_cargo!(101, output, "/checkout")
    end
  end
end
