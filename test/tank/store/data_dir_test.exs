defmodule Tank.Store.DataDirTest do
  # Directories that a store cannot be opened in, and options that make no sense: each is refused within seconds, with a
  # reason that names what is wrong and a text that a person understands. The VM lives on, and nothing is left behind.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Cluster, Error}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    dir = Path.expand(dir)
    {:ok, dir: Path.join(dir, "store")}
  end

  describe "a directory that cannot be used:" do
    test "a file", %{dir: dir} do
      File.write!(dir, "")
      assert refused(dir) == {:not_a_directory, dir}
    end

    test "something below a file", %{dir: dir} do
      File.write!(dir, "")
      below = Path.join(dir, "below")
      assert refused(below) == {:not_a_directory, below}
    end

    test "a device" do
      assert refused("/dev/null") == {:not_a_directory, "/dev/null"}
    end

    test "a directory that is on a read-only file system", %{dir: dir} do
      make_store(dir)
      read_only(dir)
      assert refused(dir) == {:permission_denied, dir}
      new = Path.join(dir, "new")
      assert refused(new) == {:permission_denied, new}
    end

    test "a directory that another user owns" do
      place = public_place()
      dir = Path.join(place, "owned")
      File.mkdir!(dir)
      File.chmod!(dir, 0o500)
      assert as_user_without_rights(place, dir, &refused/1) == {:permission_denied, Path.join(dir, "new")}
    end

    test "a name that is too long, or holds a zero byte", %{dir: dir} do
      long = Path.join(dir, String.duplicate("n", 300))
      assert refused(long) == {:data_dir, long}
      zero = dir <> "\0"
      assert refused(zero) == {:data_dir, zero}
    end

    test "files that no store wrote", %{dir: dir} do
      File.mkdir_p!(dir)
      File.write!(Path.join(dir, "letter.txt"), "dear")
      assert refused(dir) == {:not_a_store, dir}
      assert File.ls!(dir) -- ["LOCK"] == ["letter.txt"]

      # Also when it has a directory that is called as one of ours.
      File.rm_rf!(dir)
      File.mkdir_p!(Path.join(dir, "log"))
      File.write!(Path.join(dir, "log/app.tmp"), "theirs")
      assert refused(dir) == {:not_a_store, dir}
      assert File.read!(Path.join(dir, "log/app.tmp")) == "theirs"
    end

    test "what is no path" do
      for dir <- ["", 5, <<"/tmp/", 255>>, {:dir}, %{}] do
        assert refused(dir) == {:invalid_option, :data_dir}
      end

      assert refused(:not_running) == :system_not_started
    end
  end

  describe "a directory that is in use:" do
    test "by a store of this VM", %{dir: dir} do
      id = start_store(dir)
      assert refused(dir) == {:locked, dir}
      assert Exception.message(error(dir)) =~ "in use by another store of this VM"
      link = dir <> "_link"
      File.ln_s!(dir, link)
      assert refused(link) == {:locked, dir}
      assert Cluster.is_store_running(id)
    end

    test "by a store of another OS process, until that ends", %{dir: dir} do
      make_store(dir)
      port = other_vm(dir)
      assert refused(dir) == {:locked, dir}
      assert Exception.message(error(dir)) =~ ~r"in use by the operating system process \d+"
      kill_vm(port)
      start_tank(dir)
      assert Tank.Store.get_pod("theirs") == {:ok, pod("theirs")}
    end
  end

  describe "a directory of something else:" do
    test "of another store", %{dir: dir} do
      {:ok, :theirs} = Cluster.start(dir, :theirs)
      :ok = Cluster.stop(:theirs)
      assert refused(dir) == {:wrong_store, "theirs"}
      assert Exception.message(error(dir)) == ~s(the directory holds the store "theirs", not "tank")
    end

    test "of a newer format", %{dir: dir} do
      make_store(dir)
      rewrite_format(dir, &String.replace(&1, "format 2\n", "format 3\n"))
      assert refused(dir) == {:newer_format, 3}
      assert Exception.message(error(dir)) =~ "format 3, and this release reads 2"
      # It is not touched: the release that wrote it can go on.
      rewrite_format(dir, &String.replace(&1, "format 3\n", "format 2\n"))
      start_tank(dir)
      assert Tank.Store.get_pod("kept") == {:ok, pod("kept")}
    end

    test "of an older format", %{dir: dir} do
      make_store(dir)
      rewrite_format(dir, &String.replace(&1, "format 2\n", "format 1\n"))
      assert refused(dir) == {:older_format, 1}
      assert Exception.message(error(dir)) =~ "format 1, and this release reads 2 only"
      rewrite_format(dir, &String.replace(&1, "format 1\n", "format 2\n"))
      start_tank(dir)
      assert Tank.Store.get_pod("kept") == {:ok, pod("kept")}
    end
  end

  describe "damage:" do
    for {what, damage, part} <- [
          {"FORMAT is empty", quote(do: &File.write!(Path.join(&1, "FORMAT"), "")), :format},
          {"a bit of FORMAT is flipped", quote(do: &flip_bit(Path.join(&1, "FORMAT"), 20)), :format},
          {"FORMAT is cut off", quote(do: &cut(Path.join(&1, "FORMAT"), 30)), :format},
          {"FORMAT is gone", quote(do: &File.rm!(Path.join(&1, "FORMAT"))), :format},
          {"FORMAT is another member's", quote(do: &rename_member/1), :marker},
          {"SYNCED is empty", quote(do: &File.write!(Path.join(&1, "SYNCED"), "")), :marker},
          {"SYNCED is overwritten", quote(do: &File.write!(Path.join(&1, "SYNCED"), :binary.copy("x", 4096))), :marker},
          {"SYNCED is gone", quote(do: &File.rm!(Path.join(&1, "SYNCED"))), :marker}
        ] do
      test what, %{dir: dir} do
        make_store(dir)
        unquote(damage).(dir)
        files = files(dir)
        assert refused(dir) == {:corrupt, unquote(part)}
        assert Exception.message(error(dir)) =~ "damaged #{unquote(part)}: "
        # Nothing is mended behind one's back, and nothing is made worse.
        assert files(dir) == files
      end
    end

    for {what, damage} <- [
          {"the database is gone", quote(do: &File.rm_rf!(Path.join(&1, "db")))},
          {"the database's CURRENT is gone", quote(do: &File.rm!(Path.join(&1, "db/CURRENT")))}
        ] do
      test what, %{dir: dir} do
        make_store(dir)
        unquote(damage).(dir)
        assert refused(dir) == {:corrupt, :database}
      end
    end

    for {which, at} <- [{"first", 0}, {"second", 2048}] do
      test "the #{which} of SYNCED's two notes is spoilt: the other one is enough", %{dir: dir} do
        make_store(dir)
        flip_bit(Path.join(dir, "SYNCED"), unquote(at) + 8)
        start_tank(dir)
        assert Tank.Store.get_pod("kept") == {:ok, pod("kept")}
      end
    end
  end

  describe "a start that fails" do
    test "leaves nothing behind: the next one, with the cause gone, succeeds", %{dir: dir} do
      File.write!(dir, "")
      for _ <- 1..3, do: assert(refused(dir) == {:not_a_directory, dir})
      File.rm!(dir)
      start_tank(dir)
      assert Tank.Store.put_pod(pod("web")) == :ok
    end

    test "stops a supervisor with the reason", %{dir: dir} do
      File.write!(dir, "")
      Process.flag(:trap_exit, true)

      assert {:error, {:shutdown, {:failed_to_start_child, Tank.Store, {:store_init_failed, %Error{} = error}}}} =
               Supervisor.start_link([{Tank.Store, data_dir: dir}], strategy: :one_for_one)

      assert error.reason == {:not_a_directory, dir}
      assert is_map(error.details) and String.valid?(Exception.message(error))
    end
  end

  describe "options" do
    test "that are unknown raise, and name the nearest one" do
      for {option, nearest} <- [data_dri: :data_dir, store_ids: :store_id, value_byte_max: :value_bytes_max] do
        assert_raise ArgumentError, "unknown option #{inspect(option)}, did you mean #{inspect(nearest)}?", fn ->
          Tank.Store.start_link([{option, 1}])
        end
      end

      assert_raise ArgumentError, ~r/^unknown option :xyz; the options are :create, :in_flight_max, /, fn ->
        Tank.Store.start_link(xyz: :red)
      end

      assert_raise ArgumentError, "unknown option :snapshot_afer, did you mean :snapshot_interval_entries?", fn ->
        Cluster.start("never_made", %{cluster_name: :s, snapshot_afer: 1})
      end

      refute File.exists?("never_made")
    end

    test "with values that make no sense raise" do
      for option <- [
            :in_flight_max,
            :value_bytes_max,
            :heartbeat_interval_ms,
            :snapshot_interval_entries,
            :purge_batch,
            :segment_bytes
          ],
          value <- [0, -1, 1.0, "1", nil, :infinity, Integer.pow(2, 70), Integer.pow(2, 63)] do
        assert_raise ArgumentError, ~r/^option :#{option} must be an integer from 1 to \d+, got: /, fn ->
          Tank.Store.start_link([{option, value}])
        end
      end
    end

    test "that are no keyword list raise" do
      assert_raise ArgumentError, "options are a keyword list, got: :data_dir", fn ->
        Tank.Store.start_link([:data_dir])
      end

      assert_raise ArgumentError, fn -> Tank.Store.start_link([{"data_dir", "d"}]) end
    end

    test "that contradict each other are refused", %{dir: dir} do
      assert {:error, {:store_init_failed, %Error{reason: {:invalid_option, :timing}} = error}} =
               start(data_dir: dir, heartbeat_interval_ms: 500, election_timeout_ms: 100)

      assert Exception.message(error) =~
               "election_timeout_ms must be above heartbeat_interval_ms, which is 500, got: 100"

      assert {:error, {:store_init_failed, %Error{reason: {:invalid_option, :txn_bytes_max}} = error}} =
               start(data_dir: dir, value_bytes_max: 1_000, txn_bytes_max: 999)

      assert Exception.message(error) =~ "must be at least value_bytes_max"
    end

    test "at their ends are taken", %{dir: dir} do
      most = 0x3FFF_FFFF_FFFF_FFFF

      names = [
        :in_flight_max,
        :in_flight_bytes_max,
        :snapshot_interval_entries,
        :log_retention_entries,
        :purge_batch,
        :segment_bytes
      ]

      names = [:checkpoint_bytes | names]
      counts = for name <- names, do: {name, most}

      start_tank(
        dir,
        counts ++ [value_bytes_max: most, heartbeat_interval_ms: 3_599_999, election_timeout_ms: 3_600_000]
      )

      assert Tank.Store.put_pod(pod("web")) == :ok
      stop_tank()
      start_tank(dir, for({option, _} <- counts, do: {option, 1}) ++ [heartbeat_interval_ms: 1, election_timeout_ms: 2])
      assert Tank.Store.list_pods() == [pod("web")]
      assert Tank.Store.put_at([:a], 1) == :ok
    end
  end

  describe "a store id" do
    test "that is no atom, or none that names something, raises" do
      for id <- ["tank", 1, nil, true, false, [:a]] do
        assert_raise ArgumentError, "option :store_id must be an atom, got: #{inspect(id)}", fn ->
          Tank.Store.start_link(store_id: id)
        end
      end
    end

    test "that is odd names a store all the same", %{dir: dir} do
      for {id, i} <- Enum.with_index([:"日本🙂", :"a b", :"../x", :"Elixir.Tank.Store", :"a/b\\c", :a@b, :"'"]) do
        dir = Path.join(dir, "#{i}")
        start_tank(dir, store_id: id)
        :ok = Tank.Store.put_pod(pod("web"))
        stop_tank()
        start_tank(dir, store_id: id)
        assert Tank.Store.list_pods() == [pod("web")]
        assert Cluster.get_store_ids() == [id]
        stop_tank()
        assert refused(dir) == {:wrong_store, Atom.to_string(id)}
      end
    end

    test "that cannot be written down is refused", %{dir: dir} do
      for id <- [:"", :"a\nb", :"a\0", String.to_atom(String.duplicate("ü", 200))] do
        assert {:error, {:store_init_failed, error}} = start(data_dir: dir, store_id: id)
        assert error.reason == {:invalid_option, :store_id}
      end
    end
  end

  # Starts `Tank.Store` on `dir`, and gives the reason why that is refused.
  defp refused(dir) do
    case error(dir) do
      %Error{reason: reason} -> reason
      reason -> reason
    end
  end

  defp error(dir) do
    {micros, started} = :timer.tc(fn -> start(data_dir: dir) end)
    assert {:error, {:store_init_failed, reason}} = started
    assert micros < 10_000_000
    assert Process.whereis(Tank.Store) == nil
    assert instance(:tank) == nil
    reason
  end

  defp start(opts) do
    Process.flag(:trap_exit, true)
    Tank.Store.start_link(opts)
  end

  defp make_store(dir) do
    start_tank(dir)
    :ok = Tank.Store.put_pod(pod("kept"))
    stop_tank()
  end

  # What is in the files that matter; RocksDB keeps a LOG of its own.
  defp files(dir) do
    for name <- ["FORMAT", "SYNCED"], do: {name, File.read(Path.join(dir, name))}
  end

  defp flip_bit(file, at) do
    {before, <<byte, rest::binary>>} = :erlang.split_binary(File.read!(file), at)
    File.write!(file, <<before::binary, Bitwise.bxor(byte, 1), rest::binary>>)
  end

  defp cut(file, size), do: File.write!(file, binary_part(File.read!(file), 0, size))

  # SYNCED names the member that FORMAT names.
  defp rename_member(dir), do: rewrite_format(dir, &Regex.replace(~r/member \d+/, &1, "member 7"))

  # FORMAT's last line is the checksum of those before it.
  defp rewrite_format(dir, fun) do
    file = Path.join(dir, "FORMAT")
    [body, _crc] = String.split(File.read!(file), "crc32c ")
    body = fun.(body)

    File.write!(
      file,
      body <> "crc32c " <> String.pad_leading(Integer.to_string(crc32c(body), 16) |> String.downcase(), 8, "0") <> "\n"
    )
  end

  defp crc32c(bytes),
    do: Bitwise.bxor(for(<<byte <- bytes>>, reduce: 0xFFFFFFFF, do: (crc -> crc32c(crc, byte))), 0xFFFFFFFF)

  defp crc32c(crc, byte) do
    for _ <- 1..8, reduce: Bitwise.bxor(crc, byte) do
      crc -> Bitwise.bxor(Bitwise.bsr(crc, 1), Bitwise.band(crc, 1) * 0x82F63B78)
    end
  end

  # Mounts `dir` read-only on itself; without the right to, takes the rights on it away.
  defp read_only(dir) do
    with {_, 0} <- System.cmd("mount", ["--bind", dir, dir], stderr_to_stdout: true) do
      on_exit(fn -> System.cmd("umount", [dir]) end)
      {_, 0} = System.cmd("mount", ["-o", "remount,ro,bind", dir])
    else
      _no_right ->
        for file <- [dir | Path.wildcard(Path.join(dir, "**"))], do: File.chmod!(file, 0o500)
        on_exit(fn -> File.chmod!(dir, 0o700) end)
    end
  end

  # A directory that other users get to: the checkout may be in a home that is closed to them.
  defp public_place do
    place = Path.join(System.tmp_dir!(), "tank_store_#{System.pid()}_#{System.unique_integer([:positive])}")
    File.mkdir!(place)
    on_exit(fn -> File.rm_rf!(place) end)
    File.chmod!(place, 0o755)
    place
  end

  # Asks for the reason in this VM, or, when it runs as root, in one that does not, with the library in `place`.
  defp as_user_without_rights(place, dir, fun) do
    new = Path.join(dir, "new")

    case System.cmd("id", ["-u"]) do
      {"0\n", 0} ->
        script = """
        Process.flag(:trap_exit, true)
        {:error, {:store_init_failed, error}} = Tank.Store.start_link(data_dir: #{inspect(new)})
        IO.write(inspect(error.reason, printable_limit: :infinity))
        """

        library = Path.join(place, "tank_store")
        File.cp_r!(Application.app_dir(:tank_store), library, dereference_symlinks: true)
        user = ["--reuid=65534", "--regid=65534", "--clear-groups"]
        elixir = [System.find_executable("elixir") | vm_args(library, script)]
        {output, 0} = System.cmd("setpriv", user ++ elixir, cd: place, env: [{"HOME", place}])

        output |> Code.eval_string() |> elem(0)

      _ordinary_user ->
        fun.(new)
    end
  end

  # Another VM that opens the store in `dir`, writes a pod, and keeps the store open until it is killed.
  defp other_vm(dir) do
    script = """
    {:ok, _pid} = Tank.Store.start_link(data_dir: #{inspect(dir)})
    :ok = Tank.Store.put_pod(%Tank.Pod{name: "theirs"})
    IO.puts("open " <> System.pid())
    Process.sleep(:infinity)
    """

    elixir = System.find_executable("elixir")
    app = Application.app_dir(:tank_store)
    port = Port.open({:spawn_executable, elixir}, [:binary, :exit_status, {:line, 200}, args: vm_args(app, script)])
    assert_receive {^port, {:data, {:eol, "open " <> pid}}}, 60_000
    on_exit(fn -> System.cmd("kill", ["-9", pid], stderr_to_stdout: true) end)
    {port, pid}
  end

  defp kill_vm({port, pid}) do
    {_, 0} = System.cmd("kill", ["-9", pid])
    assert_receive {^port, {:exit_status, _status}}, 10_000
  end

  defp vm_args(app, script),
    do: ["-pa", Path.join(app, "ebin"), "-e", "{:ok, _} = Application.ensure_all_started(:tank_store)\n" <> script]
end
