defmodule Mix.TankNative.CargoTest do
  # A stand-in for Cargo that prints what the real one prints: the real one is run by test/build/.
  use ExUnit.Case, async: true

  alias Mix.TankNative.Cargo

  @moduletag :tmp_dir

  @built ~s({"reason":"compiler-artifact","package_id":"path#tank_nif@0.1.0","target":{"kind":["cdylib"],) <>
           ~s("name":"tank_nif"},"filenames":["/target/release/libtank_nif.so"],"fresh":false})

  setup %{tmp_dir: tmp_dir} do
    File.write!(Path.join(tmp_dir, "Cargo.toml"), ~s([workspace.package]\nrust-version = "1.91"\n))
    :ok
  end

  test "returns the file that Cargo made, and prints what is meant for people", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, "echo '   Compiling tank_nif v0.1.0' >&2\necho '#{@built}'")
    assert build!(tmp_dir) == "/target/release/libtank_nif.so"
    assert_received {:said, "   Compiling tank_nif v0.1.0"}
    refute_received {:said, "{" <> _message}
  end

  test "builds our crate alone, with the features, the lock file and a target directory outside", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, ~s(echo "args: $*"; echo "in: $PWD"; echo "target: $CARGO_TARGET_DIR"; echo '#{@built}'))
    build!(tmp_dir, ["tank_nif/faults"])
    args = "build --release -p tank_nif --locked --message-format=json-render-diagnostics --features tank_nif/faults"
    directory = "in: " <> Path.expand(tmp_dir)
    target = "target: " <> Cargo.target_dir(tmp_dir)
    assert_received {:said, "args: " <> ^args}
    assert_received {:said, ^directory}
    assert_received {:said, ^target}
  end

  test "shows every while that it is alive", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, "echo '#{@built}'; sleep 0.3")
    build!(tmp_dir, [], heartbeat_ms: 50)
    assert_received {:said, "[tank_store] 0 s: 1 crates done"}
  end

  test "without Cargo, it says what to install", %{tmp_dir: tmp_dir} do
    error = assert_raise Mix.Error, fn -> build!(tmp_dir) end
    assert error.message =~ "Cargo was not found"
    assert error.message =~ "rustup"
    assert error.message =~ "TANK_STORE_NIF_PATH"
  end

  test "with a Cargo that is too old, it says so before it runs for minutes", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, "echo must not run", "1.90.1")
    error = assert_raise Mix.Error, fn -> build!(tmp_dir) end
    assert error.message =~ "Cargo 1.90.1 is too old: tank_store needs Rust 1.91 or later"
    refute_received {:said, "must not run"}
  end

  test "the oldest version allowed and a nightly build are taken", %{tmp_dir: tmp_dir} do
    for version <- ["1.91.0", "1.97.0-nightly"] do
      cargo(tmp_dir, "echo '#{@built}'", version)
      assert build!(tmp_dir) == "/target/release/libtank_nif.so"
    end
  end

  test "a failure is explained by what Cargo printed", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, "echo '#{@built}'; echo 'Unable to find libclang: x' >&2; exit 101")
    error = assert_raise Mix.Error, fn -> build!(tmp_dir) end
    assert error.message =~ "libclang is missing"
    assert error.message =~ "bin/setup"
  end

  test "success without a library is a failure too", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, "exit 0")
    assert_raise Mix.Error, ~r/exit code 0/, fn -> build!(tmp_dir) end
  end

  test "an interrupted build ends Cargo and what it started", %{tmp_dir: tmp_dir} do
    cargo(tmp_dir, "sleep 60 &\necho \"started $!\"; wait")
    build = spawn(fn -> receive(do: ({:build, test} -> build!(tmp_dir, [], say: &send(test, {:said, &1})))) end)
    send(build, {:build, self()})
    assert_receive {:said, "started " <> pid}, 5_000
    assert alive?(pid)
    Process.exit(build, :kill)
    assert eventually(fn -> not alive?(pid) end), "process #{pid} still runs"
  end

  defp alive?(pid), do: match?({_output, 0}, System.cmd("kill", ["-0", pid], stderr_to_stdout: true))

  defp eventually(condition, deadline \\ System.monotonic_time(:millisecond) + 5_000) do
    cond do
      condition.() -> true
      System.monotonic_time(:millisecond) > deadline -> false
      true -> eventually(condition, deadline)
    end
  end

  defp build!(tmp_dir, features \\ [], opts \\ []) do
    test = self()
    say = fn line -> send(test, {:said, line}) end
    opts = Keyword.merge([path: Path.join(tmp_dir, "bin"), say: say], opts)
    Cargo.build!(Path.expand(tmp_dir), features, opts)
  end

  defp cargo(tmp_dir, script, version \\ "1.95.0") do
    path = Path.join(tmp_dir, "bin/cargo")
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'cargo #{version} (abc)'; exit; fi\n#{script}\n")
    File.chmod!(path, 0o755)
  end
end
