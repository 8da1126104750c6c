defmodule Mix.TankNative.Symbols do
  @moduledoc """
  Takes the symbols out of a library, and keeps them in a file of their own.
  """

  @doc """
  Strips `library`, and writes its symbols to the file `symbols`. The environment variables `STRIP` and `OBJCOPY` name other
  tools than those of this machine.
  """
  @spec strip(Path.t(), Path.t()) :: :ok
  def strip(library, symbols) do
    objcopy = System.get_env("OBJCOPY", "objcopy")
    before = File.stat!(library).size
    File.mkdir_p!(Path.dirname(symbols))
    run!(objcopy, ["--only-keep-debug", library, symbols])
    run!(System.get_env("STRIP", "strip"), ["--strip-unneeded", library])
    run!(objcopy, ["--remove-section=.gnu_debuglink", "--add-gnu-debuglink=#{symbols}", library])
    sizes = "#{mb(before)} to #{mb(File.stat!(library).size)} MB"
    Mix.shell().info("* stripped #{Path.basename(library)} (#{sizes}), symbols in #{symbols}")
  end

  defp run!(command, args) do
    case System.cmd(command, args, stderr_to_stdout: true) do
      {_output, 0} -> :ok
      {output, status} -> Mix.raise("tank_store: #{command} ended with status #{status}: #{output}")
    end
  end

  defp mb(bytes), do: div(bytes, 1_000_000)
end
