defmodule Tank.Store.Build.ConsumerTest do
  # A project that depends on this one, from nothing to a call into the library, as its author would do it. The library
  # is the one without fault points, so Cargo may have to compile the engine a second time: bin/check includes this test,
  # and bin/test does not.
  use ExUnit.Case, async: true

  @moduletag :consumer
  @moduletag :tmp_dir
  @moduletag timeout: :timer.minutes(30)

  test "calls into the library on its first build", %{tmp_dir: tmp_dir} do
    consumer = Path.expand(tmp_dir)

    File.write!(Path.join(consumer, "mix.exs"), """
    defmodule Consumer.MixProject do
      use Mix.Project
      def project, do: [app: :consumer, version: "0.1.0", deps: [{:tank_store, path: #{inspect(File.cwd!())}}]]
    end
    """)

    assert {output, 0} = mix(consumer, ["compile"])
    assert output =~ "Generated tank_store app", "the consumer compiled it by itself, into its own _build"

    script = "IO.puts(inspect(Tank.Store.Native.version()))"
    assert {output, 0} = mix(consumer, ["run", "-e", script])
    assert List.last(String.split(output, "\n", trim: true)) == inspect(Mix.Project.config()[:version])
  end

  defp mix(directory, args) do
    env = [{"MIX_ENV", "dev"}, {"MIX_BUILD_PATH", nil}, {"MIX_TARGET", nil}]
    System.cmd("mix", args, cd: directory, env: env, stderr_to_stdout: true)
  end
end
