defmodule Tank.Store.Faults.MountTest do
  # Mounts that go away, come back, and cover the directory of a running store.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Error}
  alias Tank.Store.Faults.{Command, Image}

  @moduletag :tmp_dir
  @moduletag :faults
  @moduletag :capture_log

  for {where, what} <- [{"the mount point", :empty}, {"a directory in it", :missing}] do
    test "a mount goes away under a store in #{where}: it goes on from memory, and heals when it is back", context do
      image = Image.create(context.tmp_dir, 160)
      dir = if unquote(what) == :empty, do: image.mount, else: Path.join(image.mount, "store")
      tank = start_tank(dir)
      for n <- 1..100, do: :ok = Tank.Store.put_pod(pod("kept#{n}"))

      for round <- 1..3 do
        Command.run!("umount", ["-l", image.mount])
        await_lost(unquote(what))
        for _try <- 1..30, do: assert_from_memory(100)
        assert File.ls!(image.mount) == []

        Command.run!("mount", [image.loop, image.mount])
        eventually("it to heal", fn -> Tank.Store.put_pod(pod("after#{round}")) == :ok end)
        assert length(listed_names()) == 100 + round
        assert {:ok, %{failure: nil, alarms: []}} = Cluster.status(:tank)
      end

      assert Process.whereis(Tank.Store) == tank
      stop_tank()
    end
  end

  test "a store is started before its mount, which then covers it with the store that it should have opened", context do
    %{tmp_dir: root} = context
    {dir, real} = {Path.join(root, "store"), Path.join(root, "real")}
    start_tank(real)
    for n <- 1..50, do: :ok = Tank.Store.put_pod(pod("real#{n}"))
    stop_tank()
    before = files(real)

    start_tank(dir)
    for n <- 1..100, do: :ok = Tank.Store.put_pod(pod("kept#{n}"))
    mount_over(real, dir)
    await_lost(:other_member)
    for _try <- 1..30, do: assert_from_memory(100)
    stop_tank()
    assert files(real) == before

    # As on such a machine it is started.
    assert {:error, {:store_init_failed, %Error{reason: {:lost, :other_member}}}} = start(dir)
    Command.run!("umount", [dir])
    start_tank(dir)
    assert length(listed_names()) == 100

    # Closed before it is noticed.
    mount_over(real, dir)
    stop_tank()
    assert files(real) == before
    Command.run!("umount", [dir])
    start_tank(dir)
    assert length(listed_names()) == 100
    stop_tank()
    start_tank(real)
    assert length(listed_names()) == 50
  end

  test "a copy of the directory on another file system is not taken for it", %{tmp_dir: root} do
    image = Image.create(root, 160)
    dir = Path.join(root, "store")
    start_tank(dir)
    :ok = Tank.Store.put_pod(pod("kept1"))
    copy = Path.join(image.mount, "copy")
    Command.run!("cp", ["-a", dir, copy])
    :ok = Tank.Store.put_pod(pod("kept2"))
    mount_over(copy, dir)
    await_lost(:other_file_system)
    for _try <- 1..10, do: assert_from_memory(2)
    Command.run!("umount", [dir])
    eventually("it to heal", fn -> Tank.Store.put_pod(pod("after")) == :ok end)
    assert listed_names() == ["after", "kept1", "kept2"]
  end

  test "create: false refuses a mount point without its mount", %{tmp_dir: root} do
    image = Image.create(root, 160)
    start_tank(image.mount)
    :ok = Tank.Store.put_pod(pod("kept"))
    stop_tank()
    Command.run!("umount", [image.mount])
    mount = image.mount
    assert {:error, {:store_init_failed, %Error{reason: {:no_store, ^mount}}}} = start(mount, create: false)
    assert File.ls!(mount) == []
    Command.run!("mount", [image.loop, mount])
    start_tank(mount, create: false)
    assert listed_names() == ["kept"]
    stop_tank()
  end

  defp await_lost(what) do
    eventually("the store to say that its directory is lost", fn ->
      match?({:ok, %{failure: {:lost, ^what}, alarms: [directory_lost: _]}}, Cluster.status(:tank)) ||
        {:not_yet, Cluster.status(:tank)}
    end)
  end

  defp assert_from_memory(count) do
    assert length(listed_names()) >= count
    assert Tank.Store.get_pod("kept1") == {:ok, pod("kept1")}
    assert {:error, {:lost, _what}} = Tank.Store.put_pod(pod("refused"))
    Process.sleep(100)
  end

  defp mount_over(dir, over) do
    Command.run!("mount", ["--bind", dir, over])
    on_exit(fn -> Command.run("umount", ["-l", over]) end)
  end

  defp start(dir, options \\ []) do
    Process.flag(:trap_exit, true)
    Tank.Store.start_link([data_dir: dir] ++ options)
  end

  # RocksDB's own log is written at each opening, and LOCK may be made.
  defp files(dir) do
    for file <- Path.wildcard(Path.join(dir, "**"), match_dot: true), File.regular?(file), into: %{} do
      {Path.relative_to(file, dir), :crypto.hash(:md5, File.read!(file))}
    end
  end
end
