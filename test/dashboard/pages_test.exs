defmodule Tank.Store.Dashboard.PagesTest do
  # What the pages of a dashboard show of a store.
  use Tank.Store.DashboardCase, async: true

  alias Tank.Store.{Lease, Tree, Watch}

  @moduletag :tmp_dir

  doctest Tank.Store.Dashboard.Format
  doctest Tank.Store.Dashboard.Histogram

  setup %{tmp_dir: dir} do
    store = start_store(dir)
    %{store: store, port: start_dashboard(store)}
  end

  test "all pages are there, with headers that keep them from elsewhere", %{port: port} do
    for path <- ["/", "/activity", "/tree", "/changes", "/leases", "/watches"] do
      answer = get(port, path)
      assert {path, answer.status} == {path, 200}
      assert answer.headers["cache-control"] == "no-store"
      assert answer.headers["x-frame-options"] == "DENY"
      assert answer.headers["x-content-type-options"] == "nosniff"
      assert answer.headers["referrer-policy"] == "no-referrer"
      assert answer.headers["content-security-policy"] =~ "default-src 'none'"
      refute Map.has_key?(answer.headers, "server")
      # For the keyboard and for screen readers.
      for part <- [~s(<html lang="en">), ~s(href="#main"), ~s(<main id="main"), ~s(aria-current="page"), "<h1>"],
          do: assert(answer.body =~ part)

      # All of it comes from here.
      refute answer.body =~ ~r/(src|href|action)="(https?:)?\/\//
      refute answer.body =~ ~r/<(script|style)[^>]*>[^<]/
      refute answer.body =~ ~r/ (style|on[a-z]+)="/
    end
  end

  test "the files of the pages come without a token", %{port: port} do
    for {name, type} <- [
          {"dashboard.css", "text/css"},
          {"dashboard.js", "text/javascript"},
          {"icon.svg", "image/svg+xml"}
        ] do
      answer = get(port, "/assets/#{name}", [])
      assert answer.status == 200
      assert answer.headers["content-type"] =~ type
      assert answer.body == File.read!("priv/dashboard/#{name}")
    end

    assert get(port, "/assets/..%2F..%2Fmix.exs", []).status == 404
    assert get(port, "/assets/").status == 404
  end

  test "it only shows: GET and HEAD", %{port: port, store: store} do
    {:ok, before} = Tank.Store.Cluster.status(store)

    for method <- [:post, :put, :patch, :delete] do
      answer = request(method, port, "/tree?path=%2F")
      assert {answer.status, answer.headers["allow"]} == {405, "GET, HEAD"}
    end

    head = request(:head, port, "/tree")
    assert {head.status, head.body} == {200, ""}
    assert head.headers["content-length"] == get(port, "/tree").headers["content-length"]
    {:ok, now} = Tank.Store.Cluster.status(store)
    assert now.revision == before.revision
  end

  test "what is no page is said", %{port: port} do
    assert get(port, "/nowhere").status == 404
    assert get(port, "/tree/live").status == 404
    assert get(port, "/tree?path=%FF").status == 400
    assert get(port, "/tree?path=%2F100%25").status == 400
    assert get(port, "/tree?path=%2F%3A%2A").status == 404
    assert get(port, "/changes?path=%2F%3A%2A").status == 400
    answer = get(port, "/tree?path=%2F%3Ano_atom_of_this_name")
    assert answer.status == 404
    assert answer.body =~ "There is no node at this path"
    assert get(port, "/changes?path=%2F%3Ano_atom_of_this_name").body =~ "is no atom on this node"
    refute atom?("no_atom_of_" <> "this_name")
  end

  defp atom?(name) do
    String.to_existing_atom(name)
    true
  rescue
    ArgumentError -> false
  end

  test "the overview shows members, figures and alarms", %{port: port, store: store} do
    eventually("the overview to be healthy", fn ->
      get(port, "/live").body =~ "Healthy" || {:not_yet, get(port, "/live").body}
    end)

    body = get(port, "/").body

    for text <- ["Members", Atom.to_string(node()), "leader", "Entries", "Memory", "Disk", "this member leads"],
        do: assert(body =~ text)

    Tank.Store.Alarms.set(store, :other_cluster, "another <cluster> was met")
    eventually("the alarm to be shown", fn -> get(port, "/live").body =~ "another &lt;cluster&gt; was met" end)
    assert get(port, "/live").body =~ "1 alarm"
    Tank.Store.Alarms.clear(store, :other_cluster)
  end

  test "samples are taken each second", %{port: port, store: store} do
    for n <- 1..50, do: Tree.put!(store, [:load], n)
    columns = Tank.Store.Dashboard.Sampler.columns()
    [writes, p99] = for name <- [:writes, :write_p99_us], do: Enum.find_index(columns, &(&1 == name))

    row =
      eventually("a sample with writes", fn ->
        Tree.put!(store, [:load], 0)
        rows = rows(get(port, "/activity/samples").body)
        Enum.find(rows, &(is_number(Enum.at(&1, writes)) and Enum.at(&1, writes) > 0)) || {:not_yet, rows}
      end)

    assert length(row) == length(columns)
    assert Enum.at(row, p99) > 0
    assert rows(get(port, "/activity/samples?after=#{System.system_time(:millisecond) + 5_000}").body) == []
  end

  # It is JSON of numbers and null.
  defp rows(~s({"rows":) <> json) do
    json = json |> String.trim_trailing("}") |> String.replace("null", "nil")
    {rows, []} = Code.eval_string(json)
    rows
  end

  describe "the tree" do
    test "shows a node, its value and its children", %{port: port, store: store} do
      Tree.put!(store, [:users], %{count: 2})
      Tree.put!(store, [:users, "ann"], %{role: :admin})
      Tree.put!(store, [:users, "bob", :address], "Main Street")

      body = get(port, "/tree?path=%2F%3Ausers").body
      assert body =~ "%{count: 2}"
      assert body =~ "Children (2)"
      assert body =~ "%{role: :admin}"
      assert body =~ ~s(href="/tree?path=%2F%3Ausers%2Fbob")
      refute body =~ "Main Street"
      assert get(port, "/tree?path=%2F%3Ausers%2Fbob").body =~ "This node has no value"
      assert get(port, "/tree?path=%2F%3Ausers%2Fbob%2F%3Aaddress").body =~ "&quot;Main Street&quot;"
      assert get(port, "/tree").body =~ "Children (1)"
    end

    test "has its children in pages, forward and back", %{port: port, store: store} do
      names = for n <- 1..250, do: n |> Integer.to_string() |> String.pad_leading(3, "0")
      for name <- names, do: Tree.put!(store, [name], name)

      {forward, last} = walk(port, "/tree", "next", [])
      assert Enum.map(forward, &length/1) == [100, 100, 50]
      assert Enum.concat(forward) == names
      {backward, _first} = walk(port, last, "prev", [])
      assert backward |> Enum.reverse() |> Enum.concat() == names
    end

    test "does not show what is not a page of its children", %{port: port} do
      for from <- ["%2F", "%2Fa%2Fb", "%FF", "%2F100%25"] do
        assert get(port, "/tree?after=#{from}").status in [400, 404]
      end
    end
  end

  # The names on each page, and the address of the last one.
  defp walk(port, address, rel, pages) do
    body = get(port, address).body
    names = for [_all, name] <- Regex.scan(~r/<a class="path"[^>]*>&quot;([^<]*)&quot;</, body), do: name

    case Regex.run(~r/<a href="([^"]*)" rel="#{rel}"/, body) do
      [_all, next] -> walk(port, String.replace(next, "&amp;", "&"), rel, [names | pages])
      nil -> {Enum.reverse([names | pages]), address}
    end
  end

  describe "changes" do
    test "come as they happen, and once", %{port: port, store: store} do
      assert get(port, "/changes?path=%2F%3Ausers").body =~ "Waits for the next change"
      task = Task.async(fn -> :timer.tc(fn -> get(port, "/changes/live?path=%2F%3Ausers&after=0").body end) end)
      eventually("the request to wait", fn -> connections(port) == 1 end)
      Tree.put!(store, [:users, "ann"], %{role: :admin})
      Tree.put!(store, [:others], 1)
      {_took, body} = Task.await(task)
      assert body =~ ~s(data-after="1")
      assert body =~ "%{role: :admin}"
      assert body =~ ~s(<span class="type created">created</span>)

      Tree.delete!(store, [:users])
      body = get(port, "/changes/live?path=%2F%3Ausers&after=1").body
      assert body =~ ~s(data-after="2")
      assert body =~ "deleted"
      refute body =~ "created"
      refute get(port, "/changes?path=%2F%3Ausers").body =~ "others"
    end

    test "go on when the store does", %{port: port, store: store, tmp_dir: dir} do
      get(port, "/changes")
      :ok = Tank.Store.Cluster.stop(store)
      eventually("the store to be missed", fn -> get(port, "/changes").body =~ "The store does not run" end)
      {:ok, ^store} = Tank.Store.Cluster.start(dir, store)

      eventually("a change to be shown", fn ->
        Tree.put!(store, [:back], System.unique_integer())
        get(port, "/changes").body =~ "[:back]"
      end)
    end

    test "that are too many are counted", %{port: port, store: store} do
      get(port, "/changes")
      for n <- 1..500, do: Tree.put!(store, [:busy, "#{n}"], n)

      body =
        eventually("changes that are not shown", fn ->
          body = get(port, "/changes").body
          if body =~ "not shown", do: body, else: {:not_yet, body}
        end)

      assert length(String.split(body, ~s(class="change"))) <= 101
    end
  end

  test "leases are listed, a page at a time", %{port: port, store: store} do
    assert get(port, "/leases").body =~ "Nobody holds a lease"
    for n <- 1..101, do: {:ok, _} = Lease.acquire(store, [:jobs, "#{1000 + n}"], holder: {:worker, n}, ttl: 600_000)
    body = get(port, "/leases").body
    assert body =~ "{:worker, 1}"
    assert body =~ "[:jobs, &quot;1001&quot;]"
    assert body =~ "10 min"
    refute body =~ "{:worker, 101}"
    [_all, next] = Regex.run(~r/<a href="([^"]*)" rel="next"/, body)
    assert get(port, next).body =~ "{:worker, 101}"
  end

  test "watches are listed, with their processes", %{port: port, store: store} do
    assert get(port, "/watches").body =~ "No process of this node watches the store"
    {:ok, watch} = Watch.start(store, [:pods], from: :now)
    revision = Tree.put!(store, [:pods, "web"], 1)
    receive do: ({:store_watch, _ref, {:changes, ^revision, _changes}} -> :ok)

    body =
      eventually("the watch to be listed", fn ->
        body = get(port, "/watches/live").body
        if body =~ "[:pods]", do: body, else: {:not_yet, body}
      end)

    assert body =~
             String.replace(inspect(self()), ["<", ">"], fn
               "<" -> "&lt;"
               ">" -> "&gt;"
             end)

    assert body =~ ~s(<td data-label="Told" class="number">#{revision}</td>)
    Watch.cancel(watch)
  end
end
