defmodule Tank.Store.BackupTest do
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Call, Cluster, Lease, Native, Running}

  import Bitwise, only: [<<<: 2]

  @moduletag :tmp_dir
  @fixtures Path.expand("../../fixtures", __DIR__)

  setup %{tmp_dir: dir} do
    start_tank(Path.join(dir, "tank"))
    %{dir: dir}
  end

  doctest Tank.Store.Backup
  doctest Mix.Tasks.Tank.Files

  defp put(store, path, value) do
    {:ok, key} = Tank.Store.Path.to_key(path)
    {:ok, revision} = Call.write(store, :put, key, value, nil, 5_000)
    revision
  end

  # Path and encoded value of every entry.
  defp entries(store) do
    {:ok, native} = Running.fetch(store)
    {:ok, pinned, _revision, count} = Native.pin(native)
    entries = Stream.unfold({:more, nil}, &page(pinned, &1)) |> Enum.concat() |> Map.new(&{elem(&1, 0), elem(&1, 1)})
    assert map_size(entries) == count
    entries
  end

  defp page(_pinned, :done), do: nil

  defp page(pinned, {:more, from}) do
    {page, next} = Native.page(pinned, from, 1_000)
    {page, if(next, do: {:more, next}, else: :done)}
  end

  defp digest(store) do
    {:ok, status} = Cluster.status(store)
    Map.take(status, [:digest, :entries, :revision])
  end

  # Values that are easy to get wrong in a text.
  defp odd_values do
    [
      nil,
      :undefined,
      true,
      :"odd atom",
      :"Elixir",
      :"Ünï ☃",
      0,
      -1,
      123_456_789_012_345_678_901_234_567_890,
      1.0e-300,
      0.1,
      -0.0,
      "",
      "text",
      "grüße ☃ \n \" \\ ' % .",
      <<255, 254, 0>>,
      <<5::3>>,
      ~c"chars",
      [233, 9731],
      [1, 2 | 3],
      [],
      {},
      {:put, [], :etf},
      %{},
      %{1 => %{"a" => [:b, {1.5}]}, nil => 1},
      %Tank.Pod{name: "web"},
      self(),
      make_ref(),
      &String.upcase/1,
      fn x -> x end,
      String.duplicate("long ", 50_000)
    ]
  end

  test "a backup under load is restored to exactly the state of its revision", %{dir: dir} do
    store = start_store(Path.join(dir, "from"))
    for n <- 1..200, do: put(store, [:fixed, "#{n}"], n)
    writer = Task.async(fn -> write_on(store, 1, []) end)
    await_revision(store, 300)
    file = Path.join(dir, "backup")
    assert {:ok, about} = Backup.create(store, file)
    await_revision(store, about.revision + 50)
    send(writer.pid, :stop)
    written = Task.await(writer)

    assert {:ok, ^about} = Backup.restore(file, Path.join(dir, "to"), store_id: :restored)
    assert start_store(Path.join(dir, "to"), store_id: :restored) == :restored
    assert Map.delete(digest(:restored), :revision) == Map.take(about, [:digest, :entries])
    began = digest(:restored).revision
    {:ok, old} = Cluster.status(store)
    {:ok, new} = Cluster.status(:restored)
    assert new.cluster_id != old.cluster_id and new.member_id != old.member_id

    expected = for {r, key, n} <- written, r <= about.revision, into: %{}, do: {key, n}
    held = entries(:restored)
    for {key, n} <- expected, do: assert(held[[:load, "k#{key}"]] == :erlang.term_to_binary(n))
    assert map_size(held) == 200 + map_size(expected)
    assert put(:restored, [:more], 1) == began + 1 and began > about.revision
  end

  test "exports into one file at once, and values of megabytes: the last one is there whole", %{dir: dir} do
    store = start_store(Path.join(dir, "from"))
    large = :rand.bytes(3_000_000)
    small = :rand.bytes(5_000)

    for {name, value} <- [large: large, small: small, text: String.duplicate("long ", 5_000)],
        do: put(store, [name], value)

    file = Path.join(dir, "export")

    1..4
    |> Enum.map(fn _number -> Task.async(fn -> Backup.export(store, file) end) end)
    |> Task.await_many(60_000)
    |> Enum.each(&assert {:ok, %{entries: 3}} = &1)

    assert Path.wildcard(file <> "*") == [file]
    text = File.read!(file)
    assert text =~ "long long" and not (text =~ "<<#{:binary.first(small)},")
    other = start_store(Path.join(dir, "to"))
    assert {:ok, %{entries: 3}} = Backup.import(other, file)
    assert entries(other) == entries(store)
  end

  # Gives what it wrote, in the order in which it did.
  defp write_on(store, n, written) do
    receive do
      :stop -> Enum.reverse(written)
    after
      0 -> write_on(store, n + 1, [{put(store, [:load, "k#{rem(n, 50)}"], n), rem(n, 50), n} | written])
    end
  end

  defp await_revision(store, revision) do
    eventually(
      "revision #{revision}",
      fn -> digest(store).revision >= revision or {:not_yet, digest(store)} end,
      30_000
    )
  end

  test "pods are restored with Tank.Store", %{dir: dir} do
    :ok = Tank.Store.put_pod(pod("web"))
    {:ok, lease} = Lease.acquire(:tank, "l", holder: 1, ttl: 600_000)
    file = Path.join(dir, "backup")
    assert {:ok, %{store_id: "tank"}} = Backup.create(:tank, file)
    :ok = Tank.Store.put_pod(pod("later"))
    stop_tank()
    assert {:ok, _about} = Backup.restore(file, Path.join(dir, "restored"))
    start_tank(Path.join(dir, "restored"))
    assert listed_names() == ["web"]
    assert {:ok, %{epoch: epoch}} = Lease.read(:tank, "l")
    assert epoch == lease.epoch
    assert Lease.renew(lease) == {:error, :lease_ended}
  end

  test "a damaged backup, a directory in use and files that cannot be are refused", %{dir: dir} do
    put(:tank, [:a], String.duplicate("x", 200_000))
    file = Path.join(dir, "backup")
    {:ok, _about} = Backup.create(:tank, file)
    bytes = File.read!(file)
    to = Path.join(dir, "to")
    :rand.seed(:exsss, 7)

    for _ <- 1..60 do
      at = :rand.uniform(byte_size(bytes)) - 1
      {head, <<byte, rest::binary>>} = :erlang.split_binary(bytes, at)
      File.write!(file <> ".bad", <<head::binary, Bitwise.bxor(byte, 16), rest::binary>>)
      assert {:error, reason} = Backup.restore(file <> ".bad", to)
      assert reason == {:corrupt, :backup} or match?({:newer_format, _found}, reason), "byte #{at}: #{inspect(reason)}"
      refute File.exists?(to)
    end

    assert Backup.restore(file, Path.join(dir, "tank")) == {:error, {:locked, Path.join(dir, "tank")}}
    File.mkdir_p!(to)
    File.write!(Path.join(to, "letter"), "dear")
    assert Backup.restore(file, to) == {:error, {:not_empty, to}}
    assert Backup.restore(Path.join(dir, "none"), to) == {:error, {:file, Path.join(dir, "none")}}
    assert {:error, {:file, _path}} = Backup.create(:tank, Path.join(dir, "none/backup"))
    assert {:error, {:file, _path}} = Backup.export(:tank, Path.join(dir, "none/export"))
    assert {:error, {:file, _path}} = Backup.import(:tank, Path.join(dir, "none"))
    assert {:error, {:file, _path}} = Backup.import_khepri(:tank, dir)
    assert Backup.create(:no_such_store, file) == {:error, :noproc}
    assert listed_names() == []
  end

  test "what is exported is imported, byte for byte", %{dir: dir} do
    for {value, n} <- Enum.with_index(odd_values()) do
      put(:tank, [:"odd/atom", "ü\n\0", <<255>>, "n#{n}"], value)
    end

    put(:tank, [], "the root")
    # As another release of the BEAM, or another language, might have written it.
    {:ok, native} = Running.fetch(:tank)
    {:ok, key} = Tank.Store.Path.to_key([:foreign])
    strange = <<131, 99, :io_lib.format("~.20e", [1.5]) |> IO.iodata_to_binary()::binary, 0::56>>
    Call.request(&Native.put_all(native, &1, [{key, strange, 0}], nil, &2), 5_000)
    {:ok, lease} = Lease.acquire(:tank, "l", holder: 1, ttl: 600_000)
    {:ok, leased} = Tank.Store.Path.to_key([:leased])
    Call.request(&Native.put_all(native, &1, [{leased, strange, lease.epoch}], nil, &2), 5_000)
    expected = Map.delete(entries(:tank), [:leased])

    file = Path.join(dir, "export")
    test = self()
    assert {:ok, result} = Backup.export(:tank, file, progress: &send(test, {:exported, &1, &2}))
    assert %{entries: entries, skipped: 1} = result
    assert entries == map_size(expected)
    count = entries + 1
    assert_received {:exported, ^count, ^count}
    lines = file |> File.read!() |> String.split("\n", trim: true)
    assert length(lines) == entries + 2, "one line for each entry, and two around them"
    assert String.valid?(File.read!(file))
    assert Enum.any?(lines, &(&1 =~ ~s(<<"text">>}.))), "a text is readable"

    other = start_store(Path.join(dir, "other"))
    put(other, [:mine], 1)
    put(other, [], "is replaced")
    assert Backup.import(other, file, progress: {self(), :imported}) == {:ok, %{entries: entries}}
    assert_received {:imported, ^entries, ^entries}
    assert entries(other) == Map.put(expected, [:mine], :erlang.term_to_binary(1))
  end

  test "many entries go in several writes, and are all there", %{dir: dir} do
    other = start_store(Path.join(dir, "other"))
    for n <- 1..700, do: put(:tank, [:n, "#{n}"], String.duplicate("#{n}", 500))
    file = Path.join(dir, "export")
    assert {:ok, %{entries: 700}} = Backup.export(:tank, file)
    assert {:ok, %{entries: 700}} = Backup.import(other, file)
    assert entries(other) == entries(:tank)
    assert digest(other).revision in 3..20
  end

  test "an export that was cut off or is none is refused before anything is written", %{dir: dir} do
    for n <- 1..20, do: put(:tank, [:n, "#{n}"], n)
    file = Path.join(dir, "export")
    {:ok, _result} = Backup.export(:tank, file)
    text = File.read!(file)
    other = start_store(Path.join(dir, "other"))
    lines = String.split(text, "\n", trim: true)

    bad = [
      {"", 1},
      {"something else\n", 1},
      {lines |> Enum.drop(-1) |> Enum.join("\n"), 22},
      {binary_part(text, 0, div(byte_size(text), 2)), :some},
      {String.replace(text, "{[n,<<\"5\">>],5}.", "{[n,7],5}."), :some},
      {String.replace(text, "{[n,<<\"5\">>],5}.", "{[n,<<\"5\">>],fun() -> 1 end}."), :some},
      {String.replace(text, "{[n,<<\"5\">>],5}.", "{[n,<<\"5\">>],etf,<<\"!\">>}."), :some},
      {String.replace(text, "{[n,<<\"5\">>],5}.", <<"{[n],", 255, "}.">>), :some},
      {text <> "{[n],1}.\n", 23}
    ]

    for {text, line} <- bad do
      File.write!(file, text)
      assert {:error, {:malformed, found}} = Backup.import(other, file)
      assert line == :some or found == line, "line #{found} of:\n#{text}"
    end

    assert entries(other) == %{}
    # Lines of one's own, empty ones and comments are fine.
    File.write!(file, Enum.join([hd(lines), "% mine", "", "{[x, <<\"y\">>], #{~s("z")}}.", "%% end"], "\n"))
    assert Backup.import(other, file) == {:ok, %{entries: 1}}
    assert entries(other) == %{[:x, "y"] => :erlang.term_to_binary(~c"z")}
  end

  describe "an import writes nothing unless all of it can be kept:" do
    setup %{dir: dir} do
      put(:tank, [:tank, :pods, "web"], pod("web"))
      file = Path.join(dir, "export")
      {:ok, _result} = Backup.export(:tank, file)
      %{export: file, text: File.read!(file)}
    end

    defp import_with(line, %{export: file, text: text}) do
      before = entries(:tank)
      File.write!(file, String.replace(text, "%% end", "{[tank,pods,<<\"x1\">>],1}.\n#{line}\n%% end"))
      result = Backup.import(:tank, file)
      assert entries(:tank) == before
      result
    end

    test "Base64 of large values is that of the standard library" do
      for size <- Enum.concat(0..66, [1_000, 99_999, 100_000, 100_001]) do
        bytes = :rand.bytes(size)
        text = Base.encode64(bytes)
        assert Native.encode_base64(bytes) == text
        assert Native.decode_base64(text) == {:ok, bytes}
      end

      for _ <- 1..2_000 do
        text = for _ <- 1..Enum.random(0..12)//1, into: "", do: <<Enum.random(~c"AZaz09+/=-_ \n" ++ [255])>>
        assert {text, Native.decode_base64(text)} == {text, Base.decode64(text)}
      end
    end

    test "a value that does not decode, told with its line and path", context do
      for payload <- [<<131, 77, 1>>, "", <<131, 97, 1, 0>>, <<97, 1>>, <<131, 100, 5::16, "a">>] do
        line = "{[tank,pods,<<\"bad\">>],etf,<<\"#{Base.encode64(payload)}\">>}."
        assert {:error, {:invalid_value, number, [:tank, :pods, "bad"]}} = import_with(line, context)
        assert number == length(String.split(context.text, "\n"))
      end

      assert Tank.Store.list_pods() == [pod("web")]
    end

    test "a path and a value over the limits", context do
      assert import_with("{[tank,<<\"#{String.duplicate("n", 256)}\">>],1}.", context) ==
               {:error, {:too_large, :path_component, 255}}

      large = Base.encode64(:erlang.term_to_binary(String.duplicate("v", 16 * 1024 * 1024)))
      assert {:error, {:too_large, :value, _limit}} = import_with("{[v],etf,<<\"#{large}\">>}.", context)
    end
  end

  describe "whoever asks for a backup" do
    test "finds nothing in the mailbox, also when exits are trapped", %{dir: dir} do
      Process.flag(:trap_exit, true)
      file = Path.join(dir, "backup")
      assert {:ok, _about} = Backup.create(:tank, file)
      assert {:error, {:file, _path}} = Backup.create(:tank, "/nowhere/backup")
      assert {:ok, _about} = Backup.restore(file, Path.join(dir, "restored"))
      assert {:error, {:not_empty, _path}} = Backup.restore(file, Path.join(dir, "restored"))
      refute_receive _message, 50
    end

    test "gets what the progress function raises, and the work ends", %{dir: dir} do
      {file, restored} = {Path.join(dir, "backup"), Path.join(dir, "restored")}
      {:ok, _about} = Backup.create(:tank, file)
      raises = fn _done, _total -> raise "no" end
      assert_raise RuntimeError, "no", fn -> Backup.restore(file, restored, progress: raises) end
    end

    test "and dies has it cancelled", %{dir: dir} do
      file = Path.join(dir, "backup")
      for n <- 1..16, do: put(:tank, [:large, "#{n}"], :crypto.strong_rand_bytes(8 <<< 20))
      # A fast disk may have it done before this looks.
      {caller, monitor} = eventually("a backup that is under way", fn -> start_backup(file) end, 60_000)
      Process.exit(caller, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^caller, :killed}
      eventually("the file to go", fn -> not File.exists?(file <> ".tmp") end)
      refute File.exists?(file)
    end

    defp start_backup(file) do
      _done_before = File.rm(file)
      test = self()
      {caller, monitor} = spawn_monitor(fn -> Backup.create(:tank, file, progress: {test, :progress}) end)
      grows? = fn -> match?({:ok, %{size: size}} when size > 0, File.stat(file <> ".tmp")) end
      eventually("the backup to begin or end", fn -> grows?.() or not Process.alive?(caller) end)
      if Process.alive?(caller), do: {caller, monitor}, else: {:not_yet, :done}
    end
  end

  @khepri %{
    [:app, :version] => "1.2.3",
    [:app, :flag] => true,
    [:app, :nothing] => nil,
    [:app, :undef] => :undefined,
    [:app, :tuple] => {:a, "b", 3, 4.5, [1, 2 | 3]},
    [:app, :map] => %{"k" => [1], :atom => %{1 => {}}, 2.5 => ~c"chars"},
    [:app, :bits] => <<5::3>>,
    [:app, :big] => 123_456_789_012_345_678_901_234_567_890,
    [:users, "zoë", "naïve ☃"] => "grüße ✓",
    [:users, "a/b c%", "new\nline"] => "text with \"quotes\" and \n newline",
    [:users, <<255, 254>>] => <<0, 1, 2, 255>>,
    [:"odd atom", :Ünï] => :"odd value",
    [:stock, "wood"] => 10,
    [:stock, "wood", "oak"] => 3,
    [:stock, "wood", "pine", "deep"] => []
  }

  for file <- ["khepri_text.export", "khepri_stream.backup"] do
    test "what Khepri exported is imported completely: #{file}", %{dir: dir} do
      store = start_store(Path.join(dir, "khepri"))
      result = Backup.import_khepri(store, Path.join(@fixtures, unquote(file)))
      assert result == {:ok, %{entries: map_size(@khepri), without_value: 8, functions: 1}}
      held = Map.new(entries(store), fn {path, payload} -> {path, :erlang.binary_to_term(payload)} end)
      assert held == @khepri
    end

    test "a cut-off #{file} is refused before anything is written", %{dir: dir} do
      store = start_store(Path.join(dir, "khepri"))
      bytes = File.read!(Path.join(@fixtures, unquote(file)))
      file = Path.join(dir, "cut")

      for cut <- [30, 500, 1_000, byte_size(bytes) - 3] do
        File.write!(file, binary_part(bytes, 0, cut))
        assert {:error, {:malformed, _where}} = Backup.import_khepri(store, file)
      end

      assert entries(store) == %{}
    end
  end
end
