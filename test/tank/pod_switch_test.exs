defmodule Tank.PodSwitchTest do
  # Tank defines the pod structs itself, and two definitions of one module end in tears. Each case
  # compiles the very files of lib/ in an OS process of its own, under the setting it is about.
  use ExUnit.Case, async: true

  @lib Path.expand("../../lib", __DIR__)
  @files Enum.map(~w(pod container nic mount volume), &Path.join(@lib, "tank/#{&1}.ex")) ++
           Path.wildcard(Path.join(@lib, "tank/pod/*.ex"))

  # As Mix does it: the configuration is in the application environment before compilation.
  @script """
  [setting | files] = System.argv()
  if setting != "unset", do: Application.put_env(:tank_store, :define_pod, setting == "true")
  {:ok, modules, _warnings} = Kernel.ParallelCompiler.compile(files)
  IO.inspect({:compiled, length(files), Enum.sort(modules)}, limit: :infinity, width: 1000)
  """

  defp compiled(setting) do
    {output, status} = System.cmd("elixir", ["-e", @script, setting | @files])
    assert status == 0, output
    assert {:compiled, files, modules} = output |> Code.eval_string() |> elem(0)
    assert files == length(@files)
    modules
  end

  test "all modules are there by default, and with define_pod: true" do
    modules = compiled("unset")

    for module <- [Tank.Pod, Tank.Pod.Network, Tank.Container, Tank.Nic, Tank.Mount, Tank.Volume] do
      assert module in modules
    end

    # One module a file, so that none can be left behind by a missing guard; and how a container is printed.
    assert length(modules -- [Inspect.Tank.Container]) == length(@files)
    assert compiled("true") == modules
  end

  test "not one module is there with define_pod: false" do
    assert compiled("false") == []
  end
end
