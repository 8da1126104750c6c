defmodule Tank.Store.Build.DocsTest do
  # The documentation that `mix tank.docs` makes.
  use ExUnit.Case, async: false

  alias Mix.TankDocs.{Markdown, Site}

  defp html(text, link \\ fn _kind, _name -> nil end), do: text |> Markdown.to_html(link) |> IO.iodata_to_binary()

  describe "Markdown" do
    test "headings, paragraphs and emphasis" do
      assert html("# The *first*\n\ntext of\ntwo lines\n\n## It's `b/1`") ==
               ~s(<h1 id="the-first">The <em>first</em></h1>\n<p>text of\ntwo lines</p>\n<h2 id="its-b1">It&#39;s <code>b/1</code></h2>\n)
               |> String.replace("&#39;", "'")

      assert html("**strong** and 2 * 3 * 4 and snake_case_name") ==
               "<p><strong>strong</strong> and 2 * 3 * 4 and snake_case_name</p>\n"
    end

    test "code is shown as it is, in lines and in blocks" do
      assert html("`<b> *x*` and ``a ` b``") == "<p><code>&lt;b&gt; *x*</code> and <code>a ` b</code></p>\n"

      assert html("```elixir\na < b\n\n# no heading\n```\nrest") =~
               ~s(<code class="language-elixir">a &lt; b\n\n# no heading</code></pre>\n<p>rest)

      assert html("    iex> 1\n    1\n\n    iex> 2\nrest") ==
               "<pre><code>iex&gt; 1\n1\n\niex&gt; 2</code></pre>\n<p>rest</p>\n"
    end

    test "lists, also within each other, with code and of several lines" do
      assert html("* one\n  more\n* two\n    1. in\n    2. side\n\nrest") ==
               "<ul>\n<li>one\nmore</li>\n<li>two<ol>\n<li>in</li>\n<li>side</li>\n</ol>\n</li>\n</ul>\n<p>rest</p>\n"

      assert html("1. one\n\n   ```\n   code\n   ```\n2. two") =~
               "<li>one<pre><code>code</code></pre>\n</li>\n<li>two</li>"
    end

    test "tables, with bars in them" do
      assert html("| a | b |\n|---|---|\n| `x \\| y` | z |") =~
               "<thead><tr><th>a</th><th>b</th></tr>\n</thead><tbody><tr><td><code>x | y</code></td><td>z</td></tr>"
    end

    test "links, pictures, and markup that is none" do
      link = fn
        :code, "put/3" -> "#put/3"
        :link, "a.md" -> "a.html"
        _kind, _name -> nil
      end

      assert html("[A `b`](a.md), `put/3`, [c](https://d.e/?f=1&g)", link) ==
               ~s(<p><a href="a.html">A <code>b</code></a>, <a href="#put/3"><code>put/3</code></a>, ) <>
                 ~s(<a href="https://d.e/?f=1&amp;g">c</a></p>\n)

      assert html("![p](p.png)") == ~s(<p><img src="p.png" alt="p"></p>\n)
      assert html("<script>alert(1)</script> & [x]") == "<p>&lt;script&gt;alert(1)&lt;/script&gt; &amp; [x]</p>\n"
    end
  end

  describe "the site of this project" do
    @describetag :tmp_dir

    setup %{tmp_dir: dir} do
      modules = modules()
      output = Path.join(dir, "doc")
      count = Site.write(output, "Tank.Store", modules, Mix.Project.config()[:docs])
      {:ok, output: output, count: count}
    end

    test "has each documented module and each text once, and no broken link", %{output: output, count: count} do
      files =
        for file <- Path.wildcard(Path.join(output, "*.html")), into: %{}, do: {Path.basename(file), File.read!(file)}

      assert map_size(files) == count + 1

      for name <- ~w(readme runbooks operations Tank.Store Tank.Store.Tree Mix.Tasks.Tank.Docs index),
          do: assert(files[name <> ".html"])

      ids =
        Map.new(files, fn {name, text} ->
          {name, MapSet.new(for [_, id] <- Regex.scan(~r/ id="([^"]+)"/, text), do: id)}
        end)

      there = MapSet.new(File.ls!(output))

      # All pages have the same menu.
      links =
        for {name, text} <- files,
            [_all, to] <- Regex.scan(~r/ (?:href|src)="([^"]+)"/, text),
            not (to =~ ~r/^https?:/),
            into: MapSet.new(),
            do: if(String.starts_with?(to, "#"), do: name <> to, else: to)

      broken = for link <- links, not found?(String.split(link, "#", parts: 2), ids, there), do: link
      assert broken == []
    end

    test "shows signatures, specifications and texts", %{output: output} do
      tree = File.read!(Path.join(output, "Tank.Store.Tree.html"))
      assert tree =~ ~r{<section class="entry" id="put/4"><h3>.*put\(store, path, value, opts \\\\ \[\]\)}
      assert tree =~ "@spec put("
      assert tree =~ ~s(id="t:)
      index = File.read!(Path.join(output, "index.html"))
      assert index =~ "<h2>Guides</h2>" and index =~ "<h2>Operations</h2>"
      refute index =~ "Other modules", "a module is in no group of mix.exs"
    end
  end

  defp found?([file, id], ids, _there), do: is_map_key(ids, file) and id in ids[file]
  defp found?([file], _ids, there), do: file in there

  # Those of the tests are compiled with the others.
  defp modules do
    {:ok, modules} = :application.get_key(:tank_store, :modules)
    Enum.filter(modules, &(to_string(&1.module_info(:compile)[:source]) =~ "/lib/"))
  end
end
