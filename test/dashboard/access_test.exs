defmodule Tank.Store.Dashboard.AccessTest do
  # Who may see a dashboard, what its options are, and what it logs.
  use Tank.Store.DashboardCase, async: false

  import ExUnit.CaptureLog

  alias Tank.Store.{Cluster, Dashboard, Options}

  @moduletag :tmp_dir

  setup do
    level = Logger.level()
    Logger.configure(level: :info)
    on_exit(fn -> Logger.configure(level: level) end)
  end

  describe "options" do
    test "unknown ones and values that make no sense raise" do
      assert_raise ArgumentError, ~r/unknown option :prot, did you mean :port\?/, fn ->
        Dashboard.start_link(store_id: :app, prot: 1)
      end

      for opts <- [[port: 65_536], [port: "4040"], [token: "short"], [token: 1], [store_id: "app"]] do
        assert_raise ArgumentError, fn -> Dashboard.start_link([store_id: :app] ++ opts) end
      end
    end

    test "child specifications have ids of their own" do
      ids = for store <- [:a, :b], do: Dashboard.child_spec(store_id: store).id
      assert ids == [{Dashboard, :a}, {Dashboard, :b}]
      assert Dashboard.child_spec([]).id == {Dashboard, Cluster.get_default_store_id()}
      assert Options.known!([], []) == :ok
    end

    test "a port that is taken is an error, and a stop gives the port back" do
      Process.flag(:trap_exit, true)
      store = unique_id()
      port = start_dashboard(store)

      log =
        capture_log(fn ->
          assert Dashboard.start_link(store_id: unique_id(), port: port) == {:error, {:listen, :eaddrinuse}}
        end)

      assert log == ""
      :ok = stop_supervised({Dashboard, store})
      assert {:ok, pid} = Dashboard.start_link(store_id: store, port: port)
      Supervisor.stop(pid)
      assert {:ok, socket} = :gen_tcp.listen(port, reuseaddr: true)
      :gen_tcp.close(socket)
    end

    test "it listens on this machine only" do
      port = start_dashboard(unique_id())
      {:ok, interfaces} = :inet.getifaddrs()

      for {_name, options} <- interfaces, {:addr, {_, _, _, _} = address} <- options, elem(address, 0) != 127 do
        assert {:error, _refused} = :gen_tcp.connect(address, port, [], 1_000)
      end

      # All of 127/8 is this machine: also there, only its own address is listened on.
      assert {:error, :econnrefused} = :gen_tcp.connect({127, 0, 0, 2}, port, [], 1_000)
    end
  end

  describe "the token" do
    test "gets a browser in by a link, and then by a cookie" do
      store = unique_id()
      port = start_dashboard(store)
      %{path: path, query: query} = URI.parse(Dashboard.url(store))

      answer = get(port, "#{path}?#{query}&path=%2F", [])
      assert answer.status == 303
      assert answer.headers["location"] == "/?path=%2F"
      [cookie | flags] = String.split(answer.headers["set-cookie"], "; ")
      assert "HttpOnly" in flags and "SameSite=Lax" in flags and "Path=/" in flags
      assert get(port, "/", [{"cookie", "other=1; #{cookie}"}]).status == 200
    end

    test "takes nobody to another site" do
      port = start_dashboard(unique_id())
      token = URI.encode_query(token: "a token for tests only")

      for path <- ["//evil.example/", "/%5Cevil.example", "/tree/..//evil.example"] do
        assert %{status: 303, headers: %{"location" => "/"}} = get(port, "#{path}?#{token}", [])
      end
    end

    test "is asked for without one: nothing is shown" do
      store = unique_id()
      port = start_dashboard(store)

      for path <- [
            "/",
            "/live",
            "/activity",
            "/activity/samples",
            "/tree",
            "/changes",
            "/changes/live",
            "/leases",
            "/nowhere"
          ] do
        answer = get(port, path, [])
        assert {path, answer.status} == {path, 401}
        assert answer.body =~ "Tank.Store.Dashboard.url(#{inspect(store)})"
        refute answer.body =~ "<nav"
      end
    end

    test "wrong ones are refused, logged once, and limited; the right one passes all the same" do
      store = unique_id()
      port = start_dashboard(store)

      log =
        capture_log(fn ->
          statuses = for n <- 1..30, do: get(port, "/?token=wrong#{n}", []).status
          assert Enum.take(statuses, 20) == List.duplicate(401, 20)
          assert Enum.uniq(Enum.drop(statuses, 20)) == [429]
          assert get(port, "/", [cookie(port, "another token")]).status == 429
          assert get(port, "/").status == 200
        end)

      assert length(String.split(log, "somebody showed the dashboard a wrong token")) == 2
      refute log =~ "wrong1"
    end

    test "is in no inspection, no report and no log" do
      secret = "this is a secret token"
      store = unique_id()

      log =
        capture_log(fn ->
          port = start_dashboard(store, token: secret)
          assert Dashboard.url(store) =~ URI.encode_query(token: secret)
          get(port, "/?" <> URI.encode_query(token: secret), [])
          get(port, "/", [cookie(port, secret)])
          [{pid, context}] = Registry.lookup(Tank.Store.Names, {:dashboard, store})
          refute inspect(context) =~ secret
          refute inspect(Dashboard.child_spec(store_id: store, token: secret)) =~ secret
          refute inspect(:sys.get_status(pid), limit: :infinity, printable_limit: :infinity) =~ secret
          kill(pid)

          eventually("the dashboard to be started again", fn ->
            Registry.lookup(Tank.Store.Names, {:dashboard, store}) not in [[], [{pid, context}]]
          end)
        end)

      assert log =~ "store #{inspect(store)}: dashboard at http://127.0.0.1:"
      refute log =~ secret
      refute log =~ Base.url_encode64(secret, padding: false)
    end

    test "is a random one unless given" do
      store = unique_id()
      {:ok, first} = Dashboard.start_link(store_id: store, port: 0)
      %{query: query, port: port} = URI.parse(Dashboard.url(store))
      "token=" <> token = query
      assert byte_size(token) == 43
      assert get(port, "/?#{query}", []).status == 303
      Supervisor.stop(first)
      {:ok, second} = Dashboard.start_link(store_id: store, port: 0)
      refute URI.parse(Dashboard.url(store)).query == query
      Supervisor.stop(second)
    end
  end
end
