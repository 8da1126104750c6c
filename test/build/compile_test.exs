defmodule Tank.Store.Build.CompileTest do
  # `mix compile` in a checkout reduced to its build, in a process of its own: with a library that is built already, or
  # a stand-in for Cargo, so that nothing is compiled but this project's few Elixir files.
  use ExUnit.Case, async: true

  alias Mix.TankNative.{Precompiled, Target}

  @moduletag :tmp_dir

  setup %{tmp_dir: tmp_dir} do
    checkout = Path.expand(Path.join(tmp_dir, "checkout"))
    File.mkdir_p!(Path.join(checkout, "lib"))
    for file <- ["mix.exs", "Cargo.toml"], do: File.cp!(file, Path.join(checkout, file))
    File.cp_r!("lib/mix", Path.join(checkout, "lib/mix"))
    prebuilt = Path.expand(Path.join(tmp_dir, "prebuilt.so"))
    File.write!(prebuilt, "a library")
    {:ok, checkout: checkout, prebuilt: prebuilt}
  end

  test "a prebuilt library is installed, found through _build, and not copied again", context do
    %{checkout: checkout, prebuilt: prebuilt} = context
    env = [{"TANK_STORE_NIF_PATH", prebuilt}]
    assert {output, 0} = mix(checkout, ["compile", "--warnings-as-errors"], env)
    refute output =~ "warning"
    assert File.read!(Path.join(checkout, "_build/dev/lib/tank_store/priv/native/libtank_nif.so")) == "a library"

    %{inode: inode} = File.stat!(Path.join(checkout, "priv/native/libtank_nif.so"))
    assert {"", 0} = mix(checkout, ["compile"], env)
    assert %{inode: ^inode} = File.stat!(Path.join(checkout, "priv/native/libtank_nif.so"))
  end

  test "the tests of this project get a library of their own, next to the other", context do
    %{checkout: checkout, prebuilt: prebuilt} = context
    mix(checkout, ["compile"], [{"TANK_STORE_NIF_PATH", prebuilt}])
    mix(checkout, ["compile"], [{"TANK_STORE_NIF_PATH", prebuilt}, {"MIX_ENV", "test"}])
    libraries = Path.wildcard(Path.join(checkout, "priv/native/*.so"))
    assert Enum.map(libraries, &Path.basename/1) == ["libtank_nif.so", "libtank_nif_faults.so"]
  end

  test "a prebuilt library with another checksum ends the build", %{checkout: checkout, prebuilt: prebuilt} do
    env = [{"TANK_STORE_NIF_PATH", prebuilt}, {"TANK_STORE_NIF_SHA256", String.duplicate("0", 64)}]
    assert {output, 1} = mix(checkout, ["compile"], env)
    assert output =~ "does not have the checksum it should have"
    refute File.exists?(Path.join(checkout, "priv/native/libtank_nif.so"))
  end

  test "a failing Cargo ends the build with what to do", %{checkout: checkout} do
    cargo(checkout, "echo 'error: failed to write to `x`: No space left on device (os error 28)' >&2; exit 101")
    assert {output, 1} = mix(checkout, ["compile"], path(checkout))
    assert output =~ "No space left on device"
    assert output =~ "** (Mix) tank_store: the Rust library was not built."
    assert output =~ "CARGO_TARGET_DIR"
  end

  test "Cargo runs once, again for a changed source or --force, and for the first build says how long it takes",
       context do
    %{checkout: checkout, tmp_dir: tmp_dir} = context
    library = Path.expand(Path.join(tmp_dir, "prebuilt.so"))

    cargo(checkout, """
    echo ran
    echo '{"reason":"compiler-artifact","package_id":"path#tank_nif@0.1.0","target":{"name":"tank_nif"},"filenames":["#{library}"]}'
    """)

    env = [{"CARGO_TARGET_DIR", Path.join(checkout, "target")} | path(checkout)]
    assert {first, 0} = mix(checkout, ["compile"], env)
    assert first =~ "about 10 minutes"
    assert first =~ "ran\n"
    assert {"", 0} = mix(checkout, ["compile"], env)
    assert {forced, 0} = mix(checkout, ["compile", "--force"], env)
    assert forced =~ "ran\n"

    File.mkdir_p!(Path.join(checkout, "native"))
    File.write!(Path.join(checkout, "native/lib.rs"), "fn main() {}")
    assert {changed, 0} = mix(checkout, ["compile"], env)
    assert changed =~ "ran\n"
  end

  test "mix clean removes the library", %{checkout: checkout, prebuilt: prebuilt} do
    assert {_output, 0} = mix(checkout, ["compile"], [{"TANK_STORE_NIF_PATH", prebuilt}])
    assert {_output, 0} = mix(checkout, ["clean"], [])
    refute File.exists?(Path.join(checkout, "priv/native"))
  end

  test "a project that depends on this one finds the library after its first build", context do
    %{checkout: checkout, prebuilt: prebuilt, tmp_dir: tmp_dir} = context
    consumer = Path.expand(Path.join(tmp_dir, "consumer"))
    File.mkdir_p!(consumer)

    # With the strictest wish a consumer can have: the dependency compiled for :test, like its own tests.
    File.write!(Path.join(consumer, "mix.exs"), """
    defmodule Consumer.MixProject do
      use Mix.Project
      def project, do: [app: :consumer, version: "0.1.0", deps: [{:tank_store, path: #{inspect(checkout)}, env: Mix.env()}]]
    end
    """)

    File.mkdir_p!(Path.join(checkout, "test/support"))

    for env <- ["dev", "test"] do
      assert {_output, 0} = mix(consumer, ["compile"], [{"TANK_STORE_NIF_PATH", prebuilt}, {"MIX_ENV", env}])
      libraries = Path.wildcard(Path.join(consumer, "_build/#{env}/lib/tank_store/priv/native/*.so"))
      assert Enum.map(libraries, &Path.basename/1) == ["libtank_nif.so"]
    end
  end

  test "an application names a directory of precompiled libraries, which is used once its checksum was verified",
       context do
    %{checkout: checkout, tmp_dir: tmp_dir} = context

    {consumer, precompiled} =
      {Path.expand(Path.join(tmp_dir, "consumer")), Path.expand(Path.join(tmp_dir, "precompiled"))}

    for dir <- [Path.join(consumer, "config"), precompiled], do: File.mkdir_p!(dir)

    File.write!(Path.join(consumer, "mix.exs"), """
    defmodule Consumer.MixProject do
      use Mix.Project
      def project, do: [app: :consumer, version: "0.1.0", deps: [{:tank_store, path: #{inspect(checkout)}}]]
    end
    """)

    config = "import Config\nconfig :tank_store, precompiled: #{inspect(precompiled)}\n"
    File.write!(Path.join(consumer, "config/config.exs"), config)
    version = Mix.Project.config()[:version]
    library = Path.join(precompiled, Target.file_name(version, Target.host()))
    File.write!(library, "a library")
    Precompiled.list(library)

    assert {output, 0} = mix(consumer, ["compile"], [])
    assert output =~ "[tank_store] using the precompiled library #{library}\n[tank_store] its checksum is right: "
    installed = Path.join(consumer, "_build/dev/lib/tank_store/priv/native/libtank_nif.so")
    assert File.read!(installed) == "a library"
    assert {output, 0} = mix(consumer, ["compile"], [])
    refute output =~ "tank_store]"

    # Another one is listed, and the file is what it was.
    File.write!(Path.join(precompiled, "checksums.sha256"), "#{String.duplicate("1", 64)}  #{Path.basename(library)}\n")
    assert {output, 1} = mix(consumer, ["deps.compile", "tank_store", "--force"], [])
    assert output =~ "does not have the checksum that it should have"
    assert File.read!(installed) == "a library"

    # None is listed for this machine.
    cargo(checkout, "echo Cargo ran; exit 1")
    File.write!(Path.join(precompiled, "checksums.sha256"), "")
    assert {output, 1} = mix(consumer, ["deps.compile", "tank_store", "--force"], path(checkout))
    assert output =~ ~r/lists no tank_nif-\S+.so: compiling the library instead\n.*Cargo ran/s
  end

  test "mix tank.precompile makes a stripped library, its symbols and its checksum, which a build takes", context do
    %{checkout: checkout, tmp_dir: tmp_dir} = context
    built = Path.expand(Path.join(tmp_dir, "built.so"))
    {output, 0} = System.cmd("cc", ~w(-g -shared -fPIC -x c -o #{built} /dev/null), stderr_to_stdout: true)
    assert output == ""

    artifact =
      ~s({"reason":"compiler-artifact","package_id":"path#tank_nif@0.1.0","target":{"name":"tank_nif"},"filenames":["#{built}"]})

    cargo(checkout, "echo '#{artifact}'")
    assert {output, 0} = mix(checkout, ["do", "compile", "+", "tank.precompile"], path(checkout))
    name = Target.file_name(Mix.Project.config()[:version], Target.host())
    assert output =~ "* stripped #{name}"
    dir = Path.join(checkout, "precompiled")
    assert Enum.sort(File.ls!(dir)) == ["checksums.sha256", "symbols", name]
    assert File.regular?(Path.join(dir, "symbols/#{name}.debug"))
    assert {_output, 0} = System.cmd("sha256sum", ["--check", "checksums.sha256"], cd: dir)
    assert {sections, 0} = System.cmd("readelf", ["--sections", "--wide", Path.join(dir, name)])
    refute sections =~ ".debug_info"
  end

  defp mix(directory, args, env) do
    unset = for name <- ~w(TANK_STORE_NIF_PATH TANK_STORE_NIF_SHA256 MIX_BUILD_PATH MIX_TARGET), do: {name, nil}
    System.cmd("mix", args, cd: directory, env: unset ++ [{"MIX_ENV", "dev"} | env], stderr_to_stdout: true)
  end

  defp path(checkout), do: [{"PATH", Path.join(checkout, "bin") <> ":" <> System.get_env("PATH")}]

  defp cargo(checkout, script) do
    path = Path.join(checkout, "bin/cargo")
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'cargo 1.95.0'; exit; fi\n#{script}\n")
    File.chmod!(path, 0o755)
  end
end
