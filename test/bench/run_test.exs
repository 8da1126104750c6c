defmodule Tank.Bench.RunTest do
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  # VMs of its own, one after the other.
  @moduletag timeout: 300_000

  @workloads ~w(put get list mixed start cluster large)

  test "bench/run is an executable bash script that stops at the first error" do
    assert Bitwise.band(File.stat!("bench/run").mode, 0o111) == 0o111
    content = File.read!("bench/run")
    assert content =~ ~r/\A#!\/usr\/bin\/env bash\n/
    assert content =~ "\nset -euo pipefail\n"
    assert {_output, 0} = System.cmd("bash", ["-n", "bench/run"], stderr_to_stdout: true)
  end

  @tag :long
  test "bench/run --quick runs every workload and writes its figures", %{tmp_dir: dir} do
    # This environment's library is there already; its figures would be worth nothing.
    arguments = ["--quick", "--dir", Path.join(dir, "stores"), "--out", dir]

    {output, status} =
      System.cmd(Path.expand("bench/run"), arguments, env: [{"MIX_ENV", "test"}], stderr_to_stdout: true)

    assert status == 0, output
    assert output =~ "the figures mean nothing"

    for name <- @workloads do
      json = File.read!(Path.join(dir, "#{name}.json"))
      assert json =~ ~s("name": "#{name}")
      assert json =~ ~s("median": )
      assert output =~ "#{name}.json"
    end

    assert File.ls!(Path.join(dir, "stores")) == []
  end

  test "an unknown workload or store is refused", %{tmp_dir: dir} do
    for arguments <- [["nonsense"], ["--store", "nonsense"]] do
      arguments = ["--out", dir | arguments]

      assert {_output, 1} =
               System.cmd(Path.expand("bench/run"), arguments, env: [{"MIX_ENV", "test"}], stderr_to_stdout: true)
    end

    assert File.ls!(dir) == []
  end
end
