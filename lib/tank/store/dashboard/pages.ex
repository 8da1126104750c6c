defmodule Tank.Store.Dashboard.Pages do
  @moduledoc false
  # Which page a request is about, and what all pages have in common.

  import Tank.Store.Dashboard.Html, only: [el: 2, el: 3]

  alias Tank.Store.Dashboard.{Access, Assets, Context, Html, Request, Response, Sampler}
  alias Tank.Store.Dashboard.Views.{Activity, Changes, Leases, Overview, Tree, Watches}

  # {path, name, view}
  @views [
    {"/", "Overview", Overview},
    {"/activity", "Activity", Activity},
    {"/tree", "Tree", Tree},
    {"/changes", "Changes", Changes},
    {"/leases", "Leases", Leases},
    {"/watches", "Watches", Watches}
  ]

  @errors %{
    400 => {"This request makes no sense", "Its address could not be read."},
    401 => {"Wrong token", "Tank.Store.Dashboard.url/1 gives a link with the right one."},
    404 => {"There is no such page", "Perhaps the address has a typing error."},
    405 => {"The dashboard only shows", "It takes GET and HEAD requests, and changes nothing."},
    429 => {"Too many wrong tokens", "Wait a moment, then use the link that Tank.Store.Dashboard.url/1 gives."},
    503 =>
      {"That took too long", "The dashboard gave it up, so that the store is not held up. Try it again in a moment."}
  }

  @doc """
  What a view has: the content of its page, and, at the address with `/live` behind it, the part of that which is fetched
  again and again. A view without one gives nil there.
  """
  @callback page(Context.t(), Request.t()) :: {status :: pos_integer, Html.t()}
  @callback live(Context.t(), Request.t()) :: Html.t() | nil

  @doc "Waits for what a request waits for: changes."
  @spec wait(Context.t(), Request.t()) :: :ok
  def wait(context, %Request{path: "/changes/live"} = request) do
    if Access.check(context, request) == :ok, do: Changes.wait(context, request), else: :ok
  end

  def wait(_context, _request), do: :ok

  @doc "The answer to a request."
  @spec respond(Context.t(), Request.t()) :: Response.t()
  def respond(context, %Request{path: "/assets/" <> name}) do
    case Assets.fetch(name) do
      {:ok, type, content} -> Response.new(type, content)
      :error -> error(context, 404)
    end
  end

  def respond(context, request) do
    case Access.check(context, request) do
      :ok -> show(context, request)
      {:enter, cookie} -> Response.redirect(without_token(request), [{"set-cookie", cookie}])
      :unknown -> enter(context)
      :wrong -> error(context, 401)
      :too_many -> %{error(context, 429) | headers: [{"retry-after", "10"}]}
    end
  end

  @doc "A page that says what went wrong."
  @spec error(Context.t(), pos_integer) :: Response.t()
  def error(context, status) do
    {title, text} = Map.fetch!(@errors, status)
    form = if status in [401, 429], do: token_form()
    context |> frame(title, nil, [el(:h1, title), el(:p, text), form]) |> Response.html(status)
  end

  defp show(context, %Request{path: "/activity/samples"} = request),
    do: Response.new("application/json", Sampler.json(context.store_id, Request.number(request, "after")))

  defp show(context, %Request{path: path} = request) do
    case Enum.find(@views, fn {at, _name, _view} -> path in [at, live_path(at)] end) do
      nil -> error(context, 404)
      {^path, name, view} -> page(context, request, name, view)
      {_at, _name, view} -> part(context, view.live(context, request))
    end
  end

  @doc "Where the live part of a view is."
  @spec live_path(String.t()) :: String.t()
  def live_path("/"), do: "/live"
  def live_path(path), do: path <> "/live"

  defp page(context, request, name, view) do
    {status, content} = view.page(context, request)
    context |> frame(name, request.path, [el(:h1, name), content]) |> Response.html(status)
  end

  defp part(context, nil), do: error(context, 404)
  defp part(_context, html), do: Response.html(html)

  defp enter(context) do
    content = [
      el(:h1, "Dashboard"),
      el(:p, [
        "It shows nothing without its token. ",
        el(:code, "Tank.Store.Dashboard.url(#{inspect(context.store_id)})"),
        " gives a link with it."
      ]),
      token_form()
    ]

    context |> frame("Token", nil, content) |> Response.html(401)
  end

  defp token_form do
    el(:form, [class: "line", method: "get", action: "/"], [
      el(:label, [for: "token"], "Token"),
      el(:input, [type: "password", id: "token", name: "token", required: true, autocomplete: "current-password"], nil),
      el(:button, [type: "submit"], "Show the dashboard")
    ])
  end

  # The view that was asked for, with the other parameters.
  defp without_token(request) do
    path = if List.keymember?(@views, request.path, 0), do: request.path, else: "/"
    query = Map.delete(request.query, "token")
    if query == %{}, do: path, else: path <> "?" <> URI.encode_query(query)
  end

  # -- The frame

  defp frame(context, title, path, content) do
    store = inspect(context.store_id)

    [
      {:safe, "<!doctype html>"},
      el(:html, [lang: "en"], [
        el(:head, [
          el(:meta, [charset: "utf-8"], nil),
          el(:meta, [name: "viewport", content: "width=device-width, initial-scale=1"], nil),
          el(:meta, [name: "color-scheme", content: "light dark"], nil),
          el(:title, "#{title} · #{store}"),
          el(:link, [rel: "icon", href: "/assets/icon.svg"], nil),
          el(:link, [rel: "stylesheet", href: "/assets/dashboard.css"], nil),
          el(:script, [src: "/assets/dashboard.js", defer: true], nil)
        ]),
        el(:body, [
          el(:a, [class: "skip", href: "#main"], "Skip to the content"),
          header(store, path),
          el(:main, [id: "main", tabindex: "-1"], content),
          footer(),
          el(:div, [id: "say", class: "hidden", role: "status", "aria-live": "polite"], nil),
          el(:div, [id: "lost", class: "lost", role: "alert", hidden: true], nil)
        ])
      ])
    ]
  end

  defp header(store, path) do
    el(:header, [class: "top"], [
      el(:div, [class: "bar"], [
        el(:a, [class: "brand", href: "/"], [logo(), el(:span, [class: "name"], store)]),
        if(path,
          do: el(:nav, ["aria-label": "Views"], el(:ul, for({at, name, _view} <- @views, do: item(at, name, path))))
        )
      ])
    ])
  end

  defp item(at, name, path),
    do: el(:li, el(:a, [href: at, "aria-current": if(at == path, do: "page")], name))

  defp footer do
    el(:footer, [
      el(:span, [node() |> Atom.to_string()]),
      el(:span, "Tank.Store #{Application.spec(:tank_store, :vsn)}"),
      el(:span, "read-only")
    ])
  end

  # Three members of a cluster.
  defp logo do
    {:safe,
     ~s(<svg class="logo" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true" focusable="false">) <>
       ~s(<path d="M16 8 8 23h16z" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linejoin="round"/>) <>
       ~s(<circle cx="16" cy="8" r="5"/><circle cx="8" cy="23" r="4"/><circle cx="24" cy="23" r="4"/></svg>)}
  end
end
