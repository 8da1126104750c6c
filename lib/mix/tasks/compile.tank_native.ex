defmodule Mix.Tasks.Compile.TankNative do
  @shortdoc "Compiles the Rust library of tank_store"

  @moduledoc """
  Compiles the Rust library of `tank_store` and puts it into `priv/native/`.

  It runs `cargo build --release -p tank_nif --locked` in the project's own directory, also when `tank_store` is a
  dependency. The first build compiles RocksDB, which takes about ten minutes on two cores; Cargo keeps it outside of
  the checkout, so that a clean checkout builds in about a minute. Nothing runs when no source has changed since the
  library was installed.

  ## Environment variables

    * `CARGO_TARGET_DIR` - where Cargo builds; `tank_store/target` in the user's cache directory by default
    * `TANK_STORE_NIF_PATH` - a library that is built already: it is checked and copied, and Cargo is not needed
    * `TANK_STORE_NIF_SHA256` - the checksum that library must have; without it, the one `native/checksums.sha256`
      lists for its file name, if any

  ## Options

    * `--force` - runs Cargo even if no source has changed
  """

  use Mix.Task.Compiler

  alias Mix.TankNative.{Cargo, Library}

  @recursive true

  @impl Mix.Task.Compiler
  def run(args) do
    {opts, _args, _invalid} = OptionParser.parse(args, switches: [force: :boolean])
    status = install(root(), source(), Keyword.get(opts, :force, false))

    # On the first build of a project that depends on this one, `priv` did not exist when Mix linked it.
    Mix.Project.build_structure()
    unload()
    {status, []}
  end

  @impl Mix.Task.Compiler
  def clean, do: Library.remove(root())

  @doc """
  The name of the library in `priv/native/`, without `.so`, which `:erlang.load_nif/2` adds by itself.

  The tests of this project use a library of their own, with fault points in it: `priv` is one directory for all
  environments, so the name is what tells the two apart.
  """
  @spec library_name() :: String.t()
  def library_name, do: if(faults?(), do: "libtank_nif_faults", else: "libtank_nif")

  defp install(root, source, force?) do
    stamp = Library.stamp(root, source)

    if not force? and Library.current?(root, library_name(), stamp) do
      :noop
    else
      Library.install(root, library_name(), obtain(root, source), stamp)
    end
  end

  defp source do
    case System.get_env("TANK_STORE_NIF_PATH", "") do
      "" -> {:cargo, if(faults?(), do: ["tank_nif/faults"], else: [])}
      path -> {:prebuilt, path, System.get_env("TANK_STORE_NIF_SHA256")}
    end
  end

  defp obtain(root, {:prebuilt, path, sha256}), do: Library.verify!(root, path, sha256)
  defp obtain(root, {:cargo, features}), do: Cargo.build!(root, features)

  defp faults?, do: Mix.env() == :test and not dependency?()

  # Whatever environment a dependency is compiled for, it has the lock file of the project that needs it.
  defp dependency?, do: Path.expand(Mix.Project.config()[:lockfile], root()) != Path.join(root(), "mix.lock")

  defp root, do: Path.dirname(Mix.Project.project_file())

  # mix.exs loaded this compiler from its sources. Forget them, or compiling them with the rest of the project would
  # warn that it defines them again; after that they are loaded from there.
  defp unload do
    for module <- [Mix.TankNative.Failure, Mix.TankNative.Progress, Cargo, Library, __MODULE__] do
      :code.purge(module)
      :code.delete(module)
    end
  end
end
