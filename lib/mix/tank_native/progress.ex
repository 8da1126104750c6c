defmodule Mix.TankNative.Progress do
  @moduledoc """
  What is known of a running build, from the lines that Cargo prints.

  Lines of JSON are for us: a finished crate, and in the end the library. All others are for people.
  """

  @enforce_keys [:output_lines_max]
  defstruct [:output_lines_max, :rocksdb, :library, :exit_status, crates: MapSet.new(), output: []]

  @typedoc """
  `crates` are those that are done, `output` the last lines for people, the newest first, and `library` the file that
  was built. `rocksdb` is set while its C++ is compiled: the number of its files, and the directory with one directory
  per build script, in one of which the object files appear.
  """
  @type t :: %__MODULE__{
          output_lines_max: pos_integer(),
          rocksdb: nil | {file_count :: pos_integer(), build_dir :: Path.t()},
          library: nil | Path.t(),
          exit_status: nil | non_neg_integer(),
          crates: MapSet.t(String.t()),
          output: [String.t()]
        }

  @doc "Nothing is built yet; of the output, at most the last `output_lines_max` lines are kept."
  @spec new(pos_integer()) :: t()
  def new(output_lines_max), do: %__MODULE__{output_lines_max: output_lines_max}

  @doc "Takes one line of Cargo's output in, and tells whether to print it."
  @spec line(t(), String.t()) :: {t(), boolean()}
  def line(progress, ~s({"reason":) <> _rest = line), do: {message(progress, line), false}

  def line(progress, line) do
    {%{progress | output: Enum.take([line | progress.output], progress.output_lines_max)}, true}
  end

  @doc "One line on how far the build is, after `elapsed_ms`."
  @spec report(t(), non_neg_integer()) :: String.t()
  def report(progress, elapsed_ms) do
    "[tank_store] #{duration(elapsed_ms)}: #{MapSet.size(progress.crates)} crates done#{rocksdb(progress.rocksdb)}"
  end

  # Mix has no JSON of its own. Cargo writes its messages without spaces and in one order, and these few fields hold
  # nothing that JSON would escape.
  defp message(progress, line) do
    case Regex.run(~r/^{"reason":"compiler-artifact","package_id":"([^"]+)"/, line) do
      [_match, package] -> artifact(progress, package, line)
      nil -> if rocksdb_done?(line), do: %{progress | rocksdb: nil}, else: progress
    end
  end

  defp artifact(progress, package, line) do
    cond do
      line =~ ~s("kind":["custom-build"]) and package =~ "librocksdb-sys" -> %{progress | rocksdb: rocksdb_source(line)}
      line =~ ~s("kind":["custom-build"]) -> progress
      line =~ ~s("name":"tank_nif") -> done(%{progress | library: library(line)}, package)
      true -> done(progress, package)
    end
  end

  defp done(progress, package), do: %{progress | crates: MapSet.put(progress.crates, package)}

  defp library(line) do
    with [_match, file] <- Regex.run(~r/"filenames":\["([^"]+\.(?:so|dylib))"/, line), do: file
  end

  # The crate lists the files it compiles. Its build script is `build/librocksdb-sys-HASH/build-script-build`.
  defp rocksdb_source(line) do
    with [_match, manifest] <- Regex.run(~r/"manifest_path":"([^"]+)"/, line),
         [_match, script] <- Regex.run(~r/"filenames":\["([^"]+)"/, line),
         {:ok, files} <- File.read(Path.join(Path.dirname(manifest), "rocksdb_lib_sources.txt")) do
      {length(String.split(files)), Path.dirname(Path.dirname(script))}
    else
      _unknown -> nil
    end
  end

  defp rocksdb_done?(line) do
    line =~ ~s("reason":"build-script-executed") and line =~ "librocksdb-sys"
  end

  defp rocksdb(nil), do: ""

  defp rocksdb({file_count, build_dir}) do
    case length(Path.wildcard(build_dir <> "/librocksdb-sys-*/out/*.o")) do
      0 -> ""
      done -> ", RocksDB #{min(done, file_count)} of #{file_count} files"
    end
  end

  defp duration(ms) do
    seconds = div(ms, 1000)
    if seconds < 60, do: "#{seconds} s", else: "#{div(seconds, 60)} min #{rem(seconds, 60)} s"
  end
end
