defmodule Mix.Tasks.Compile.TankNative do
  @shortdoc "Compiles the Rust library of tank_store"

  @moduledoc """
  Compiles the Rust library of `tank_store` and puts it into `priv/native/`.

  It runs `cargo build --release -p tank_nif --locked` in the project's own directory, also when `tank_store` is a
  dependency. The first build compiles RocksDB, which takes about ten minutes on two cores; Cargo keeps it outside of
  the checkout, so that a clean checkout builds in about a minute. Nothing runs when no source has changed since the
  library was installed.

  ## A precompiled library

  An application whose machines have no Rust names a directory or a URL with libraries that `mix tank.precompile` has made:

      config :tank_store, precompiled: "/srv/tank_store"

  The library for the machine and this version is taken from there if its checksum is the listed one; see `mix help
  tank.precompile`. The library of this project's own tests, which has fault points, is always compiled.

  ## Environment variables

    * `CARGO_TARGET_DIR` - where Cargo builds; `tank_store/target` in the user's cache directory by default
    * `TANK_STORE_NIF_PATH` - a library that is built already: it is checked and copied, and Cargo is not needed
    * `TANK_STORE_NIF_SHA256` - the checksum that library must have; without it, the one `native/checksums.sha256`
      lists for its file name, if any

  ## Options

    * `--force` - runs Cargo even if no source has changed
  """

  use Mix.Task.Compiler

  alias Mix.TankNative.{Cargo, Failure, Library, Precompiled, Progress, Target}

  @recursive true

  @impl Mix.Task.Compiler
  def run(args) do
    {opts, _args, _invalid} = OptionParser.parse(args, switches: [force: :boolean])
    status = install(root(), sources(), Keyword.get(opts, :force, false))

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

  defp install(root, {source, note}, force?) do
    stamp = Library.stamp(root, source)

    if not force? and Library.current?(root, library_name(), stamp) do
      :noop
    else
      if note, do: say("[tank_store] " <> note)
      obtain(root, source, &Library.install(root, library_name(), &1, stamp))
    end
  end

  # Where the library comes from, and what to say about that.
  defp sources do
    precompiled = Application.get_env(:tank_store, :precompiled)

    case System.get_env("TANK_STORE_NIF_PATH", "") do
      "" when is_binary(precompiled) -> if(faults?(), do: {cargo(), nil}, else: precompiled(precompiled))
      "" -> {cargo(), nil}
      path -> {{:prebuilt, path, System.get_env("TANK_STORE_NIF_SHA256")}, nil}
    end
  end

  defp cargo, do: {:cargo, if(faults?(), do: ["tank_nif/faults"], else: [])}

  defp precompiled(location) do
    checksums = Application.get_env(:tank_store, :precompiled_checksums)

    case Precompiled.find(String.trim_trailing(location, "/"), checksums, Mix.Project.config()[:version]) do
      {:none, why} -> {cargo(), why}
      precompiled -> {precompiled, nil}
    end
  end

  defp obtain(root, {:prebuilt, path, sha256}, install), do: install.(Library.verify!(root, path, sha256))
  defp obtain(root, {:cargo, features}, install), do: install.(Cargo.build!(root, features))
  defp obtain(_root, precompiled, install), do: Precompiled.with_file!(precompiled, &say/1, install)

  defp say(line), do: Mix.shell().info(line)

  defp faults?, do: Mix.env() == :test and not dependency?()

  # Whatever environment a dependency is compiled for, it has the lock file of the project that needs it.
  defp dependency?, do: Path.expand(Mix.Project.config()[:lockfile], root()) != Path.join(root(), "mix.lock")

  defp root, do: Path.dirname(Mix.Project.project_file())

  # mix.exs loaded this compiler from its sources. Forget them, or compiling them with the rest of the project would
  # warn that it defines them again; after that they are loaded from there.
  defp unload do
    for module <- [Failure, Progress, Target, Cargo, Library, Precompiled, __MODULE__] do
      :code.purge(module)
      :code.delete(module)
    end
  end
end
