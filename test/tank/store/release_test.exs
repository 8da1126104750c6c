defmodule Tank.Store.ReleaseTest do
  # The steps, on what `mix release` makes; test/release/ builds a whole one.
  use ExUnit.Case, async: false

  alias Tank.Store.Release

  @moduletag :tmp_dir

  setup do
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(shell) end)
  end

  setup %{tmp_dir: dir} do
    {:ok, release: %{path: Path.join(dir, "rel/app"), name: :app, version: "1.2.3"}}
  end

  test "strip/1 moves the symbols of the library into a file beside the release", %{release: release, tmp_dir: dir} do
    library = Path.join(release.path, "lib/tank_store-0.1.0/priv/native/libtank_nif.so")
    File.mkdir_p!(Path.dirname(library))
    File.cp!(built_library(), library)
    before = File.stat!(library).size
    File.cp!(library, Path.join(Path.dirname(library), "libtank_nif_faults.so"))

    assert Release.strip(release) == release
    assert File.ls!(Path.dirname(library)) == ["libtank_nif.so"]
    assert_received {:mix_shell, :info, ["* stripped libtank_nif.so" <> _sizes]}

    symbols = Path.join(dir, "rel/app-1.2.3.symbols/libtank_nif.so.debug")
    refute sections(library) =~ ".symtab"
    assert sections(library) =~ ".gnu_debuglink"
    assert sections(symbols) =~ ".symtab"
    assert File.stat!(library).size < before * 0.6
    # It is the same library: it has what Erlang looks for, in the same place.
    assert {exported, 0} = System.cmd("nm", ["--dynamic", library])
    assert exported =~ " T nif_init"
  end

  test "hide_cookie/1 takes the cookie out of all commands of the release", %{release: release} do
    script = Path.join(release.path, "bin/app")
    File.mkdir_p!(Path.dirname(script))
    File.mkdir_p!(Path.join(release.path, "releases"))
    File.write!(Path.join(release.path, "releases/COOKIE"), "secret")
    # Mix's own script; what it fills in does not matter here.
    File.write!(script, String.replace(Mix.Tasks.Release.Init.cli_text(), ~r/<%=.*?%>/, "app"))

    assert Release.hide_cookie(release) == release

    refute File.read!(script) =~ ~r/cookie/i
    refute File.exists?(Path.join(release.path, "releases/COOKIE"))
    assert {_output, 0} = System.cmd("sh", ["-n", script])
  end

  test "hide_cookie/1 raises on a script that it does not know", %{release: release} do
    File.mkdir_p!(Path.join(release.path, "bin"))
    File.write!(Path.join(release.path, "bin/app"), "exec erl -setcookie $RELEASE_COOKIE\n")
    assert_raise Mix.Error, ~r/gives no --cookie/, fn -> Release.hide_cookie(release) end
  end

  defp built_library, do: Path.join("priv/native", Mix.Tasks.Compile.TankNative.library_name() <> ".so")

  defp sections(file) do
    {sections, 0} = System.cmd("readelf", ["--sections", "--wide", file])
    sections
  end
end
