defmodule Tank.Store.Faults.Strace do
  @moduledoc """
  Makes system calls of a running process fail or wait, by `strace -e inject=`, until it is detached.
  """

  import Tank.Store.TankCase, only: [eventually: 2]

  alias Tank.Store.Faults.Command

  defstruct [:port, :os_pid, :target, :log]

  @type t :: %__MODULE__{}

  @syncs ["fdatasync", "fsync", "sync_file_range"]

  @doc "The system calls that make things durable."
  @spec syncs :: [String.t()]
  def syncs, do: @syncs

  @doc "Why there can be none here, or nil."
  @spec lacks :: String.t() | nil
  def lacks, do: Command.lacks(["strace"])

  @doc """
  Does `what` to every sync of the process, or to other system calls: strace's `error=EIO`, `delay_enter=3000000`
  (microseconds), `retval=0`. Returns once all its threads are under it. `dir` is for the record of what was injected.
  """
  @spec attach(pos_integer, String.t(), String.t(), [String.t()]) :: t
  def attach(target, what, dir, calls \\ @syncs) do
    calls = Enum.join(calls, ",")
    log = Path.join(dir, "strace_#{System.unique_integer([:positive])}.log")
    args = ~w(-f -qq -p #{target} -e signal=none -e trace=#{calls} -e inject=#{calls}:#{what} -o #{log})
    port = Port.open({:spawn_executable, Command.find("strace")}, [:binary, :exit_status, args: args])
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    eventually("strace to hold all threads of #{target}", fn -> held?(target, os_pid) end)
    %__MODULE__{port: port, os_pid: os_pid, target: target, log: log}
  end

  @doc "Lets the process go on as if nothing were, and returns how many system calls were tampered with."
  @spec detach(t) :: non_neg_integer
  def detach(%__MODULE__{port: port, os_pid: os_pid} = strace) do
    Command.run("sh", ["-c", "kill -TERM #{os_pid}"])

    receive do
      {^port, {:exit_status, _status}} -> injected(strace)
    after
      60_000 -> raise "strace did not end within 60 s"
    end
  end

  @doc "How many system calls were tampered with so far."
  @spec injected(t) :: non_neg_integer
  def injected(%__MODULE__{log: log}) do
    log |> File.stream!() |> Enum.count(&(&1 =~ ~r/INJECTED|DELAYED/))
  end

  defp held?(target, os_pid) do
    statuses = Path.wildcard("/proc/#{target}/task/*/status")
    statuses != [] and Enum.all?(statuses, &(File.read(&1) |> traced_by?(os_pid)))
  end

  # A thread that ended meanwhile is no hindrance.
  defp traced_by?({:ok, status}, os_pid), do: status =~ ~r/^TracerPid:\s+#{os_pid}$/m
  defp traced_by?({:error, _reason}, _os_pid), do: true
end
