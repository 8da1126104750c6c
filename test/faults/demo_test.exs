defmodule Tank.Store.Faults.DemoTest do
  use ExUnit.Case, async: false

  # As bin/demo runs it, but with the library of this build.
  @tag timeout: 120_000
  test "the demo ends well by itself, and says so" do
    args = ["run", "--no-start", "--no-compile", "examples/demo.exs"]
    {output, status} = System.cmd("mix", args, stderr_to_stdout: true, env: [{"MIX_ENV", "test"}])
    assert status == 0, output
    assert [_all, count] = Regex.run(~r/(\d+) writes acknowledged, \1 there, 0 lost/, output)
    assert String.to_integer(count) >= 400
    # No noise: neither warnings nor errors.
    refute output =~ ~r/warning|error\]|\*\*/
  end
end
