defmodule Tank.Store.Build.CommandsTest do
  use ExUnit.Case, async: true

  @commands Path.wildcard("bin/*") -- ["bin/env.sh"]

  for command <- @commands ++ [".ci/run"] do
    test "#{command} is an executable bash script that stops at the first error" do
      assert Bitwise.band(File.stat!(unquote(command)).mode, 0o111) == 0o111
      content = File.read!(unquote(command))
      assert content =~ ~r/\A#!\/usr\/bin\/env bash\n/
      assert content =~ "\nset -euo pipefail\n"
      assert {_output, 0} = System.cmd("bash", ["-n", unquote(command)], stderr_to_stdout: true)
    end
  end

  test "the commands and the Mix compiler build in the same place" do
    for env <- [[{"CARGO_TARGET_DIR", "/elsewhere"}], [{"XDG_CACHE_HOME", "/cache"}], [{"HOME", "/someone"}]] do
      env = [{"CARGO_TARGET_DIR", nil}, {"XDG_CACHE_HOME", nil} | env]
      {shell, 0} = System.cmd("bash", ["-c", ". bin/env.sh; echo -n $CARGO_TARGET_DIR"], env: env)
      elixir = "IO.write(Mix.TankNative.Cargo.target_dir(File.cwd!()))"
      paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])
      assert {^shell, 0} = System.cmd("elixir", paths ++ ["-e", elixir], env: env)
    end
  end

  describe "bin/setup" do
    @describetag :tmp_dir

    # All that bin/setup looks for, or uses, and that is here.
    @tools ~w(apt-get bash c++ cargo cut dirname elixir env erl grep head id mix rustc sed sort tr uname basename
              readlink sh cat)

    test "is silent and installs nothing when all is there", %{tmp_dir: tmp_dir} do
      path = tools(tmp_dir, %{"apt-get" => "echo apt-get $*; exit 1"})
      assert run_setup(path) == {"", 0}
    end

    test "installs what is missing by apt-get, after an update", %{tmp_dir: tmp_dir} do
      # The package brings the compiler, so that the second look finds it.
      apt_get = """
      echo apt-get $DEBIAN_FRONTEND $*
      if [ "$1" = install ]; then ln -s "$(command -v true)" "$(dirname "$0")/c++"; fi
      """

      path = tools(tmp_dir, %{"apt-get" => apt_get, "id" => "echo 0", "true" => "exit 0", "ln" => nil}, ["c++"])
      assert {output, 0} = run_setup(path)

      assert output == """
             bin/setup: installing g++
             apt-get noninteractive update -qq
             apt-get noninteractive install -y -qq --no-install-recommends g++
             """
    end

    test "uses sudo when not root, and says the command where there is none", %{tmp_dir: tmp_dir} do
      path = tools(tmp_dir, %{"id" => "echo 1000"}, ["c++"])
      assert {output, 1} = run_setup(path)
      assert output =~ "run as root: apt-get update && apt-get install g++"

      File.write!(Path.join(path, "sudo"), "#!/bin/sh\necho sudo $*\n")
      File.chmod!(Path.join(path, "sudo"), 0o755)
      assert {output, 1} = run_setup(path)
      assert output =~ "sudo env DEBIAN_FRONTEND=noninteractive apt-get install"
      assert output =~ "still missing after the installation: g++"
    end

    test "says what to install where there is no apt-get", %{tmp_dir: tmp_dir} do
      assert {output, 1} = run_setup(tools(tmp_dir, %{}, ["apt-get", "c++"]))
      assert output =~ "missing here (by their names in Debian): g++"
      assert output =~ "Fedora:  dnf install"

      assert {output, 1} = run_setup(tools(tmp_dir, %{"uname" => "echo Darwin"}, ["apt-get", "c++"]))
      assert output =~ "brew install elixir llvm"
    end

    test "asks for rustup without Rust, or with one that is too old", %{tmp_dir: tmp_dir} do
      assert {output, 1} = run_setup(tools(tmp_dir, %{}, ["rustc"]))
      assert output =~ ~r/Rust 1\.\d+ or later is needed\. Install it with rustup/

      assert {output, 1} = run_setup(tools(tmp_dir, %{"rustc" => "echo 'rustc 1.63.0 (abc)'"}))
      assert output =~ "found 1.63.0"
    end

    test "refuses what it does not know" do
      assert {output, 2} = System.cmd(Path.expand("bin/setup"), ["--all"], stderr_to_stdout: true)
      assert output =~ "unknown argument --all"
    end

    defp run_setup(path), do: System.cmd(Path.expand("bin/setup"), [], env: [{"PATH", path}], stderr_to_stdout: true)

    # A directory with links to the tools, without those in `absent`, and with stand-ins for others (nil: a link).
    defp tools(tmp_dir, stand_ins, absent \\ []) do
      directory = Path.join(Path.expand(tmp_dir), "bin-#{System.unique_integer([:positive])}")
      File.mkdir_p!(directory)

      for tool <- (@tools ++ Map.keys(stand_ins)) -- absent, path = System.find_executable(tool) do
        File.rm(Path.join(directory, tool))
        File.ln_s!(path, Path.join(directory, tool))
      end

      for {tool, script} <- stand_ins, is_binary(script) do
        File.rm!(Path.join(directory, tool))
        File.write!(Path.join(directory, tool), "#!/bin/sh\n#{script}\n")
        File.chmod!(Path.join(directory, tool), 0o755)
      end

      directory
    end
  end
end
