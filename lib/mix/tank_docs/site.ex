defmodule Mix.TankDocs.Site do
  @moduledoc """
  Documentation as a directory of HTML files that need no network and no server: a page for each module and each text, with a list
  of all of them that can be searched.
  """

  alias Mix.TankDocs.{Markdown, ModulePage}

  @typedoc "As ExDoc has them: `extras`, `main`, `groups_for_extras` and `groups_for_modules`."
  @type options :: keyword

  @doc "Writes the pages of `modules` and the texts of `options`; gives the number of pages."
  @spec write(Path.t(), String.t(), [module], options()) :: pos_integer
  def write(output, title, modules, options) do
    pages = for module <- Enum.sort(modules), page = ModulePage.read(module), do: page
    extras = for file <- options[:extras] || [], do: extra(file)
    site = %{title: title, pages: Map.new(pages, &{inspect(&1.module), &1}), extras: Map.new(extras, &{&1.file, &1})}

    File.rm_rf!(output)
    File.mkdir_p!(output)
    menu = menu(pages, extras, options)
    for page <- pages, do: write_page(output, site, menu, file(page), inspect(page.module), module_html(page, site))
    for extra <- extras, do: write_page(output, site, menu, extra.name, extra.title, extra_html(extra, site))
    for extra <- extras, do: copy_pictures(extra, output)
    main = Enum.find(extras, hd(extras), &(&1.name == "#{options[:main]}.html"))
    write_page(output, site, menu, "index.html", title, extra_html(main, site))
    File.write!(Path.join(output, "docs.css"), css())
    File.write!(Path.join(output, "docs.js"), js())
    length(pages) + length(extras)
  end

  # -- Texts

  defp extra(file) do
    text = File.read!(file)
    [_all, title] = Regex.run(~r/^# +(.+)$/m, text)
    %{file: file, name: extra_name(file), title: title, text: text}
  end

  # Two files of one name in different directories have pages of their own.
  defp extra_name(file) do
    case file |> Path.rootname() |> String.downcase() |> Path.split() do
      ["guides", name] -> name <> ".html"
      parts -> Enum.join(parts, "_") <> ".html"
    end
  end

  defp extra_html(extra, site), do: Markdown.to_html(extra.text, &extra_link(extra.file, site, &1, &2))

  defp extra_link(_file, site, :code, code), do: code_link(site, nil, code)

  defp extra_link(file, site, :link, to) do
    [path | anchor] = String.split(to, "#", parts: 2)
    target = Path.relative_to(Path.expand(path, Path.dirname(Path.expand(file))), File.cwd!())

    cond do
      path == "" or path =~ ~r/^\w+:/ -> nil
      picture?(path) -> Path.basename(path)
      extra = site.extras[target] -> Enum.join([extra.name | anchor], "#")
      # A file of the project that is no text.
      true -> false
    end
  end

  defp picture?(path), do: Path.extname(path) in [".png", ".svg"]

  defp copy_pictures(%{file: file, text: text}, output) do
    for [_all, path] <- Regex.scan(~r/!\[[^\]]*\]\(([^)\s]+)\)/, text), picture?(path) do
      File.cp!(Path.expand(path, Path.dirname(file)), Path.join(output, Path.basename(path)))
    end
  end

  # -- Modules

  defp file(page), do: inspect(page.module) <> ".html"

  defp module_html(page, site), do: ModulePage.to_html(page, &module_link(page, site, &1, &2))

  defp module_link(page, site, :code, code), do: code_link(site, page, code)
  # ExDoc's way to link to a function: [text](`put/3`).
  defp module_link(page, site, :link, "`" <> code), do: code_link(site, page, String.trim_trailing(code, "`"))
  defp module_link(_page, site, :link, to), do: with(%{name: name} <- site.extras[to], do: name)

  # `Module`, `Module.function/1`, `function/1`, `t:type/0`, `t:Module.type/0`
  defp code_link(site, page, code) do
    case Regex.run(~r/^([tc]:)?(?:((?:[A-Z]\w*\.)*[A-Z]\w*)\.?)?(?:([a-z_]\w*[?!]?)\/(\d+))?$/, code) do
      [_all, "", name] -> if site.pages[name], do: name <> ".html"
      [_all, kind, name, function, arity] -> entry_link(site, page, name, "#{kind}#{function}/#{arity}")
      _no_code -> nil
    end
  end

  defp entry_link(_site, nil, "", _id), do: nil
  defp entry_link(_site, page, "", id), do: with(id when id != nil <- ModulePage.find(page, id), do: "#" <> id)

  defp entry_link(site, _page, name, id) do
    with %{} = page <- site.pages[name], id when id != nil <- ModulePage.find(page, id), do: "#{name}.html##{id}"
  end

  # -- Around them

  defp menu(pages, extras, options) do
    texts = group(extras, options[:groups_for_extras] || [], & &1.file, "More")
    modules = group(pages, options[:groups_for_modules] || [], & &1.module, "Other modules")

    [
      for(
        {name, extras} <- texts,
        do: [heading(name), ~s(<ul>), Enum.map(extras, &item(&1.name, &1.title, [])), "</ul>"]
      ),
      for({name, pages} <- modules, do: [heading(name), ~s(<ul>), Enum.map(pages, &module_item/1), "</ul>"])
    ]
  end

  defp heading(name), do: ["<h2>", Markdown.escape(name), "</h2>"]

  defp module_item(page), do: item(file(page), inspect(page.module), Enum.map(page.entries, &ModulePage.id/1))

  # What a page has is searched as well, and shown then.
  defp item(file, title, entries) do
    inner = for id <- entries, do: ~s(<li><a href="#{file}##{Markdown.escape(id)}">#{Markdown.escape(id)}</a></li>)
    entries = if entries == [], do: [], else: [~s(<ul class="entries">), inner, "</ul>"]
    [~s(<li class="page"><a href="#{file}">), Markdown.escape(title), "</a>", entries, "</li>\n"]
  end

  defp group(pages, groups, key, rest) do
    named = for {name, members} <- groups, do: {to_string(name), Enum.filter(pages, &member?(key.(&1), members))}
    taken = Enum.flat_map(named, &elem(&1, 1))
    Enum.reject(named ++ [{rest, pages -- taken}], &match?({_name, []}, &1))
  end

  defp member?(key, members), do: members |> List.wrap() |> Enum.any?(&matches?(key, &1))
  defp matches?(key, %Regex{} = pattern), do: to_string(if is_atom(key), do: inspect(key), else: key) =~ pattern
  defp matches?(key, member), do: key == member

  defp write_page(output, site, menu, file, title, body) do
    File.write!(Path.join(output, file), [
      """
      <!doctype html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width, initial-scale=1">
      <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'">
      <title>#{Markdown.escape(title)} · #{Markdown.escape(site.title)}</title>
      <link rel="stylesheet" href="docs.css">
      </head>
      <body>
      <a class="skip" href="#main">Skip to the text</a>
      <nav aria-label="Pages">
      <p class="title"><a href="index.html">#{Markdown.escape(site.title)}</a></p>
      <label for="search">Search</label><input id="search" type="search" autocomplete="off">
      <div id="menu">
      """,
      menu,
      ~s(</div>\n</nav>\n<main id="main" tabindex="-1">\n),
      body,
      ~s(</main>\n<script src="docs.js"></script>\n</body>\n</html>\n)
    ])
  end

  defp css do
    """
    :root { color-scheme: light dark; --text: #1c2330; --soft: #5a6475; --back: #fff; --side: #f4f6f9; --line: #d8dee8; --link: #1756b5; --code: #eef1f6; }
    @media (prefers-color-scheme: dark) {
      :root { --text: #e3e8f0; --soft: #a3adbd; --back: #14181f; --side: #1a202a; --line: #323b4a; --link: #8ab8ff; --code: #222a36; }
    }
    * { box-sizing: border-box; }
    body { margin: 0; display: flex; color: var(--text); background: var(--back); font: 16px/1.55 system-ui, sans-serif; }
    a { color: var(--link); text-decoration: none; }
    a:hover, a:focus { text-decoration: underline; }
    .skip { position: absolute; left: -100rem; }
    .skip:focus { left: 1rem; top: 1rem; background: var(--back); padding: .5rem; }
    nav { width: 19rem; flex: none; height: 100vh; position: sticky; top: 0; overflow: auto; padding: 1rem; background: var(--side); border-right: 1px solid var(--line); font-size: .9rem; }
    nav h2 { font-size: .8rem; color: var(--soft); text-transform: uppercase; margin: 1.2rem 0 .3rem; }
    nav ul { list-style: none; margin: 0; padding: 0; }
    nav ul.entries { display: none; padding-left: 1rem; }
    nav.searching ul.entries { display: block; }
    nav a { display: block; padding: .1rem 0; overflow-wrap: anywhere; }
    nav .title { font-weight: 600; font-size: 1.1rem; margin: 0 0 .7rem; }
    nav a[aria-current] { font-weight: 700; }
    nav input { width: 100%; padding: .35rem .5rem; font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line); border-radius: 4px; }
    main { flex: 1; min-width: 0; max-width: 56rem; padding: 1.5rem 2.5rem 6rem; overflow-wrap: break-word; }
    main:focus { outline: none; }
    h1, h2, h3 { line-height: 1.25; margin: 1.8rem 0 .6rem; }
    h1 { margin-top: 0; overflow-wrap: anywhere; }
    h2 { border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
    .entry { margin: 1.5rem 0 2.2rem; }
    .entry > h3 { background: var(--side); border-left: 4px solid var(--link); padding: .4rem .7rem; overflow-wrap: anywhere; }
    :target { scroll-margin-top: 1rem; }
    code { background: var(--code); padding: .1em .3em; border-radius: 3px; font: .88em/1.5 ui-monospace, monospace; }
    pre { background: var(--code); padding: .7rem .9rem; border-radius: 5px; overflow-x: auto; }
    pre code, h3 code { background: none; padding: 0; }
    pre.spec { background: none; padding: 0; color: var(--soft); }
    .wide { overflow-x: auto; }
    table { border-collapse: collapse; }
    th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
    img { max-width: 100%; }
    blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid var(--line); color: var(--soft); }
    @media (max-width: 50rem) { body { display: block; } nav { width: auto; height: auto; max-height: 45vh; position: static; border-right: 0; border-bottom: 1px solid var(--line); } main { padding: 1rem; } }
    """
  end

  defp js do
    """
    "use strict";
    const nav = document.querySelector("nav");
    const search = document.getElementById("search");
    const here = location.pathname.split("/").pop() || "index.html";
    for (const link of nav.querySelectorAll(".page > a"))
      if (link.getAttribute("href") === here) { link.setAttribute("aria-current", "page"); link.scrollIntoView({ block: "center" }); }
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/[\\s.]+/).filter(Boolean);
      nav.classList.toggle("searching", words.length > 0);
      for (const page of nav.querySelectorAll(".page")) {
        const title = page.querySelector("a").textContent.toLowerCase();
        let found = words.every(word => title.includes(word));
        for (const entry of page.querySelectorAll(".entries li")) {
          const text = title + "." + entry.textContent.toLowerCase();
          entry.hidden = words.length === 0 || !words.every(word => text.includes(word)) || (found && !words.some(word => entry.textContent.toLowerCase().includes(word)));
          found = found || !entry.hidden;
        }
        page.hidden = !found;
      }
    });
    document.addEventListener("keydown", event => {
      if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
    });
    """
  end
end
