defmodule Tank.Store.Dashboard.BrowserTest do
  # The dashboard in headless Chromium. bin/nightly runs this. It also makes the pictures of guides/dashboard.md, where they
  # are kept with: TANK_PICTURES=guides mix test test/dashboard/browser_test.exs --only browser
  use Tank.Store.DashboardCase, async: false

  alias Tank.Store.{Browser, ClusterCase, Dashboard, Lease, Tree, Watch}

  @moduletag :browser
  @moduletag :tmp_dir
  @moduletag timeout: 900_000

  if why = Browser.missing() do
    @moduletag skip: why
    # ExUnit tells how many are skipped, not why.
    if :browser in ExUnit.configuration()[:include],
      do: IO.puts(:stderr, "The dashboard is not tested in a browser: #{why}")
  end

  @pages ["/", "/activity", "/tree", "/tree?path=%2F%3Ausers%2Fann", "/changes", "/leases", "/watches"]
  @store :app

  setup %{tmp_dir: dir} do
    Browser.start(Path.join(dir, "browser"))
  end

  # -- One member

  defp start_filled(dir) do
    start_store(Path.join(dir, "store"), store_id: @store)
    port = start_dashboard(@store)
    fill(@store)
    {:ok, _lease} = Lease.acquire(@store, [:leaders, "billing"], holder: {node(), self()}, ttl: 600_000)
    {:ok, _watch} = Watch.start(@store, [:users], from: :now)
    Browser.open(Dashboard.url(@store))
    port
  end

  @doc false
  def fill(store) do
    Tree.put!(store, [:users, "ann"], %{role: :admin, mail: "ann@example.org", groups: ["staff", "oncall"]})
    Tree.put!(store, [:users, "bob"], %{role: :member, mail: "bob@example.org", groups: []})
    Tree.put!(store, [:users, "<script>alert(1)</script>"], "markup")

    Tree.put!(
      store,
      [:users, String.duplicate("long", 60), String.duplicate("name", 60)],
      String.duplicate("value", 5_000)
    )

    :ok
  end

  defp address(port, path), do: "http://127.0.0.1:#{port}#{path}"

  describe "every view" do
    test "is shown, in light and dark, on a desk and on a phone", %{tmp_dir: dir} do
      port = start_filled(dir)

      for scheme <- ["light", "dark"], {width, height} <- [{1200, 900}, {360, 740}], path <- @pages do
        Browser.look(width, height, scheme)
        Browser.open(address(port, path))
        where = {scheme, width, path}
        assert {where, Browser.complaints()} == {where, []}
        assert {where, Browser.js(flaws())} == {where, []}
        assert {where, Browser.js("document.documentElement.scrollWidth <= innerWidth")} == {where, true}
        assert Enum.uniq(for url <- Browser.requests(), do: URI.parse(url).host) == ["127.0.0.1"]
        assert Enum.uniq(for url <- Browser.requests(), do: URI.parse(url).port) == [port]
      end
    end

    test "asks nobody but the dashboard, also while it is looked at", %{tmp_dir: dir} do
      port = start_filled(dir)

      for path <- ["/", "/activity", "/changes"] do
        Browser.open(address(port, path))
        Browser.js("new Promise((done) => setTimeout(done, 3000))")
        assert length(Browser.requests()) > 3
        assert Enum.all?(Browser.requests(), &String.starts_with?(&1, address(port, "/")))
        assert Browser.complaints() == []
      end
    end

    test "is used with the keyboard", %{tmp_dir: dir} do
      port = start_filled(dir)
      Browser.open(address(port, "/activity"))
      Browser.press("Tab")
      assert Browser.js("document.activeElement.className") == "skip"
      Browser.press("Enter")
      assert Browser.js("document.activeElement.id") == "main"
      Browser.await("document.querySelectorAll('.curve').length > 0")
      Browser.press("Tab")
      assert Browser.js("document.activeElement.className") == "canvas"

      assert Browser.js("document.activeElement.getAttribute('aria-label')") =~
               ~r/^Throughput, the last ten minutes; now: .* 0/

      Browser.press("ArrowLeft")
      assert Browser.js("document.getElementById('say').textContent") =~ ~r/^at .*: revisions of the store /
      assert Browser.js("document.querySelectorAll('.cursor').length") == 1
      Browser.press("Escape")
      assert Browser.js("document.querySelectorAll('.cursor').length") == 0
    end
  end

  # What is wrong with a page for those who do not see it, or not well.
  defp flaws do
    """
    (() => {
      const flaws = [];
      const one = (selector) => {
        const found = document.querySelectorAll(selector).length;
        if (found !== 1) flaws.push(`${found} of ${selector}`);
      };
      ["h1", "main", "header", "footer", "title", "html[lang]", "nav[aria-label=Views]", "[aria-current=page][href]", "[role=status]#say"]
        .forEach((selector) => one(selector === "[aria-current=page][href]" ? "header [aria-current=page]" : selector));
      const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
      if (new Set(ids).size !== ids.length) flaws.push(`ids twice: ${ids}`);
      for (const input of document.querySelectorAll("input"))
        if (!input.labels.length) flaws.push(`no label: ${input.outerHTML}`);
      for (const named of document.querySelectorAll("a, button"))
        if (!named.textContent.trim()) flaws.push(`no name: ${named.outerHTML}`);
      for (const labelled of document.querySelectorAll("[aria-labelledby]"))
        if (!document.getElementById(labelled.getAttribute("aria-labelledby"))) flaws.push(`no such label: ${labelled.outerHTML}`);
      for (const table of document.querySelectorAll("table"))
        if (!table.caption || !table.querySelector("th[scope=col]")) flaws.push("a table without caption or headings");

      const luminance = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map((part) => {
          const value = part / 255;
          return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const color = getComputedStyle(at).backgroundColor;
          if (!color.endsWith(", 0)") && color !== "transparent") return color;
        }
        return "rgb(255, 255, 255)";
      };
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.textContent.trim() || !element.getClientRects().length || element.closest("svg, noscript")) continue;
        const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) flaws.push(`contrast ${contrast.toFixed(2)}: ${element.outerHTML.slice(0, 200)}`);
      }
      return flaws;
    })()
    """
  end

  test "the overview says when the store is gone, and when the dashboard is", %{tmp_dir: dir} do
    port = start_filled(dir)
    Browser.open(address(port, "/"))
    Browser.await("document.querySelector('.badge').textContent === 'Healthy'")
    :ok = Tank.Store.Cluster.stop(@store)
    Browser.await("document.querySelector('.badge').textContent === 'Not running'")
    assert Browser.js("document.getElementById('say').textContent") == ":app does not run on this node"
    assert Browser.js("document.getElementById('lost').hidden")

    :ok = stop_supervised({Dashboard, @store})
    Browser.await("!document.getElementById('lost').hidden")
    start_dashboard(@store, port: port)
    Browser.await("document.getElementById('lost').hidden")
  end

  # -- Several members

  defp start_members(dir) do
    peers = ClusterCase.start_nodes(dir, 3, store: false, name: &"app#{&1}", host: &"127.0.0.#{10 + &1}")
    [first | others] = peers
    for peer <- peers, do: {:ok, @store} = ClusterCase.cluster(peer, :start, [peer.dir, @store, 60_000])
    for peer <- others, do: :ok = ClusterCase.cluster(peer, :join, [@store, first.node, 60_000])
    peers
  end

  defp start_dashboard_on(peer) do
    spec = Dashboard.child_spec(store_id: @store, port: 0)
    {:ok, _pid} = ClusterCase.call(peer, :supervisor, :start_child, [:kernel_safe_sup, spec])
    ClusterCase.call(peer, Dashboard, :url, [@store])
  end

  test "a write on another member is seen within a second", %{tmp_dir: dir} do
    [first, second, _third] = start_members(dir)
    url = start_dashboard_on(first)
    {:ok, _revision} = ClusterCase.call(first, Tree, :put, [@store, [:users, "ann"], %{visits: 0}])
    Browser.open(url)
    Browser.open(URI.to_string(%{URI.parse(url) | path: "/changes", query: "path=%2F%3Ausers"}))

    times =
      for n <- 1..10 do
        seen =
          Browser.begin_js(
            "new Promise((done) => new MutationObserver(() => done(Date.now())).observe(document.getElementById('changes'), { childList: true }))"
          )

        # It is observed once the browser answers what comes behind it.
        Browser.js("1")
        began = System.system_time(:millisecond)
        {:ok, _revision} = ClusterCase.call(second, Tree, :put, [@store, [:users, "ann"], %{visits: n}])
        Browser.await_js(seen) - began
      end

    assert Browser.js("document.querySelector('#changes li').innerText") =~ "%{visits: 10}"
    assert Enum.max(times) < 1_000, "milliseconds until a write was seen: #{inspect(times)}"
  end

  test "pictures of the guide", %{tmp_dir: dir} do
    pictures = System.get_env("TANK_PICTURES", dir)
    [first, second, third] = start_members(dir)
    url = start_dashboard_on(first)
    at = fn path, query -> URI.to_string(%{URI.parse(url) | path: path, query: query}) end

    ClusterCase.call(second, Tank.Store.DashboardCase, :fill_for_pictures, [@store])
    ClusterCase.call(first, Tank.Store.DashboardCase, :load_as_of_ten_minutes, [@store])
    for peer <- [first, second], do: ClusterCase.call(peer, Tank.Store.DashboardCase, :write_for_pictures, [@store, 4])
    Browser.look(1120, 860, "light")
    Browser.open(url)
    Browser.await("document.querySelectorAll('.dot').length === 3 && document.querySelectorAll('.curve').length > 3")
    # The second plot's newest value: somebody writes.
    Browser.await("document.querySelectorAll('.now')[3].textContent !== '–'")
    Browser.await("document.querySelector('.figures .value').textContent === '1,209'")
    Browser.screenshot(Path.join(pictures, "dashboard_overview.png"))

    Browser.look(1120, 860, "dark")
    Browser.open(at.("/tree", "path=%2F%3Adeployments"))
    Browser.screenshot(Path.join(pictures, "dashboard_tree_dark.png"))

    Browser.look(390, 760, "light")
    Browser.open(at.("/changes", "path=%2F%3Adeployments"))

    for {name, peer} <- [{"web", second}, {"mail", third}, {"search", second}, {"billing", first}] do
      ClusterCase.call(peer, Tree, :put, [@store, [:deployments, name, :status], %{ready: 3, of: 3}])
    end

    ClusterCase.call(second, Tree, :delete, [@store, [:deployments, "search", :status]])
    Browser.await("document.querySelectorAll('#changes li').length >= 5")
    Browser.screenshot(Path.join(pictures, "dashboard_changes_phone.png"))

    for picture <- Path.wildcard(Path.join(pictures, "dashboard_*.png")) do
      assert <<0x89, "PNG", _rest::binary>> = File.read!(picture)
      assert File.stat!(picture).size < 200_000
    end
  end

  # -- A million

  @tag :long
  @tag timeout: 1_800_000
  test "1,000,000 entries are browsed without a stall", %{tmp_dir: dir} do
    port = start_filled(dir)

    for chunk <- Enum.chunk_every(1..1_000_000, 1_000) do
      operations = for n <- chunk, do: {:put, [:many, String.pad_leading("#{n}", 7, "0")], n}
      {:ok, %{succeeded: true}} = Tree.txn(@store, [], operations, [], timeout: 60_000)
    end

    first = Browser.open(address(port, "/tree?path=%2F%3Amany"))
    assert Browser.js("document.querySelector('#children').textContent") == "Children (1,000,000)"
    next = for _ <- 1..10, do: Browser.follow("a[rel=next]")
    assert Browser.js("document.querySelector('tbody tr').innerText") =~ ~s("0001001")
    last = Browser.open(address(port, "/tree?path=%2F%3Amany&after=0999950"))
    assert Browser.js("document.querySelectorAll('tbody tr').length") == 50
    previous = for _ <- 1..10, do: Browser.follow("a[rel=prev]")
    root = Browser.open(address(port, "/tree"))
    overview = Browser.open(address(port, "/"))
    times = [first, last, root, overview] ++ next ++ previous
    IO.puts("\n1,000,000 entries: milliseconds until a page was loaded: #{Enum.join(times, ", ")}")
    assert Enum.max(times) < 1_000
    assert Browser.js("JSON.stringify(performance.getEntriesByType('longtask'))") == "[]"
  end
end
