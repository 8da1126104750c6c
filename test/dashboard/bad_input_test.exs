defmodule Tank.Store.Dashboard.BadInputTest do
  # What a dashboard does with what nobody should send, and with too much of everything. The store does not notice.
  use Tank.Store.DashboardCase, async: false

  import ExUnit.CaptureLog

  alias Tank.Store.{Cluster, Tree}
  alias Tank.Store.Dashboard.{Bounded, TermText}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    store = start_store(dir)
    %{store: store, port: start_dashboard(store)}
  end

  @markup "<script>alert('&\"1\"')</script>"

  test "markup in paths, values, leases and patterns is text", %{port: port, store: store} do
    get(port, "/changes")
    path = ["<b>", @markup]
    Tree.put!(store, path, %{@markup => "<img src=x onerror=alert(1)>"})
    {:ok, _lease} = Tank.Store.Lease.acquire(store, path, holder: @markup, ttl: 60_000)
    {:ok, _watch} = Tank.Store.Watch.start(store, path, from: :now)
    text = URI.encode_query(path: Tank.Store.Path.to_string(path))

    pages = [
      "/tree?#{text}",
      "/tree?path=%2F%3Cb%3E",
      "/changes?#{text}",
      "/changes/live?path=%2F",
      "/leases",
      "/watches",
      "/tree?path=#{URI.encode_www_form(@markup)}"
    ]

    for page <- pages do
      body = get(port, page).body
      assert {page, body} == {page, String.replace(body, "<script>alert", "")}
      refute body =~ "<img"
      refute body =~ "<b>"
      assert body =~ "&lt;script&gt;alert"
    end
  end

  test "a path of a kilobyte, of any bytes, is browsed", %{port: port, store: store} do
    path = for byte <- [?/, 255, 0, ?%], do: String.duplicate(<<byte>>, 255)
    Tree.put!(store, path, "deep")

    for length <- 1..4 do
      text = path |> Enum.take(length) |> Tank.Store.Path.to_string()
      answer = get(port, "/tree?" <> URI.encode_query(path: text))
      assert answer.status == 200
      assert byte_size(answer.body) < 200_000
    end

    text = Tank.Store.Path.to_string(path)
    assert get(port, "/tree?" <> URI.encode_query(path: text)).body =~ "&quot;deep&quot;"
    assert get(port, "/changes?" <> URI.encode_query(path: text)).status == 200
    assert get(port, "/tree?path=" <> String.duplicate("a", 10_000)).status == 414
  end

  test "a value of 16 MiB is cut, where it is shown and where it is listed", %{port: port, store: store} do
    get(port, "/changes")
    large = 16 * 1024 * 1024 - 1024
    Tree.put!(store, [:large, "binary"], String.duplicate("x", large))
    Tree.put!(store, [:large, "list"], Enum.to_list(1..3_000_000))
    Tree.put!(store, [:large, "map"], Map.new(1..100_000, &{&1, "value #{&1}"}))
    # Deep and wide: each level has eighty of the next.
    nested = Enum.reduce(1..3, 0, fn _level, inner -> List.duplicate(inner, 80) end)
    Tree.put!(store, [:large, "nested"], nested)

    for {page, text} <- [
          {"/tree?path=%2F%3Alarge", "16.0 MiB: a binary that begins with &quot;xxxxx"},
          {"/tree?path=%2F%3Alarge%2Fbinary", "16.0 MiB: a binary that begins with"},
          {"/tree?path=%2F%3Alarge%2Flist", "a list of 3000000 elements"},
          {"/tree?path=%2F%3Alarge%2Fmap", "a map of 100000 keys"},
          {"/tree?path=%2F%3Alarge%2Fnested", "[0, 0, 0"},
          {"/changes", "xxxxx"}
        ] do
      {took, answer} = :timer.tc(fn -> get(port, page) end)
      assert {page, answer.status} == {page, 200}
      assert answer.body =~ text
      assert byte_size(answer.body) < 100_000
      assert {page, took < 5_000_000} == {page, true}
    end
  end

  test "large values that are not in memory are not read for a list", %{tmp_dir: dir} do
    store = start_store(Path.join(dir, "bounded"), memory_bytes_max: 1024 * 1024)
    port = start_dashboard(store)
    for n <- 1..8, do: Tree.put!(store, [:large, "#{n}"], String.duplicate("x", 512 * 1024))

    eventually("values to leave the memory", fn ->
      body = get(port, "/tree?path=%2F%3Alarge").body
      body =~ "512.0 KiB, not in memory" || {:not_yet, body}
    end)

    # A page that is about one of them is.
    for n <- 1..8, do: assert(get(port, "/tree?path=%2F%3Alarge%2F#{n}").body =~ "&quot;xxxxx")
  end

  test "what a value hides of itself stays hidden, and one that cannot be printed harms nobody" do
    assert TermText.of_term(%{a: URI.parse("http://a")}) =~ "%URI{"
    assert TermText.line(<<131, 250>>, 2) == "(a value that cannot be printed)"
    assert TermText.line(nil, 2_000_000) == "1.9 MiB, not in memory"
    text = TermText.page(<<131, 109, 5000::32>> <> "abc" <> <<0xC3>>, 5006)
    assert text =~ ~s(begins with "abc")
    assert String.valid?(text)
    refute TermText.of_term("a\u202Eb\e[31m") =~ "\e"
  end

  test "200 browsers at once are all answered, and the store goes on", %{port: port, store: store} do
    pages = [
      "/",
      "/live",
      "/activity/samples",
      "/tree",
      "/changes",
      "/changes/live?path=%2F&after=0",
      "/leases/live",
      "/watches/live"
    ]

    me = self()

    writer = spawn_link(fn -> write(store, me, 0) end)

    statuses =
      1..200
      |> Task.async_stream(fn n -> for page <- [Enum.at(pages, rem(n, 8)), "/live"], do: get(port, page).status end,
        max_concurrency: 200,
        timeout: 60_000
      )
      |> Enum.flat_map(fn {:ok, statuses} -> statuses end)

    assert Enum.frequencies(statuses) == %{200 => 400}
    send(writer, :stop)
    assert_receive {:written, count, slowest_us}, 10_000
    assert count > 0
    assert slowest_us < 5_000_000

    eventually(
      "all connections to be closed",
      fn -> connections(port) == 0 || {:not_yet, connections(port)} end,
      15_000
    )
  end

  # Writes until it is told to stop, and tells how many and the longest that one took.
  defp write(store, pid, count, slowest \\ 0) do
    {took, _revision} = :timer.tc(fn -> Tree.put!(store, [:writer], count) end)

    receive do
      :stop -> send(pid, {:written, count + 1, max(slowest, took)})
    after
      0 -> write(store, pid, count + 1, max(slowest, took))
    end
  end

  test "clients that never read, that never ask and that go away are gone soon", %{port: port, store: store} do
    for n <- 1..100, do: Tree.put!(store, ["#{n}"], String.duplicate("y", 500))
    {name, value} = cookie(port)
    ask = "GET /tree HTTP/1.1\r\nhost: a\r\n#{name}: #{value}\r\n\r\n"

    never_reads = for _ <- 1..20, do: send_raw(port, ask, recbuf: 1024)

    never_asks =
      for text <- ["", "GET / HTTP/1.1\r\nhost:", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n"],
          do: send_raw(port, text)

    go_away = for _ <- 1..20, do: send_raw(port, ask)
    Enum.each(go_away, &:gen_tcp.close/1)

    assert get(port, "/live").status == 200

    eventually(
      "all connections to be closed",
      fn -> connections(port) == 0 || {:not_yet, connections(port)} end,
      30_000
    )

    for socket <- never_reads ++ never_asks, do: :gen_tcp.close(socket)
    assert {:ok, _status} = Cluster.status(store)
  end

  test "requests that are none are refused, and nothing is logged", %{port: port} do
    log =
      capture_log(fn ->
        for {text, status} <- [
              {"nonsense\r\n\r\n", ~r/^$|^HTTP\/1.1 4/},
              {"GET / HTTP/1.1\r\n\r\n", ~r/^HTTP\/1.1 400/},
              {"GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n", ~r/^HTTP\/1.1 (400|401)/},
              {"GET /?%zz=%zz HTTP/1.1\r\nhost: a\r\n\r\n", ~r/^HTTP\/1.1 400/},
              {"GET /?a=" <> <<255>> <> " HTTP/1.1\r\nhost: a\r\n\r\n", ~r/^HTTP\/1.1 4/},
              {"GET / HTTP/1.1\r\nhost: a\r\nx: " <> String.duplicate("x", 50_000) <> "\r\n\r\n",
               ~r/^HTTP\/1.1 (413|431)/},
              {"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n", ~r/^HTTP\/1.1 413/},
              {"GET / HTTP/1.1\r\nhost: a\r\ncookie: " <> <<0, 255, 13>> <> ";;;==;\r\n\r\n", ~r/^HTTP\/1.1 4/}
            ] do
          answer = port |> send_raw(text) |> read_all()

          assert {text |> String.slice(0, 60) |> inspect(), answer} ==
                   {text |> String.slice(0, 60) |> inspect(), answer}

          assert answer =~ status
        end

        assert get(port, "/live").status == 200
      end)

    assert log == ""
  end

  test "a store that stops or crashes while it is asked is said to, and the dashboard goes on", %{
    port: port,
    store: store,
    tmp_dir: dir
  } do
    get(port, "/changes")

    tasks =
      for page <- ["/changes/live?path=%2F&after=0", "/tree", "/live", "/leases"],
          do: Task.async(fn -> get(port, page).status end)

    kill_server(store)
    for task <- tasks, do: assert(Task.await(task, 30_000) in [200, 503])

    :ok = Cluster.stop(store)
    eventually("the overview to say so", fn -> get(port, "/live").body =~ "does not run on this node" end)
    assert get(port, "/tree").status == 503
    assert get(port, "/tree").body =~ "The store cannot be read"
    assert get(port, "/leases").body =~ "not running"

    for page <- ["/", "/activity", "/changes", "/watches", "/activity/samples"],
        do: assert(get(port, page).status == 200)

    {:ok, ^store} = Cluster.start(dir, store)
    eventually("the store to be shown again", fn -> get(port, "/live").body =~ "Healthy" end)
    assert get(port, "/tree").status == 200
  end

  test "recorders are few: the paths that can be watched at a time are bounded", %{port: port} do
    statuses = for n <- 1..40, do: get(port, "/changes?path=%2F#{n}").status
    assert Enum.take(statuses, 32) == List.duplicate(200, 32)
    assert Enum.uniq(Enum.drop(statuses, 32)) == [503]
    assert get(port, "/changes?path=%2F1").status == 200
  end

  test "what takes too long or too much is given up" do
    assert Bounded.run(fn -> :done end, 1_000, 1) == {:ok, :done}
    assert Bounded.run(fn -> Process.sleep(:infinity) end, 10, 1) == {:error, :timeout}
    assert Bounded.run(fn -> Enum.to_list(1..10_000_000) end, 60_000, 1) == {:error, :memory}

    log =
      capture_log(fn ->
        assert {:error, {:crash, why}} = Bounded.run(fn -> raise ArgumentError, "a secret" end, 1_000, 1)
        assert why =~ "ArgumentError in"
        assert {:error, {:crash, "exit" <> _at}} = Bounded.run(fn -> exit("a secret") end, 1_000, 1)
      end)

    assert log == ""
    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
  end

  test "a store that does not answer is shown as it was", %{port: port, store: store} do
    eventually("the overview to be healthy", fn -> get(port, "/live").body =~ "Healthy" end)
    [{pid, table}] = Registry.lookup(Tank.Store.Names, {:dashboard_samples, store})
    [{:now, at_ms, status}] = :ets.lookup(table, :now)
    :sys.suspend(pid)
    :sys.replace_state(pid, fn state -> tap(state, fn _ -> :ets.insert(table, {:now, at_ms - 90_000, status}) end) end)
    assert get(port, "/live").body =~ "The store does not answer: this is how it was 1.5 min ago."
    :sys.resume(pid)
  end

  test "a page that crashes or takes too long is given up, and logged once", %{port: port, store: store} do
    # The process that samples cannot go on: its table is gone, and so is what the overview reads.
    log =
      capture_log(fn ->
        [{pid, table}] = Registry.lookup(Tank.Store.Names, {:dashboard_samples, store})
        :sys.replace_state(pid, fn state -> tap(state, fn _ -> :ets.insert(table, {:now, 0, :nonsense}) end) end)
        :sys.suspend(pid)
        assert [503, 503, 503] = for(_ <- 1..3, do: get(port, "/live").status)
        :sys.resume(pid)
      end)

    assert length(String.split(log, "the dashboard gave up /live: ")) == 2
    eventually("the overview to be back", fn -> get(port, "/live").status == 200 end)
  end
end
