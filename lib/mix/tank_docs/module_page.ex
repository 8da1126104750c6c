defmodule Mix.TankDocs.ModulePage do
  @moduledoc """
  What a compiled module documents, as a page: its text, its types, its functions and callbacks.
  """

  alias Mix.TankDocs.Markdown

  defstruct [:module, :doc, :entries]

  @typedoc "A type, a callback, a macro or a function, with the text of its specifications."
  @type entry :: %{
          kind: :type | :callback | :function,
          name: atom,
          arity: arity,
          defaults: non_neg_integer,
          signature: String.t(),
          doc: String.t() | nil,
          specs: [String.t()]
        }
  @type t :: %__MODULE__{module: module, doc: String.t(), entries: [entry]}

  @headings [type: "Types", callback: "Callbacks", function: "Functions"]
  @kinds %{
    type: :type,
    opaque: :type,
    callback: :callback,
    macrocallback: :callback,
    function: :function,
    macro: :function
  }

  @doc "Reads a module; nil if it is not documented."
  @spec read(module) :: t() | nil
  def read(module) do
    with {:docs_v1, _line, _language, _format, doc, _meta, docs} when is_map(doc) <- Code.fetch_docs(module) do
      specs = specs(module)
      entries = for doc <- docs, entry = entry(doc, specs), do: entry
      text = Map.get(doc, "en", "")
      %__MODULE__{module: module, doc: text, entries: Enum.sort_by(entries, &{&1.name, &1.arity})}
    else
      _none -> nil
    end
  end

  @doc "The name of an entry: `put/3`; `t:t/0` and `c:init/1` for types and callbacks."
  @spec id(entry()) :: String.t()
  def id(%{kind: :type} = entry), do: "t:#{entry.name}/#{entry.arity}"
  def id(%{kind: :callback} = entry), do: "c:#{entry.name}/#{entry.arity}"
  def id(entry), do: "#{entry.name}/#{entry.arity}"

  @doc "The name of the entry that `name` is about: with defaults, an entry has several arities."
  @spec find(t(), String.t()) :: String.t() | nil
  def find(page, name) do
    Enum.find_value(page.entries, fn entry ->
      if Enum.any?((entry.arity - entry.defaults)..entry.arity, &(id(%{entry | arity: &1}) == name)), do: id(entry)
    end)
  end

  @spec to_html(t(), Markdown.link()) :: iodata
  def to_html(page, link) do
    [
      "<h1>#{inspect(page.module)}</h1>\n",
      Markdown.to_html(page.doc, link),
      for {kind, heading} <- @headings, entries = Enum.filter(page.entries, &(&1.kind == kind)), entries != [] do
        [~s(<h2 id="#{String.downcase(heading)}">#{heading}</h2>\n), Enum.map(entries, &entry_html(&1, link))]
      end
    ]
  end

  defp entry_html(entry, link) do
    specs =
      if entry.specs == [],
        do: [],
        else: ["<pre class=\"spec\"><code>", Markdown.escape(Enum.join(entry.specs, "\n")), "</code></pre>"]

    id = Markdown.escape(id(entry))
    signature = Markdown.escape(entry.signature)

    [
      ~s(<section class="entry" id="#{id}"><h3><a href="##{id}"><code>#{signature}</code></a></h3>),
      specs,
      if(entry.doc, do: Markdown.to_html(entry.doc, link), else: []),
      "</section>\n"
    ]
  end

  # Hidden functions have no page; types and callbacks without a text have their definition.
  defp entry({{kind, name, arity}, _line, signature, doc, meta}, specs) when is_map_key(@kinds, kind) do
    kind = @kinds[kind]

    if is_map(doc) or (doc == :none and kind != :function) do
      %{
        kind: kind,
        name: name,
        arity: arity,
        defaults: Map.get(meta, :defaults, 0),
        signature: Enum.join(signature, " ") |> shown(name, arity),
        doc: is_map(doc) && Map.get(doc, "en"),
        specs: Map.get(specs, {kind, name, arity}, [])
      }
    end
  end

  defp entry(_other, _specs), do: nil

  defp shown("", name, arity), do: "#{name}/#{arity}"
  defp shown(signature, _name, _arity), do: signature

  defp specs(module) do
    Map.new(
      types(module) ++
        specs(Code.Typespec.fetch_specs(module), :function, "@spec ") ++
        specs(Code.Typespec.fetch_callbacks(module), :callback, "@callback ")
    )
  end

  defp specs({:ok, specs}, kind, prefix) do
    for {{name, arity}, forms} <- specs do
      texts = for form <- forms, do: prefix <> text(Code.Typespec.spec_to_quoted(function_name(name), form))
      {{kind, function_name(name), if(macro?(name), do: arity - 1, else: arity)}, texts}
    end
  end

  defp specs(:error, _kind, _prefix), do: []

  defp types(module) do
    case Code.Typespec.fetch_types(module) do
      {:ok, types} ->
        for {kind, {name, _form, arguments} = type} <- types, kind in [:type, :opaque] do
          {{:type, name, length(arguments)}, ["@#{kind} " <> definition(kind, type)]}
        end

      :error ->
        []
    end
  end

  # What an opaque type is made of is not told.
  defp definition(:type, type), do: text(Code.Typespec.type_to_quoted(type))

  defp definition(:opaque, {name, _form, arguments}),
    do: "#{name}(#{Enum.map_join(arguments, ", ", &text(elem(&1, 2)))})"

  defp macro?(name), do: String.starts_with?(Atom.to_string(name), "MACRO-")
  defp function_name(name), do: name |> Atom.to_string() |> String.replace_prefix("MACRO-", "") |> String.to_atom()

  defp text(quoted), do: quoted |> Macro.to_string() |> Code.format_string!(line_length: 98) |> IO.iodata_to_binary()
end
