defmodule Tank.Store.TestingManyTest do
  use ExUnit.Case, async: false

  @modules 200
  @limit_ms 60_000

  @tag :long
  @tag timeout: 600_000
  test "200 test modules with a store each run at the same time, within a minute" do
    script = """
    ExUnit.start(autorun: false, seed: 0)
    {:ok, _started} = Application.ensure_all_started(:tank_store)

    for n <- 1..#{@modules} do
      Module.create(:"Elixir.Many\#{n}Test", quote do
        use ExUnit.Case, async: true
        use Tank.Store.Testing

        test "has a store of its own" do
          assert Tank.Store.list_pods() == []
          :ok = Tank.Store.put_at([:n], unquote(n))
          assert Tank.Store.get_at([:n]) == {:ok, unquote(n)}
        end
      end, Macro.Env.location(__ENV__))
    end

    {micros, %{failures: failures, total: total}} = :timer.tc(fn -> ExUnit.run() end)
    IO.puts("ran \#{total}, failed \#{failures}, in \#{div(micros, 1000)} ms")
    """

    paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])
    {output, 0} = System.cmd("elixir", paths ++ ["-e", script], stderr_to_stdout: true)
    assert [_all, ms] = Regex.run(~r/ran #{@modules}, failed 0, in (\d+) ms/, output), output
    assert String.to_integer(ms) < @limit_ms
  end
end
