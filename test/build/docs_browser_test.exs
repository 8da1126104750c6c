defmodule Tank.Store.Build.DocsBrowserTest do
  # What `mix tank.docs` makes, in headless Chromium, from files: no server and no network.
  use ExUnit.Case, async: false

  alias Tank.Store.Browser

  @moduletag :browser
  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  if why = Browser.missing() do
    @moduletag skip: why
    if :browser in ExUnit.configuration()[:include],
      do: IO.puts(:stderr, "The documentation is not tested in a browser: #{why}")
  end

  setup %{tmp_dir: dir} do
    modules = modules()
    output = Path.expand(Path.join(dir, "doc"))
    Mix.TankDocs.Site.write(output, "Tank.Store", modules, Mix.Project.config()[:docs])
    Browser.start(Path.join(dir, "browser"))
    {:ok, url: "file://" <> output <> "/"}
  end

  @looks [{1280, 900, "light"}, {1280, 900, "dark"}, {390, 800, "light"}]

  test "pages look right in light and dark and on a phone, and ask nobody", %{url: url, tmp_dir: dir} do
    for {width, height, scheme} <- @looks, page <- ~w(index Tank.Store.Tree dashboard architecture) do
      Browser.look(width, height, scheme)
      Browser.open(url <> page <> ".html")
      where = {width, scheme, page}
      assert {where, Browser.complaints()} == {where, []}
      assert {where, Browser.js("document.documentElement.scrollWidth <= innerWidth")} == {where, true}

      assert {where, Browser.js("getComputedStyle(document.querySelector('main')).paddingTop") != "0px"} ==
               {where, true}

      assert {where, Browser.js("[...document.images].every((image) => image.naturalWidth > 0)")} == {where, true}
      assert Enum.all?(Browser.requests(), &String.starts_with?(&1, url))
      Browser.screenshot(Path.join(System.get_env("TANK_PICTURES", dir), "docs_#{page}_#{width}_#{scheme}.png"))
    end
  end

  test "a function is found by a part of its name, and opened", %{url: url} do
    Browser.open(url <> "index.html")
    Browser.js("document.dispatchEvent(new KeyboardEvent('keydown', {key: '/'}))")
    assert Browser.js("document.activeElement.id") == "search"
    Browser.js("search.value = 'tree compare'; search.dispatchEvent(new Event('input'))")
    assert Browser.js("[...document.querySelectorAll('.page')].filter((page) => !page.hidden).length") in 0..3
    Browser.js("search.value = 'cluster.join'; search.dispatchEvent(new Event('input'))")

    shown =
      "[...document.querySelectorAll('.entries li')].filter((entry) => entry.offsetParent).map((entry) => entry.textContent)"

    assert "join/1" in Browser.js(shown)
    Browser.follow(".entries a[href='Tank.Store.Cluster.html#join/1']")
    assert Browser.js("document.querySelector(':target h3').textContent") =~ "join("
  end

  # Those of the tests are compiled with the others.
  defp modules do
    {:ok, modules} = :application.get_key(:tank_store, :modules)
    Enum.filter(modules, &(to_string(&1.module_info(:compile)[:source]) =~ "/lib/"))
  end
end
