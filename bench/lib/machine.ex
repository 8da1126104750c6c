defmodule Tank.Bench.Machine do
  @moduledoc "What a figure depends on: the machine, the disk, the versions, and what else was running."

  @doc "Removes a directory, in which VMs that were told to end may write for a while yet."
  @spec remove!(Path.t(), non_neg_integer) :: :ok
  def remove!(dir, tries \\ 600) do
    case File.rm_rf(dir) do
      {:ok, _files} ->
        :ok

      {:error, reason, file} when tries == 0 ->
        raise File.Error, reason: reason, action: "remove files and directories recursively from", path: file

      {:error, _reason, _file} ->
        Process.sleep(100)
        remove!(dir, tries - 1)
    end
  end

  @doc "All of it, as a map."
  @spec describe(Tank.Bench.settings()) :: map
  def describe(settings) do
    %{
      date: DateTime.to_iso8601(DateTime.truncate(DateTime.utc_now(), :second)),
      commit: System.get_env("BENCH_COMMIT") || command("git", ["describe", "--always", "--dirty"]),
      store: settings.store.version(),
      elixir: System.version(),
      otp: List.to_string(:erlang.system_info(:otp_release)),
      rust: System.get_env("BENCH_RUST") || command("rustc", ["--version"]),
      os: String.trim(command("uname", ["-sr"])),
      cpu: cpu(),
      cores: :erlang.system_info(:logical_processors_available),
      memory_mb: div(proc_kb("/proc/meminfo", "MemTotal"), 1024),
      disk: disk(settings.dir),
      load_average: load_average(),
      rounds: settings.rounds,
      seconds: settings.seconds,
      quick: settings.quick?
    }
  end

  @doc "Prints a description, in a few lines."
  @spec print(map) :: :ok
  def print(m) do
    if m.quick, do: IO.puts("--quick: the figures mean nothing")

    IO.puts("""
    #{m.date}, commit #{m.commit}, #{m.store}, Elixir #{m.elixir}, OTP #{m.otp}, #{m.rust}
    #{m.cpu}, #{m.cores} cores, #{m.memory_mb} MB, #{m.os}, #{m.disk}; load average before: #{m.load_average}
    """)
  end

  @doc "The 1, 5 and 15 minute load averages."
  @spec load_average :: String.t()
  def load_average, do: "/proc/loadavg" |> File.read!() |> String.split() |> Enum.take(3) |> Enum.join(" ")

  @doc "Resident memory of this VM, in bytes."
  @spec rss :: non_neg_integer
  def rss, do: proc_kb("/proc/self/status", "VmRSS") * 1024

  @doc "The most that it ever was, in bytes."
  @spec rss_peak :: non_neg_integer
  def rss_peak, do: proc_kb("/proc/self/status", "VmHWM") * 1024

  @doc """
  Bytes that have reached the disk of a directory, whoever wrote them: also the file system's own journal. What the
  kernel counts for a process is how much of files it changed, by pieces of the page cache that may be a megabyte large.
  """
  @spec written(Path.t()) :: non_neg_integer
  def written(dir) do
    device = File.stat!(dir).major_device
    # As `makedev` puts them together.
    major = Bitwise.band(Bitwise.bsr(device, 8), 0xFFF)
    minor = Bitwise.bor(Bitwise.band(device, 0xFF), Bitwise.band(Bitwise.bsr(device, 12), 0xFFF00))

    case Regex.run(~r/^ +#{major} +#{minor} \S+ (.*)$/m, File.read!("/proc/diskstats")) do
      [_line, counters] -> (counters |> String.split() |> Enum.at(6) |> String.to_integer()) * 512
      # A file system that is on no disk of its own.
      nil -> proc_value("/proc/self/io", "write_bytes")
    end
  end

  @doc "Processor time that this VM used, all threads, in seconds."
  @spec cpu_seconds :: float
  def cpu_seconds do
    [_name, rest] = "/proc/self/stat" |> File.read!() |> String.split(") ", parts: 2)
    fields = String.split(rest)
    # In ticks; there are 100 a second on every Linux.
    (String.to_integer(Enum.at(fields, 11)) + String.to_integer(Enum.at(fields, 12))) / 100
  end

  defp proc_kb(file, key), do: proc_value(file, key)

  defp proc_value(file, key) do
    [line] = for line <- String.split(File.read!(file), "\n"), String.starts_with?(line, key <> ":"), do: line
    line |> String.split() |> Enum.at(1) |> String.to_integer()
  end

  defp cpu do
    case Regex.run(~r/^model name\s*:\s*(.*)$/m, File.read!("/proc/cpuinfo")) do
      [_line, name] -> String.trim(name)
      nil -> List.to_string(:erlang.system_info(:system_architecture))
    end
  end

  defp disk(dir) do
    File.mkdir_p!(dir)

    case String.split(command("df", ["--output=source,fstype", dir]), "\n") do
      [_head, line | _rest] -> line |> String.split() |> Enum.join(" ")
      _other -> "disk unknown"
    end
  end

  defp command(name, arguments) do
    with path when path != nil <- System.find_executable(name),
         {output, 0} <- System.cmd(path, arguments, stderr_to_stdout: true) do
      String.trim(output)
    else
      _missing_or_failed -> "#{name} unknown"
    end
  end
end
