defmodule Tank.Store.OsProcess do
  @moduledoc "Processes of the operating system."

  @doc "Whether a process with this pid runs whose command line contains `text`. Without `/proc`: whether one runs at all."
  @spec runs?(pos_integer | String.t(), String.t()) :: boolean
  def runs?(os_pid, text) do
    case File.read("/proc/#{os_pid}/cmdline") do
      {:ok, line} -> line =~ text
      {:error, _gone} -> not File.dir?("/proc/self") and alive?(os_pid)
    end
  end

  defp alive?(os_pid), do: match?({_output, 0}, System.cmd("kill", ["-0", "#{os_pid}"], stderr_to_stdout: true))
end
