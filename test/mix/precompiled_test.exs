defmodule Mix.TankNative.TargetTest do
  use ExUnit.Case, async: true

  alias Mix.TankNative.Target

  doctest Target

  test "the host's target has a processor and a system" do
    assert Target.host() =~ ~r/^[a-z0-9_]+-(linux-(gnu|musl)\w*|darwin|freebsd.*)$/
  end
end

defmodule Mix.TankNative.PrecompiledTest do
  use ExUnit.Case, async: true

  alias Mix.TankNative.{Library, Precompiled}

  @moduletag :tmp_dir

  @version "0.1.0"
  @name "tank_nif-0.1.0-x86_64-linux-gnu.so"
  @target "x86_64-linux-gnu"

  setup %{tmp_dir: tmp_dir} do
    dir = Path.expand(tmp_dir)
    library = Path.join(dir, @name)
    File.write!(library, "a library")
    list = Precompiled.list(library)
    {:ok, dir: dir, library: library, list: list}
  end

  defp find(location, checksums \\ nil, target \\ @target),
    do: Precompiled.find(location, checksums, @version, target)

  # What it said, and the content of the file that it gave.
  defp take(precompiled) do
    me = self()
    content = Precompiled.with_file!(precompiled, &send(me, {:said, &1}), &File.read!/1)
    {content, said([])}
  end

  defp said(lines) do
    receive do
      {:said, line} -> said([line | lines])
    after
      0 -> lines |> Enum.reverse() |> Enum.join("\n")
    end
  end

  defp serve(dir) do
    {:ok, _started} = Application.ensure_all_started(:inets)
    root = String.to_charlist(dir)
    options = [port: 0, bind_address: {127, 0, 0, 1}, server_name: ~c"files", server_root: root, document_root: root]
    {:ok, server} = :inets.start(:httpd, options)
    on_exit(fn -> :inets.stop(:httpd, server) end)
    [port: port] = :httpd.info(server, [:port])
    "http://127.0.0.1:#{port}"
  end

  test "the list is what sha256sum reads, and keeps what it had", %{dir: dir, library: library, list: list} do
    other = Path.join(dir, "tank_nif-0.1.0-aarch64-linux-gnu.so")
    File.write!(other, "another library")
    Precompiled.list(other)
    File.write!(library, "built again")
    assert Precompiled.list(library) == list
    assert {output, 0} = System.cmd("sha256sum", ["--check", "checksums.sha256"], cd: dir)
    assert output == "#{Path.basename(other)}: OK\n#{@name}: OK\n"
  end

  test "a library of a directory is used, and it says so", %{dir: dir, library: library} do
    assert {:precompiled, ^dir, @name, sha256} = precompiled = find(dir)
    assert sha256 == Library.sha256(library)
    {"a library", said} = take(precompiled)
    assert said =~ "using the precompiled library #{library}"
    assert said =~ "its checksum is right: #{sha256}"
  end

  test "a machine or a version without a library is told to compile", %{dir: dir} do
    assert {:none, why} = find(dir, nil, "riscv64-linux-gnu")
    assert why =~ "lists no tank_nif-0.1.0-riscv64-linux-gnu.so: compiling the library instead"
    assert {:none, _why} = Precompiled.find(dir, nil, "0.1.1", @target)
  end

  test "a library that was changed is refused", %{dir: dir, library: library} do
    precompiled = find(dir)
    File.write!(library, "a l1brary")
    error = assert_raise Mix.Error, fn -> take(precompiled) end
    assert error.message =~ "does not have the checksum"
    assert error.message =~ "actual    " <> Library.sha256(library)
    File.rm!(library)
    assert_raise Mix.Error, ~r/is listed in checksums.sha256, and is not there/, fn -> take(precompiled) end
  end

  test "settings that do not say enough are refused by name", %{dir: dir, list: list} do
    assert_raise Mix.Error, ~r/needs `precompiled_checksums:` as well/, fn -> find("https://files.example.com") end
    assert_raise Mix.Error, ~r{"relative/checksums.sha256".*full path}, fn -> find("relative") end
    assert_raise Mix.Error, ~r/"relative".*full path/, fn -> find("https://files.example.com", "relative") end
    assert_raise Mix.Error, ~r/missing.sha256, the list .* is not there/, fn -> find(dir, list <> "missing.sha256") end
  end

  test "a library is downloaded from a URL, and checked by the application's own list", %{dir: dir, list: list} do
    served = Path.join(dir, "served")
    File.mkdir_p!(served)
    File.cp!(Path.join(dir, @name), Path.join(served, @name))
    url = serve(served)
    {"a library", said} = take(find(url, list))
    assert said =~ "using the precompiled library #{url}/#{@name}"

    File.write!(Path.join(served, @name), "a l1brary")
    assert_raise Mix.Error, ~r/does not have the checksum/, fn -> take(find(url, list)) end
    File.rm!(Path.join(served, @name))
    assert_raise Mix.Error, ~r/was not downloaded: 404/, fn -> take(find(url, list)) end
    assert Path.wildcard(Path.join(System.tmp_dir!(), "#{System.pid()}_tank_nif-*")) == []
  end

  test "a server that is not there is named", %{list: list} do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)

    assert_raise Mix.Error, ~r/was not downloaded: .*econnrefused.*127\.0\.0\.1:#{port}/s, fn ->
      take(find("http://127.0.0.1:#{port}", list))
    end
  end
end
