defmodule Tank.Store.LostTest do
  # A directory that is removed, moved, or replaced under a running store, and one that is missing when it is started.
  # Mounts: test/faults/mount_test.exs. Three members: test/cluster/lost_test.exs.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Cluster, Error, Tree, Watch}

  @moduletag :tmp_dir
  @moduletag :capture_log

  # A directory is looked at every second.
  @noticed_ms_max 5_000

  setup %{tmp_dir: dir} do
    %{dir: Path.join(dir, "store"), away: Path.join(dir, "away")}
  end

  describe "a running store whose directory" do
    for {name, lose, what} <- [
          {"is removed", quote(do: fn dir, _away -> remove_dir(dir) end), :missing},
          {"is moved", quote(do: fn dir, away -> File.rename!(dir, away) end), :missing},
          {"is replaced by an empty one",
           quote do
             fn dir, away ->
               File.rename!(dir, away)
               File.mkdir!(dir)
             end
           end, :empty},
          {"loses its files",
           quote(do: fn dir, _away -> for(f <- File.ls!(dir), do: remove_dir(Path.join(dir, f))) end), :empty}
        ] do
      test "#{name} goes on from memory, refuses writes and says so", %{dir: dir, away: away} do
        tank = start_tank(dir)
        :ok = Tank.Store.put_pod(pod("kept"))
        instance = instance(:tank)

        unquote(lose).(dir, away)
        await_lost(:tank, unquote(what))
        assert_reads_from_memory()
        # Some tries to open it again.
        for _try <- 1..20 do
          assert_reads_from_memory()
          Process.sleep(100)
        end

        assert Process.whereis(Tank.Store) == tank and instance(:tank) == instance
        assert not File.exists?(dir) or File.ls!(dir) == []

        assert {:ok, %{failure: {:lost, unquote(what)}, alarms: alarms}} = Cluster.status(:tank)
        assert %{message: message, what: unquote(what), data_dir: ^dir} = alarms[:directory_lost]
        assert message =~ dir

        if File.exists?(away) do
          _gone = File.rmdir(dir)
          File.rename!(away, dir)
          eventually("it to heal", fn -> Tank.Store.put_pod(pod("after")) == :ok end)
          assert listed_names() == ["after", "kept"]
          assert {:ok, %{failure: nil, alarms: []}} = Cluster.status(:tank)
          assert Process.whereis(Tank.Store) == tank
        end
      end
    end

    test "is a symbolic link that is turned to another store's", %{tmp_dir: root, dir: dir, away: away} do
      link = Path.join(root, "link")
      start_tank(away)
      :ok = Tank.Store.put_pod(pod("theirs"))
      stop_tank()
      before = files(away)
      File.mkdir!(dir)
      File.ln_s!(dir, link)
      start_tank(link)
      :ok = Tank.Store.put_pod(pod("kept"))

      turn(link, away)
      await_lost(:tank, :other_member)
      assert_reads_from_memory()
      turn(link, dir)
      eventually("it to heal", fn -> Tank.Store.put_pod(pod("after")) == :ok end)
      assert listed_names() == ["after", "kept"]

      turn(link, away)
      await_lost(:tank, :other_member)
      stop_tank()
      assert files(away) == before
      assert refused(link) == {:lost, :other_member}
      assert files(away) == before
    end

    test "is lost is opened by nobody else: not by its supervisor, and not by that of Tank.Store", context do
      %{dir: dir, away: away} = context
      start_tank(dir)
      :ok = Tank.Store.put_pod(pod("kept"))
      File.rename!(dir, away)

      # Before it is noticed, too.
      old = server(:tank)
      kill(old)

      eventually("the server to be started again", fn ->
        server(:tank) not in [nil, old] and Tank.Store.put_pod(pod("x")) == {:error, {:lost, :missing}}
      end)

      assert_raise Error, ~r/the directory of the store is lost/, fn -> Tank.Store.list_pods() end
      assert_raise Error, ~r/the directory of the store is lost/, fn -> Tank.Store.get_pod("kept") end
      assert Cluster.status(:tank) == {:error, {:lost, :missing}}
      refute File.exists?(dir)

      stop_tank()
      assert refused(dir) == {:lost, :missing}
      refute File.exists?(dir)

      # Put back, it starts.
      File.rename!(away, dir)
      start_tank(dir)
      assert listed_names() == ["kept"]
    end

    test "is lost when Tank.Store is killed is not made by its supervisor", %{dir: dir, away: away} do
      Process.flag(:trap_exit, true)
      {:ok, supervisor} = Supervisor.start_link([{Tank.Store, data_dir: dir}], strategy: :one_for_one)
      :ok = Tank.Store.put_pod(pod("kept"))
      File.rename!(dir, away)
      Process.exit(Process.whereis(Tank.Store), :kill)
      assert_receive {:EXIT, ^supervisor, :shutdown}, 30_000
      refute File.exists?(dir)
      assert refused(dir) == {:lost, :missing}
      assert instance(:tank) == nil and server(:tank) == nil
      File.rename!(away, dir)
      start_tank(dir)
      assert listed_names() == ["kept"]
    end
  end

  describe "an operator" do
    test "stops a lost store, and starts a new one", %{dir: dir} do
      id = start_store(dir)
      Tree.put!(id, [:a], 1)
      remove_dir(dir)
      await_lost(id, :missing)
      assert Tree.get(id, [:a]) == {:ok, 1}
      assert Tree.put(id, [:b], 1) == {:error, {:lost, :missing}}
      assert Cluster.stop(id) == :ok
      {:ok, ^id} = Cluster.start(dir, id)
      assert {:ok, %{revision: 0, alarms: [], failure: nil}} = Cluster.status(id)
    end

    test "restores a backup in the place of a lost store", %{tmp_dir: root, dir: dir} do
      id = start_store(dir)
      Tree.put!(id, [:a], 1)
      {:ok, _about} = Backup.create(id, Path.join(root, "backup"))
      remove_dir(dir)
      await_lost(id, :missing)
      # The engine lets go of the place a moment after it has failed.
      restore = fn -> Backup.restore(Path.join(root, "backup"), dir, store_id: id) end

      eventually("the backup to be restored", fn ->
        with {:error, {:locked, _dir}} = why <- restore.(), do: {:not_yet, why}
      end)

      eventually("the restored store to be open", fn -> match?({:ok, %{failure: nil}}, Cluster.status(id)) end)
      assert Tree.get(id, [:a]) == {:ok, 1}
      assert {:ok, _revision} = Tree.put(id, [:b], 1)
    end
  end

  # Nobody is there to know more: guides/operations.md.
  test "an old copy of the only member opens as what it was, and clients that know more are told", context do
    %{dir: dir, away: away} = context
    store = start_store(dir)
    for n <- 1..10, do: Tree.put!(store, [:a, "#{n}"], n)
    {:ok, history} = Tree.history(store)
    :ok = Cluster.stop(store)
    File.cp_r!(dir, away)
    {:ok, ^store} = Cluster.start(dir, store, 60_000)
    for n <- 11..20, do: Tree.put!(store, [:a, "#{n}"], n)
    :ok = Cluster.stop(store)
    remove_dir(dir)
    File.rename!(away, dir)

    {:ok, ^store} = Cluster.start(dir, store, 60_000)
    assert {:ok, %{revision: 10, alarms: []}} = Cluster.status(store)
    assert Tree.get(store, [:a, "20"]) == {:error, :not_found}

    for position <- [20, {history, 20}] do
      assert {:error, {:compacted, _min}} = Tree.list_since(store, [], position)
      assert {:error, {:compacted, _min}} = Watch.start(store, [], from: {:after, position})
    end
  end

  test "a directory that is removed after the store was closed in order is its user's doing", %{dir: dir} do
    for _round <- 1..2 do
      start_tank(dir)
      assert listed_names() == []
      :ok = Tank.Store.put_pod(pod("gone"))
      stop_tank()
      remove_dir(dir)
    end

    id = start_store(dir)
    :ok = Cluster.reset(id)
    {:ok, ^id} = Cluster.start(dir, id)
  end

  describe "create: false" do
    test "refuses a missing and an empty directory, leaves them as they are, and opens a store", %{dir: dir} do
      assert refused(dir, create: false) == {:no_store, dir}
      refute File.exists?(dir)
      File.mkdir!(dir)
      assert refused(dir, create: false) == {:no_store, dir}
      assert File.ls!(dir) == []

      assert {:error, %Error{reason: {:no_store, ^dir}} = error} =
               Cluster.start(dir, %{cluster_name: :c, create: false})

      assert Exception.message(error) =~ "create: true"
      assert instance(:c) == nil

      start_tank(dir)
      :ok = Tank.Store.put_pod(pod("kept"))
      stop_tank()
      start_tank(dir, create: false)
      assert listed_names() == ["kept"]
    end

    test "is also the application environment's, which an option overrides", %{dir: dir} do
      Application.put_env(:tank_store, :create, false)
      on_exit(fn -> Application.delete_env(:tank_store, :create) end)
      assert refused(dir) == {:no_store, dir}
      start_tank(dir, create: true)
    end

    test "is true or false", %{dir: dir} do
      assert_raise ArgumentError, "option :create must be true or false, got: 1", fn ->
        Tank.Store.start_link(data_dir: dir, create: 1)
      end
    end
  end

  defp await_lost(id, what) do
    eventually(
      "the store to say that its directory is lost",
      fn ->
        status = Cluster.status(id)
        match?({:ok, %{failure: {:lost, ^what}, alarms: [directory_lost: _]}}, status) || {:not_yet, status}
      end,
      @noticed_ms_max
    )
  end

  defp assert_reads_from_memory do
    assert "kept" in listed_names()
    assert Tank.Store.get_pod("kept") == {:ok, pod("kept")}
    assert {:error, {:lost, _what}} = Tank.Store.put_pod(pod("refused"))
  end

  defp refused(dir, options \\ []) do
    Process.flag(:trap_exit, true)
    assert {:error, {:store_init_failed, %Error{reason: reason}}} = Tank.Store.start_link([data_dir: dir] ++ options)
    assert instance(:tank) == nil
    reason
  end

  defp turn(link, to) do
    File.ln_s!(to, link <> ".new")
    File.rename!(link <> ".new", link)
  end

  defp files(dir) do
    for file <- Path.wildcard(Path.join(dir, "**"), match_dot: true), File.regular?(file), into: %{} do
      {file, :crypto.hash(:md5, File.read!(file))}
    end
  end
end
