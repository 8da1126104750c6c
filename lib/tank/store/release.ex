defmodule Tank.Store.Release do
  @moduledoc """
  Steps of `mix release` for an application with stores:

      # mix.exs
      releases: [
        app: [steps: [:assemble, &Tank.Store.Release.strip/1, &Tank.Store.Release.hide_cookie/1]]
      ]

  They change the assembled release only, so put them after `:assemble` and before `:tar`.
  """

  @library "libtank_nif.so"

  @doc """
  Takes the symbols out of the Rust library, which leaves half of its size or less, and puts them into a directory beside the
  release, `NAME-VERSION.symbols`. Keep that: `gdb` and `perf` find the symbols of a core dump there, by the library's build id
  or by its name (`set debug-file-directory`).

  A checkout of this project whose tests have run has a second library, with fault points, which a release would take along: it
  is removed from the release.

  Needs `objcopy` and `strip` (Debian: binutils). Without them it says so, and leaves the library as it is.
  """
  @spec strip(release) :: release when release: struct
  def strip(release) do
    for file <- native(release, "libtank_nif_faults.*"), do: File.rm!(file)

    if System.find_executable("strip") && System.find_executable("objcopy") do
      symbols = Path.join(symbols_dir(release), @library <> ".debug")
      for library <- native(release, @library), do: Mix.TankNative.Symbols.strip(library, symbols)
    else
      Mix.shell().info("tank_store: strip and objcopy (binutils) are not there: the library keeps its symbols")
    end

    release
  end

  @doc """
  Keeps the cookie off command lines, where every user of the machine could read it.

  The commands of a release give the cookie to Erlang as an argument, `--cookie`. This takes that argument out of
  `bin/NAME` and deletes `releases/COOKIE`. Erlang reads the cookie from `.erlang.cookie` in the home directory of the user then: a
  file of mode 0400, the same on all nodes. Erlang makes a random one where it is missing, which fits no other node.
  """
  @spec hide_cookie(release) :: release when release: struct
  def hide_cookie(%{path: path, name: name} = release) do
    script = Path.join([path, "bin", Atom.to_string(name)])
    text = File.read!(script)
    hidden = String.replace(text, ~s(--cookie "$RELEASE_COOKIE"), "")
    if hidden == text, do: Mix.raise("#{script} gives no --cookie: this Elixir is not known to hide_cookie/1")

    # What the script still reads, and nobody gets.
    File.write!(script, String.replace(hidden, ~r/^(export )?RELEASE_COOKIE\b.*\n/m, ""))
    File.rm(Path.join([path, "releases", "COOKIE"]))
    release
  end

  defp native(%{path: path}, name), do: Path.wildcard(Path.join([path, "lib/tank_store-*/priv/native", name]))

  # With the version in its name, the symbols of the releases before stay.
  defp symbols_dir(%{path: path, name: name, version: version}),
    do: Path.join(Path.dirname(path), "#{name}-#{version}.symbols")
end
