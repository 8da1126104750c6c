defmodule Mix.TankNative.ProgressTest do
  use ExUnit.Case, async: true

  alias Mix.TankNative.Progress

  test "counts a crate once, and its build script not at all" do
    progress =
      after_lines([
        artifact("serde@1.0.229", "custom-build", ["target/release/build/serde-1/build-script-build"]),
        artifact("serde@1.0.229", "lib", ["target/release/deps/libserde.rlib"]),
        artifact("serde@1.0.229", "lib", ["target/release/deps/libserde.rlib"]),
        artifact("tokio@1.40.0", "lib", ["target/release/deps/libtokio.rlib"])
      ])

    assert Progress.report(progress, 5_000) == "[tank_store] 5 s: 2 crates done"
  end

  test "finds the library in what Cargo says of our crate" do
    for file <- ["/target/release/libtank_nif.so", "/target/release/libtank_nif.dylib"] do
      assert %Progress{library: ^file} = after_lines([artifact("tank_nif@0.1.0", "cdylib", [file], "tank_nif")])
    end
  end

  test "shows what people should read, keeps the last of it, and hides the messages" do
    progress = Progress.new(2)
    assert {progress, true} = Progress.line(progress, "   Compiling serde v1.0.229")
    assert {progress, true} = Progress.line(progress, "warning: unused import")
    assert {progress, false} = Progress.line(progress, ~s({"reason":"build-finished","success":true}))
    assert {%{output: ["error: no", "warning: unused import"]}, true} = Progress.line(progress, "error: no")
  end

  @tag :tmp_dir
  test "shows how many files of RocksDB are compiled, while they are", %{tmp_dir: tmp_dir} do
    crate = Path.join(tmp_dir, "librocksdb-sys-0.19.0")
    script = Path.join(tmp_dir, "build/librocksdb-sys-1/build-script-build")
    out_dir = Path.join(tmp_dir, "build/librocksdb-sys-2/out")
    File.mkdir_p!(crate)
    File.mkdir_p!(out_dir)
    File.write!(Path.join(crate, "rocksdb_lib_sources.txt"), "cache/cache.cc\ndb/builder.cc\ndb/c.cc\n")

    progress =
      after_lines([
        ~s({"reason":"compiler-artifact","package_id":"registry#librocksdb-sys@0.19.0",) <>
          ~s("manifest_path":"#{crate}/Cargo.toml","target":{"kind":["custom-build"]},"filenames":["#{script}"]})
      ])

    assert Progress.report(progress, 59_999) == "[tank_store] 59 s: 0 crates done"
    for name <- ["cache.o", "builder.o"], do: File.touch!(Path.join(out_dir, name))
    assert Progress.report(progress, 75_000) == "[tank_store] 1 min 15 s: 0 crates done, RocksDB 2 of 3 files"

    {progress, false} =
      Progress.line(progress, ~s({"reason":"build-script-executed","package_id":"registry#librocksdb-sys@0.19.0"}))

    assert Progress.report(progress, 600_000) == "[tank_store] 10 min 0 s: 0 crates done"
  end

  defp after_lines(lines) do
    Enum.reduce(lines, Progress.new(100), fn line, progress -> line |> then(&Progress.line(progress, &1)) |> elem(0) end)
  end

  defp artifact(package, kind, files, name \\ "x") do
    files = Enum.map_join(files, ",", &~s("#{&1}"))

    ~s({"reason":"compiler-artifact","package_id":"registry##{package}","manifest_path":"/m/Cargo.toml",) <>
      ~s("target":{"kind":["#{kind}"],"name":"#{name}"},"filenames":[#{files}],"fresh":false})
  end
end
