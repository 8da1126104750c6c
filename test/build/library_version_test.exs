defmodule Tank.Store.Build.LibraryVersionTest do
  # The application in a VM of its own, with libraries that it cannot use.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  setup %{tmp_dir: tmp_dir} do
    app = Path.join(Path.expand(tmp_dir), "tank_store")
    File.mkdir_p!(Path.join(app, "priv/native"))
    File.cp_r!(Application.app_dir(:tank_store, "ebin"), Path.join(app, "ebin"))
    {:ok, app: app, library: Path.join(app, "priv/native/libtank_nif_faults.so")}
  end

  test "a library of another version is refused, with both versions", %{app: app, library: library} do
    build_nif(library, "0.0.7")

    assert start(app) =~
             ~r/tank_store #{version()} cannot use .*libtank_nif_faults.so: it is of version 0\.0\.7\. Build it again/
  end

  test "a library of this version is taken", %{app: app, library: library} do
    File.ln_s!(Application.app_dir(:tank_store, "priv/native/libtank_nif_faults.so"), library)
    assert start(app) =~ ~r/^\{:ok, .*:tank_store/m
  end

  test "a library that is not there, or is none, is refused by name", %{app: app, library: library} do
    assert start(app) =~ ~r/cannot use .*No such file/
    File.write!(library, "no library")
    assert start(app) =~ ~r/cannot use .*(invalid ELF header|file too short)/
  end

  defp version, do: Mix.Project.config()[:version]

  defp start(app) do
    paths =
      for path <- :code.get_path(), to_string(path) =~ ~r{/lib/(elixir|logger|eex)/ebin}, do: ["-pa", to_string(path)]

    script = "IO.inspect(Application.ensure_all_started(:tank_store), printable_limit: :infinity)"
    args = Enum.concat(paths) ++ ["-pa", Path.join(app, "ebin"), "-e", script]
    {output, 0} = System.cmd("elixir", args, stderr_to_stdout: true)
    output
  end

  # A library with one function, as a checkout of another version would have it.
  defp build_nif(file, version) do
    source = Path.rootname(file) <> ".c"

    File.write!(source, """
    #include <erl_nif.h>
    static ERL_NIF_TERM version(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
      ErlNifBinary text;
      enif_alloc_binary(#{byte_size(version)}, &text);
      for (size_t at = 0; at < text.size; at++) text.data[at] = "#{version}"[at];
      return enif_make_binary(env, &text);
    }
    static ErlNifFunc functions[] = {{"version", 0, version, 0}};
    ERL_NIF_INIT(Elixir.Tank.Store.Native, functions, NULL, NULL, NULL, NULL)
    """)

    include = Path.join([:code.root_dir(), "usr", "include"])

    {output, status} =
      System.cmd("cc", ["-shared", "-fPIC", "-I#{include}", "-o", file, source], stderr_to_stdout: true)

    assert status == 0, output
  end
end
