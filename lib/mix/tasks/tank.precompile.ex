defmodule Mix.Tasks.Tank.Precompile do
  @shortdoc "Builds a stripped Rust library for others to use"

  @moduledoc """
  Builds the Rust library for one target, strips it, and lists its checksum.

      mix tank.precompile [--output DIRECTORY] [--target TRIPLE]

  DIRECTORY is `precompiled` unless given. Afterwards it has

    * `tank_nif-VERSION-TARGET.so`, the library without symbols,
    * `symbols/tank_nif-VERSION-TARGET.so.debug`, its symbols, for `gdb` and `perf`,
    * `checksums.sha256`, in the format of `sha256sum`: the libraries of other targets and versions stay listed.

  An application uses the library instead of Rust when it names the directory, or a URL where its files are:

      config :tank_store, precompiled: "/srv/tank_store"

      config :tank_store,
        precompiled: "https://files.example.com/tank_store",
        precompiled_checksums: Path.expand("tank_store.sha256", __DIR__)

  The build then prints which library it takes and that its checksum was verified. Where no library is listed for a machine and
  this version, it says so and compiles.

  Without `--target` the library is for machines like this one. A library needs a C library that is at least as new as the one
  it was built with: build it on the oldest system it is for. TRIPLE is one of Rust's, such as `aarch64-unknown-linux-gnu`, and
  needs that target of Rust and a cross compiler for C++. `STRIP` and `OBJCOPY` name its tools then.
  """

  use Mix.Task

  alias Mix.TankNative.{Cargo, Precompiled, Symbols, Target}

  @switches [output: :string, target: :string]

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)
    if rest != [], do: Mix.raise("tank.precompile takes no argument #{inspect(hd(rest))}")
    output = Path.expand(Keyword.get(options, :output, "precompiled"))
    library = copy(build(options[:target]), output, options[:target])
    Symbols.strip(library, Path.join([output, "symbols", Path.basename(library) <> ".debug"]))
    list = Precompiled.list(library)
    Mix.shell().info("* wrote #{library}\n* listed it in #{list}")
  end

  defp build(triple) do
    # What Cargo reads.
    if triple, do: System.put_env("CARGO_BUILD_TARGET", triple)
    Cargo.build!(Path.dirname(Mix.Project.project_file()), [])
  end

  defp copy(built, output, triple) do
    target = if triple, do: Target.name(triple), else: Target.host()
    library = Path.join(output, Target.file_name(Mix.Project.config()[:version], target))
    File.mkdir_p!(output)
    File.cp!(built, library)
    library
  end
end
