defmodule Mix.TankNative.Cargo do
  @moduledoc """
  Runs Cargo, shows that it is alive, and explains why it failed.

  RocksDB takes minutes in which Cargo prints nothing. So Cargo reports each finished crate as a line of JSON, which is
  counted, and what it prints for people is passed on.
  """

  alias Mix.TankNative.{Failure, Progress}

  # Often enough to see that it is alive, seldom enough to read in a CI log: 40 lines for the longest build.
  @heartbeat_ms 15_000

  # Lines kept for the explanation of a failure: more than a failed build script prints.
  @output_lines_max 500

  # RocksDB is always compiled from its sources: a system's own library is too old for the crate, or has assertions on,
  # which end the VM.
  @unset ~w(ROCKSDB_LIB_DIR ROCKSDB_STATIC)

  # Ends Cargo, and all it started, when the VM goes away, which closes our standard input: otherwise compilers would go
  # on for minutes after an interrupted build. A port's process leads a process group.
  @guard """
  exec 3<&0
  "$@" </dev/null 3<&- &
  cargo=$!
  { while read -r line; do :; done; kill -s TERM -- -$$; } <&3 >/dev/null 2>&1 &
  guard=$!
  wait $cargo
  status=$?
  kill $guard
  exit $status
  """

  @doc """
  Builds the library and returns the path of the file Cargo made.

  Options, for tests: `:path` to look for Cargo in, `:heartbeat_ms`, and `:say`, which gets each line to print.
  """
  @spec build!(Path.t(), [String.t()], keyword()) :: Path.t()
  def build!(root, features, opts \\ []) do
    cargo = find!(Keyword.get(opts, :path, System.get_env("PATH", "")))
    check_version!(cargo, required_version(root))
    say = Keyword.get(opts, :say, fn line -> Mix.shell().info(line) end)
    target_dir = target_dir(root)
    unless rocksdb_built?(target_dir), do: say.(first_build_notice(target_dir))

    progress = run(cargo, arguments(features), root, target_dir, say, Keyword.get(opts, :heartbeat_ms, @heartbeat_ms))

    case progress do
      %Progress{exit_status: 0, library: library} when is_binary(library) -> library
      %Progress{exit_status: status, output: output} -> Failure.raise_cargo!(status, Enum.reverse(output), root)
    end
  end

  @doc "Where Cargo builds: outside of the checkout, so that a clean checkout does not compile RocksDB again."
  @spec target_dir(Path.t()) :: Path.t()
  def target_dir(root) do
    case {System.get_env("CARGO_TARGET_DIR", ""), System.get_env("XDG_CACHE_HOME", "")} do
      {"", ""} -> Path.join([System.user_home!(), ".cache", "tank_store", "target"])
      {"", cache} -> Path.join([cache, "tank_store", "target"])
      {target_dir, _cache} -> Path.expand(target_dir, root)
    end
  end

  @doc "The oldest Rust that Cargo.toml allows."
  @spec required_version(Path.t()) :: Version.t()
  def required_version(root) do
    manifest = File.read!(Path.join(root, "Cargo.toml"))
    [_line, version] = Regex.run(~r/^rust-version\s*=\s*"([^"]+)"/m, manifest)
    parse_version(version)
  end

  defp find!(path) do
    case :os.find_executable(~c"cargo", String.to_charlist(path)) do
      false -> Failure.raise!(:no_cargo)
      cargo -> List.to_string(cargo)
    end
  end

  defp check_version!(cargo, required) do
    {output, _status} = System.cmd(cargo, ["--version"], stderr_to_stdout: true)

    with [version] <- Regex.run(~r/\d+\.\d+(\.\d+)?/, output, capture: :first),
         :lt <- Version.compare(parse_version(version), required) do
      Failure.raise!({:old_cargo, version, required})
    end
  end

  defp parse_version(version) do
    case String.split(version, ".") do
      [major, minor] -> Version.parse!("#{major}.#{minor}.0")
      _three -> Version.parse!(version)
    end
  end

  defp arguments(features) do
    ~w(build --release -p tank_nif --locked --message-format=json-render-diagnostics) ++
      Enum.flat_map(features, &["--features", &1])
  end

  # With a target triple set, Cargo puts a directory of that name in between.
  defp rocksdb_built?(target_dir) do
    Enum.any?(["release", "*/release"], fn profile ->
      Path.wildcard("#{target_dir}/#{profile}/build/librocksdb-sys-*/out/librocksdb.a") != []
    end)
  end

  defp first_build_notice(target_dir) do
    """
    Compiling the Rust engine of tank_store. The first build compiles RocksDB from its sources: about 10 minutes on
    two cores. Later builds, of any checkout, reuse it: #{target_dir}\
    """
  end

  defp run(cargo, arguments, root, target_dir, say, heartbeat_ms) do
    unset = for name <- @unset, do: {String.to_charlist(name), false}

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        :hide,
        :stderr_to_stdout,
        line: 65_536,
        args: ["-c", @guard, "sh", cargo | arguments],
        cd: root,
        env: [{~c"CARGO_TARGET_DIR", String.to_charlist(target_dir)} | unset]
      ])

    started_at = System.monotonic_time(:millisecond)
    follow(port, Progress.new(@output_lines_max), {say, heartbeat_ms, started_at}, started_at + heartbeat_ms)
  end

  defp follow(port, progress, {say, heartbeat_ms, started_at} = display, heartbeat_at) do
    receive do
      {^port, {:data, {_end_of_line, line}}} ->
        {progress, print?} = Progress.line(progress, line)
        if print?, do: say.(line)
        follow(port, progress, display, heartbeat_at)

      {^port, {:exit_status, status}} ->
        %{progress | exit_status: status}
    after
      max(heartbeat_at - System.monotonic_time(:millisecond), 0) ->
        say.(Progress.report(progress, System.monotonic_time(:millisecond) - started_at))
        follow(port, progress, display, heartbeat_at + heartbeat_ms)
    end
  end
end
