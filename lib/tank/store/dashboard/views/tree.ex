defmodule Tank.Store.Dashboard.Views.Tree do
  @moduledoc false
  # A node of the tree, with its value, and its children, a page at a time.

  @behaviour Tank.Store.Dashboard.Pages

  import Tank.Store.Dashboard.Html, only: [el: 2, el: 3]

  alias Tank.Store.Dashboard.{Format, Html, Request, TermText}
  alias Tank.Store.{Error, Native, Path, View}

  @children 100
  @read_ms 2_000

  @typedoc "A node as it is shown."
  @type shown :: %{
          path: Path.t(),
          payload: binary | nil,
          bytes: non_neg_integer,
          children: non_neg_integer,
          revision: non_neg_integer,
          create_revision: non_neg_integer,
          version: non_neg_integer,
          lease: non_neg_integer
        }

  @impl true
  def page(context, request) do
    text = Request.param(request, "path", "/")

    with {:ok, key} <- Path.string_to_key(text),
         {:ok, view} <- View.take(context.store_id, :low_latency, @read_ms),
         {:ok, node} <- node(view, key),
         {:ok, children, before?, after?} <- children(view, key, request) do
      {200, [path_form(text), crumbs(node.path), this(node), list(node, children, before?, after?)]}
    else
      error -> failed(text, error)
    end
  end

  @impl true
  def live(_context, _request), do: nil

  @doc "A form that asks for a path, which `/:pods/web` stands for."
  @spec path_form(String.t(), String.t()) :: Html.t()
  def path_form(text, to \\ "/tree") do
    el(:form, [class: "line", method: "get", action: to, role: "search"], [
      el(:label, [for: "path"], "Path"),
      el(
        :input,
        [id: "path", name: "path", value: text, spellcheck: "false", autocapitalize: "off", autocomplete: "off"],
        nil
      ),
      el(:button, [type: "submit"], "Show"),
      el(:p, [class: "hint"], [
        "As in ",
        el(:code, "/:pods/web"),
        ": a colon before an atom, ",
        el(:code, "%2F"),
        " for a slash."
      ])
    ])
  end

  @doc "What is shown when there is nothing."
  @spec failed(String.t(), term, String.t()) :: {pos_integer, Html.t()}
  def failed(text, error, to \\ "/tree") do
    {status, why} = why(error)
    {status, [path_form(text, to), el(:p, [class: "notice", role: "status"], why)]}
  end

  @doc "The path that a request gives. Its atoms are there, or in the path of a node."
  @spec path(atom, String.t()) :: {:ok, Path.t()} | {:error, term}
  def path(store_id, text) do
    case Path.from_string(text) do
      {:ok, path} -> with {:ok, _key} <- Path.to_key(path), do: {:ok, path}
      {:error, {:unknown_atom, _name}} = unknown -> path_of_node(store_id, text, unknown)
      {:error, _why} = error -> error
    end
  end

  defp path_of_node(store_id, text, unknown) do
    with {:ok, key} <- Path.string_to_key(text),
         {:ok, view} <- View.take(store_id, :low_latency, @read_ms),
         {:ok, node} <- node(view, key) do
      {:ok, node.path}
    else
      _none -> unknown
    end
  end

  # -- Reading

  defp node(view, key) do
    with {:ok, node} <- Native.browse_node(view, key, TermText.page_bytes()), do: {:ok, shown(node)}
  end

  # One more than a page tells whether there is another one.
  defp children(view, key, request) do
    {from, reverse?} = from(request)

    with {:ok, after_key} <- after_key(key, from),
         {:ok, found} <- Native.browse(view, key, after_key, @children + 1, reverse?, TermText.line_bytes()) do
      {page, more} = found |> Enum.map(&shown/1) |> Enum.split(@children)
      more? = more != []
      if reverse?, do: {:ok, Enum.reverse(page), more?, true}, else: {:ok, page, from != nil, more?}
    end
  end

  defp from(%Request{query: %{"before" => text}}), do: {text, true}
  defp from(%Request{query: %{"after" => text}}), do: {text, false}
  defp from(_request), do: {nil, false}

  # The name of a child: it need not be there any more. A zero ends each name.
  defp after_key(_key, nil), do: {:ok, nil}

  defp after_key(key, text) do
    with {:ok, child} <- Path.string_to_key(text) do
      if match?([_one], :binary.matches(child, <<0>>)),
        do: {:ok, key <> child},
        else: {:error, {:invalid_path, "a page begins at the name of a child"}}
    end
  end

  defp shown({path, payload, bytes, children, {revision, create_revision, version, lease}}) do
    %{
      path: path,
      payload: payload,
      bytes: bytes,
      children: children,
      revision: revision,
      create_revision: create_revision,
      version: version,
      lease: lease
    }
  end

  # -- Showing

  defp crumbs(path) do
    steps = for length <- 0..length(path), do: Enum.take(path, length)
    el(:nav, [class: "crumbs", "aria-label": "Path"], el(:ol, Enum.map(steps, &crumb(&1, path))))
  end

  defp crumb(step, path),
    do: el(:li, el(:a, [href: Format.tree(step), "aria-current": if(step == path, do: "page")], name(step)))

  defp name([]), do: "root"
  defp name(path), do: path |> List.last() |> TermText.component()

  defp this(%{version: 0} = node) do
    el(:section, [class: "card", "aria-labelledby": "value"], [
      el(:h2, [id: "value"], "Value"),
      el(:p, [class: "muted"], "This node has no value."),
      watch_link(node)
    ])
  end

  defp this(node) do
    el(:section, [class: "card", "aria-labelledby": "value"], [
      el(:h2, [id: "value"], "Value"),
      el(
        :pre,
        [tabindex: "0", role: "region", "aria-label": "The value"],
        el(:code, TermText.page(node.payload, node.bytes))
      ),
      el(:dl, [class: "facts"], [
        fact("Size", Format.bytes(node.bytes)),
        fact("Version", Format.number(node.version)),
        fact("Written at revision", Format.number(node.revision)),
        fact("Created at revision", Format.number(node.create_revision)),
        if(node.lease > 0, do: fact("Lease", Format.number(node.lease)))
      ]),
      watch_link(node)
    ])
  end

  defp fact(name, value), do: el(:div, [el(:dt, name), el(:dd, value)])

  defp watch_link(node) do
    href = "/changes?" <> URI.encode_query(path: Path.to_string(node.path))
    el(:p, el(:a, [href: href], "Watch what changes here and below"))
  end

  defp list(%{children: 0}, _children, _before?, _after?), do: nil

  defp list(node, children, before?, after?) do
    pager = pager(node.path, children, before?, after?)

    el(:section, [class: "card", "aria-labelledby": "children"], [
      el(:h2, [id: "children"], "Children (#{Format.number(node.children)})"),
      pager,
      Format.table(
        "Children of this node",
        ["Name", "Value", "Children", "Version", "Revision"],
        Enum.map(children, &row/1)
      ),
      if(length(children) > 20, do: pager)
    ])
  end

  defp row(node) do
    [
      el(:a, [class: "path", href: Format.tree(node.path)], name(node.path)),
      if(node.version > 0, do: el(:code, [class: "preview"], TermText.line(node.payload, node.bytes))),
      if(node.children > 0, do: Format.number(node.children)),
      if(node.version > 0, do: Format.number(node.version)),
      if(node.version > 0, do: Format.number(node.revision))
    ]
  end

  defp pager(_path, _children, false, false), do: nil

  defp pager(path, children, before?, after?) do
    first = children |> List.first() |> own_name()
    last = children |> List.last() |> own_name()

    el(:nav, [class: "pager", "aria-label": "Pages of children"], [
      if(before?, do: el(:a, [href: Format.tree(path)], "First page")),
      if(before? and first != nil, do: el(:a, [href: Format.tree(path, before: first), rel: "prev"], "Previous")),
      if(after? and last != nil, do: el(:a, [href: Format.tree(path, after: last), rel: "next"], "Next"))
    ])
  end

  defp own_name(nil), do: nil
  defp own_name(node), do: Path.to_string([List.last(node.path)])

  # -- What can be wrong

  defp why(:not_found), do: {404, "There is no node at this path, as this member knows it."}
  defp why({:error, {:invalid_path, why}}), do: {400, "This is no path: #{why}."}

  defp why({:error, {:unknown_atom, name}}),
    do: {404, "There is no node at this path, as this member knows it: #{inspect(name)} is no atom on this node."}

  defp why({:error, reason}), do: {503, "The store cannot be read: #{Exception.message(Error.from_native(reason))}."}
end
