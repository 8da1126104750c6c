defmodule Mix.TankDocs.Markdown do
  @moduledoc """
  The Markdown that documentation of this project is written in, as HTML: headings, paragraphs, lists, tables, code, quotations,
  links, pictures and emphasis.

  `link` is told what is in backquotes and where links lead. It gives an address; nil leaves code without a link and a link as it
  is, and false makes a link plain text.
  """

  @type link :: (:code | :link, String.t() -> String.t() | nil | false)

  @bullet ~r/^( *)(?:[*-]|(\d+)\.) +(.*)$/

  @spec to_html(String.t(), link()) :: iodata
  def to_html(text, link), do: text |> String.split("\n") |> blocks(link)

  @doc "Text, as HTML shows it."
  @spec escape(String.t()) :: String.t()
  def escape(text) do
    for {char, entity} <- [{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}], reduce: text do
      text -> String.replace(text, char, entity)
    end
  end

  @doc "The name by which a heading is linked to, as GitHub makes it."
  @spec anchor(String.t()) :: String.t()
  def anchor(title) do
    title |> String.downcase() |> String.replace(~r/[^\p{L}\p{N} _-]/u, "") |> String.replace(" ", "-")
  end

  # -- Blocks

  defp blocks([], _link), do: []

  defp blocks([line | rest] = lines, link) do
    cond do
      line =~ ~r/^\s*$/ -> blocks(rest, link)
      line =~ ~r/^```/ -> fence(line, rest, link)
      line =~ ~r/^\#{1,6} / -> [heading(line, link) | blocks(rest, link)]
      line =~ ~r/^( {4}|\t)/ -> indented(lines, link)
      line =~ ~r/^(---+|\*\*\*+)\s*$/ -> ["<hr>" | blocks(rest, link)]
      line =~ ~r/^> ?/ -> quotation(lines, link)
      line =~ ~r/^\s*\|/ -> table(lines, link)
      line =~ @bullet -> list(lines, link)
      true -> paragraph(lines, link)
    end
  end

  defp fence("```" <> language, lines, link) do
    {code, rest} = Enum.split_while(lines, &(not String.starts_with?(&1, "```")))
    class = if language == "", do: "", else: ~s( class="language-#{escape(String.trim(language))}")
    ["<pre><code#{class}>", escape(Enum.join(code, "\n")), "</code></pre>\n" | blocks(Enum.drop(rest, 1), link)]
  end

  defp heading(line, link) do
    [_all, marks, title] = Regex.run(~r/^(#+) +(.*?)\s*#*$/, line)
    tag = "h#{String.length(marks)}"
    ["<", tag, ~s( id="), anchor(title), ~s(">), inline(title, link), "</", tag, ">\n"]
  end

  defp indented(lines, link) do
    {code, rest} = Enum.split_while(lines, &(&1 =~ ~r/^( {4}|\t|\s*$)/))
    text = code |> Enum.map_join("\n", &String.replace(&1, ~r/^( {4}|\t)/, "")) |> String.trim_trailing()
    ["<pre><code>", escape(text), "</code></pre>\n" | blocks(rest, link)]
  end

  defp quotation(lines, link) do
    {quoted, rest} = Enum.split_while(lines, &String.starts_with?(&1, ">"))
    inner = quoted |> Enum.map(&String.replace(&1, ~r/^> ?/, "")) |> blocks(link)
    ["<blockquote>", inner, "</blockquote>\n" | blocks(rest, link)]
  end

  defp paragraph([first | lines], link) do
    {more, rest} = Enum.split_while(lines, &(not starts_block?(&1)))
    ["<p>", inline(Enum.join([first | more], "\n"), link), "</p>\n" | blocks(rest, link)]
  end

  defp starts_block?(line), do: line =~ ~r/^\s*$|^```|^\#{1,6} |^> |^\s*\|/ or line =~ @bullet

  defp table(lines, link) do
    {rows, rest} = Enum.split_while(lines, &(&1 =~ ~r/^\s*\|/))

    {head, body} =
      if match?([_head, _line | _], rows) and rule?(Enum.at(rows, 1)), do: Enum.split(rows, 2), else: {[], rows}

    head = Enum.take(head, 1)

    html = [
      if(head != [], do: ["<thead>", Enum.map(head, &row(&1, "th", link)), "</thead>"], else: []),
      "<tbody>",
      Enum.map(body, &row(&1, "td", link)),
      "</tbody>"
    ]

    [~s(<div class="wide"><table>), html, "</table></div>\n" | blocks(rest, link)]
  end

  defp rule?(row), do: row =~ ~r/^\s*\|[\s|:-]+$/

  defp row(line, tag, link) do
    cells =
      line
      |> String.trim()
      |> String.trim_leading("|")
      |> String.replace(~r/(?<!\\)\|$/, "")
      |> String.split(~r/(?<!\\)\|/)

    inner =
      for cell <- cells,
          do: ["<", tag, ">", cell |> String.replace("\\|", "|") |> String.trim() |> inline(link), "</", tag, ">"]

    ["<tr>", inner, "</tr>\n"]
  end

  # Items of one list have one indentation; what is further in belongs to the item before.
  defp list([first | _rest] = lines, link) do
    [_all, indent, number, _text] = Regex.run(@bullet, first)
    {items, rest} = items(lines, String.length(indent), [])
    tag = if number == "", do: "ul", else: "ol"
    inner = for item <- items, do: ["<li>", item(item, link), "</li>\n"]
    ["<", tag, ">\n", inner, "</", tag, ">\n" | blocks(rest, link)]
  end

  defp items([line | rest] = lines, indent, items) do
    with [_all, spaces, _number, text] <- Regex.run(@bullet, line),
         true <- String.length(spaces) in indent..(indent + 1) do
      {more, rest} = belonging(rest, indent, [])
      items(rest, indent, [[text | more] | items])
    else
      _other -> {Enum.reverse(items), lines}
    end
  end

  defp items([], _indent, items), do: {Enum.reverse(items), []}

  defp belonging(["" | [next | _] = rest], indent, lines) do
    if indentation(next) > indent or (next =~ @bullet and indentation(next) == indent),
      do: belonging(rest, indent, ["" | lines]),
      else: {Enum.reverse(lines), ["" | rest]}
  end

  defp belonging([line | rest], indent, lines) when line != "" do
    bullet? = line =~ @bullet and indentation(line) <= indent + 1

    if bullet? or (indentation(line) <= indent and starts_block?(line)),
      do: {Enum.reverse(lines), [line | rest]},
      else: belonging(rest, indent, [line | lines])
  end

  defp belonging(rest, _indent, lines), do: {Enum.reverse(lines), rest}

  # Without blank lines, an item is a line of text, not a paragraph.
  defp item([text | more], link) do
    inset = more |> Enum.reject(&(&1 =~ ~r/^\s*$/)) |> Enum.map(&indentation/1) |> Enum.min(fn -> 0 end)
    more = Enum.map(more, &String.slice(&1, min(inset, indentation(&1))..-1//1))
    {text_lines, nested} = Enum.split_while(more, &(not starts_block?(&1)))
    [inline(Enum.join([text | text_lines], "\n"), link), blocks(nested, link)]
  end

  defp indentation(line), do: String.length(line) - String.length(String.trim_leading(line, " "))

  # -- Within a block. Code comes first: nothing in it is markup.

  defp inline(text, link) do
    text |> String.split(~r/(`+)(?:(?!\1).)+?\1(?!`)/s, include_captures: true) |> code_and_text(link)
  end

  # A link may be around code: its text is put together again.
  defp code_and_text(parts, link) do
    {text, codes} =
      Enum.reduce(parts, {"", []}, fn
        "`" <> _code = part, {text, codes} -> {text <> "\0#{length(codes)}\0", codes ++ [code(part, link)]}
        part, {text, codes} -> {text <> escape(part), codes}
      end)

    # Code within a link is no link of its own.
    text
    |> replace(~r/!\[([^\]]*)\]\(([^)\s]+)\)/, fn [alt, source] ->
      ~s(<img src="#{address(source, link)}" alt="#{alt}">)
    end)
    |> replace(~r/\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^)\s]+)\)/, fn [label, to] ->
      label = replace(label, ~r/\0(\d+)\0/, fn [at] -> codes |> Enum.at(String.to_integer(at)) |> elem(0) end)
      if address = address(to, link), do: ~s(<a href="#{address}">#{label}</a>), else: label
    end)
    |> replace(~r/&lt;(https?:[^\s&]+)&gt;/, fn [to] -> ~s(<a href="#{to}">#{to}</a>) end)
    |> replace(~r/\*\*(?=\S)(.+?)(?<=\S)\*\*/s, fn [strong] -> "<strong>#{strong}</strong>" end)
    |> replace(~r/(?<![\w*])[*_](?=[^\s*_])([^*_]+?)(?<=\S)[*_](?![\w*])/s, fn [text] -> "<em>#{text}</em>" end)
    |> replace(~r/\0(\d+)\0/, fn [at] -> codes |> Enum.at(String.to_integer(at)) |> elem(1) end)
  end

  defp replace(text, pattern, fun), do: Regex.replace(pattern, text, fn _all, one, two -> fun.(groups(one, two)) end)
  defp groups(one, ""), do: [one]
  defp groups(one, two), do: [one, two]

  defp address(to, link), do: with(nil <- link.(:link, to), do: to)

  # Without, and with a link.
  defp code(part, link) do
    marks = String.length(part) - String.length(String.trim_leading(part, "`"))
    code = part |> String.slice(marks..(-marks - 1)//1) |> String.trim()
    html = "<code>#{escape(code)}</code>"
    {html, if(to = link.(:code, code), do: ~s(<a href="#{escape(to)}">#{html}</a>), else: html)}
  end
end
