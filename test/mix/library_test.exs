defmodule Mix.TankNative.LibraryTest do
  use ExUnit.Case, async: true

  alias Mix.TankNative.Library

  @moduletag :tmp_dir

  setup %{tmp_dir: tmp_dir} do
    root = Path.join(tmp_dir, "checkout")
    built = Path.join(tmp_dir, "libtank_nif.so")
    File.mkdir_p!(Path.join(root, "native/tank_nif/src"))
    File.write!(Path.join(root, "native/tank_nif/src/lib.rs"), "fn one() {}")
    File.write!(built, "first build")
    {:ok, root: root, built: built, installed: Path.join(root, "priv/native/name.so")}
  end

  test "an installed library is current until a source, the features or a file is gone", %{root: root, built: built} do
    source = {:cargo, []}
    stamp = Library.stamp(root, source)
    refute Library.current?(root, "name", stamp)
    assert Library.install(root, "name", built, stamp) == :ok
    assert Library.current?(root, "name", stamp)
    refute Library.current?(root, "name", Library.stamp(root, {:cargo, ["tank_nif/faults"]}))
    refute Library.current?(root, "other name", stamp)

    lib = Path.join(root, "native/tank_nif/src/lib.rs")
    File.write!(lib, "fn two() {}")
    refute Library.current?(root, "name", Library.stamp(root, source))
    File.write!(lib, "fn one() {}")
    assert Library.current?(root, "name", Library.stamp(root, source)), "the content counts, not the time"

    for file <- ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "native/new/src/lib.rs"] do
      path = Path.join(root, file)
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, "new")
      refute Library.current?(root, "name", Library.stamp(root, source)), file
      File.rm!(path)
    end

    File.rm!(Path.join(root, "priv/native/name.so"))
    refute Library.current?(root, "name", stamp)
  end

  test "a new library takes the old one's place and never writes into it", context do
    %{root: root, built: built, installed: installed} = context
    Library.install(root, "name", built, "stamp 1")
    mapped = File.open!(installed)

    File.write!(built, "second build")
    assert Library.install(root, "name", built, "stamp 2") == :ok
    assert File.read!(installed) == "second build"
    assert IO.read(mapped, :line) == "first build"
    assert Library.current?(root, "name", "stamp 2")
    assert Enum.sort(File.ls!(Path.dirname(installed))) == ["name.so", "name.stamp"]
  end

  test "the same library stays where it is", %{root: root, built: built, installed: installed} do
    Library.install(root, "name", built, "stamp 1")
    %{inode: inode} = File.stat!(installed)
    assert Library.install(root, "name", built, "stamp 2") == :noop
    assert %{inode: ^inode} = File.stat!(installed)
    assert Library.current?(root, "name", "stamp 2")
  end

  test "a directory that cannot be written is a readable error", %{root: root, built: built} do
    File.write!(Path.join(root, "priv"), "a file where the directory should be")
    assert_raise Mix.Error, ~r/built but not installed.*priv/s, fn -> Library.install(root, "name", built, "stamp") end
  end

  describe "a prebuilt library" do
    @sha256 Base.encode16(:crypto.hash(:sha256, "first build"), case: :lower)

    test "is taken if no checksum is known, or if it has the one it should have", %{root: root, built: built} do
      assert Library.verify!(root, built, nil) == built
      assert Library.verify!(root, built, @sha256) == built
      assert Library.verify!(root, built, String.upcase(@sha256)) == built
    end

    test "is refused if it has another checksum than the one given", %{root: root, built: built} do
      error = assert_raise Mix.Error, fn -> Library.verify!(root, built, String.duplicate("0", 64)) end
      assert error.message =~ built
      assert error.message =~ "expected  " <> String.duplicate("0", 64)
      assert error.message =~ "actual    " <> @sha256
    end

    test "is checked against the committed list, if that names it", %{root: root, built: built} do
      list = Path.join(root, "native/checksums.sha256")
      File.write!(list, "#{String.duplicate("1", 64)}  other.so\n#{@sha256}  libtank_nif.so\n")
      assert Library.verify!(root, built, nil) == built

      File.write!(list, "#{String.duplicate("1", 64)}  libtank_nif.so\n")
      assert_raise Mix.Error, ~r/does not have the checksum/, fn -> Library.verify!(root, built, nil) end
      assert Library.verify!(root, built, @sha256) == built, "the checksum given outright wins"
    end

    test "that is not there is an error of its own", %{root: root} do
      assert_raise Mix.Error, ~r/TANK_STORE_NIF_PATH names .*absent.so, which is not a file/, fn ->
        Library.verify!(root, "absent.so", nil)
      end
    end

    test "is copied again when it was replaced", %{root: root, built: built} do
      source = {:prebuilt, built, nil}
      Library.install(root, "name", built, Library.stamp(root, source))
      assert Library.current?(root, "name", Library.stamp(root, source))
      File.write!(built, "another, longer build")
      refute Library.current?(root, "name", Library.stamp(root, source))
    end
  end

  test "removing leaves nothing behind, and needs nothing to be there", %{root: root, built: built} do
    Library.install(root, "name", built, "stamp")
    assert Library.remove(root) == :ok
    refute File.exists?(Path.join(root, "priv/native"))
    assert Library.remove(root) == :ok
  end
end
