defmodule Tank.Store.Faults.Command do
  @moduledoc "Runs the tools that make faults."

  @doc "Why the tools cannot be used here, or nil: they need root, and to be installed."
  @spec lacks([String.t()]) :: String.t() | nil
  def lacks(tools) do
    missing = Enum.filter(tools, &(find(&1) == nil))

    cond do
      missing != [] -> "#{Enum.join(missing, ", ")} missing; bin/setup --faults installs what there is"
      run("id", ["-u"]) != {"0\n", 0} -> "needs root"
      true -> nil
    end
  end

  @doc "Runs a tool: its output and status."
  @spec run(String.t(), [String.t()]) :: {String.t(), non_neg_integer}
  def run(tool, args), do: System.cmd(find(tool), args, stderr_to_stdout: true)

  @doc "Runs a tool that must succeed, and returns its output."
  @spec run!(String.t(), [String.t()]) :: String.t()
  def run!(tool, args) do
    case run(tool, args) do
      {output, 0} -> output
      {output, status} -> raise "#{tool} #{Enum.join(args, " ")} ended with status #{status}: #{String.trim(output)}"
    end
  end

  @doc "Where a tool is. Those for root alone are not always on the path."
  @spec find(String.t()) :: String.t() | nil
  def find(tool) do
    System.find_executable(tool) || Enum.find(["/usr/sbin/#{tool}", "/sbin/#{tool}"], &File.exists?/1)
  end
end
