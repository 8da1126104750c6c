defmodule Tank.Store.Cluster.GroveExampleTest do
  use ExUnit.Case, async: false

  # As `mix run examples/grove.exs`, with the library of this build.
  @tag timeout: 180_000
  test "the counter of the example loses no visit, and says so" do
    args = ["run", "--no-compile", "examples/grove.exs"]
    {output, status} = System.cmd("mix", args, stderr_to_stdout: true, env: [{"MIX_ENV", "test"}])
    assert status == 0, output
    assert [_one, _two, _one_again, _two_again] = Regex.scan(~r/(one|two) reads 50$/m, output)
    assert output =~ "now they read 52 and 52"
    # No noise: neither warnings nor errors.
    refute output =~ ~r/warning|error\]|\*\*/
  end
end
