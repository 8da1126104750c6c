defmodule Tank.Store.Cluster.RegistryExampleTest do
  use ExUnit.Case, async: false

  # As `mix run examples/registry.exs`, with the library of this build.
  @tag timeout: 120_000
  test "the gateway of the example follows stores and nodes, and says so" do
    args = ["run", "--no-compile", "examples/registry.exs"]
    {output, status} = System.cmd("mix", args, stderr_to_stdout: true, env: [{"MIX_ENV", "test"}])
    assert status == 0, output

    heard =
      for [_line, type, id, name] <- Regex.scan(~r/(announced|retired) (\w+) on (one|two)_/, output),
          do: {type, id, name}

    # The first two come in the order in which the nodes were met.
    assert Enum.sort(Enum.take(heard, 2)) == [{"announced", "orders", "one"}, {"announced", "orders", "two"}]

    assert Enum.drop(heard, 2) == [
             {"announced", "invoices", "one"},
             {"retired", "orders", "one"},
             {"retired", "orders", "two"},
             {"announced", "orders", "one"}
           ]

    assert output =~ "a request gets {:error, :nowhere}"
    assert output =~ ~r/served by \{:"(one|two)_/
    # No noise: neither warnings nor errors.
    refute output =~ ~r/warning|error\]|\*\*/
  end
end
