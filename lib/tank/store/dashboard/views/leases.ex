defmodule Tank.Store.Dashboard.Views.Leases do
  @moduledoc false
  # Who holds which lease.

  @behaviour Tank.Store.Dashboard.Pages

  import Tank.Store.Dashboard.Html, only: [el: 3]

  alias Tank.Store.Dashboard.{Format, Request, TermText}
  alias Tank.Store.{Error, Lease, Path}

  @page 100

  @impl true
  def page(context, request) do
    live = "/leases/live?" <> URI.encode_query(Map.take(request.query, ["after"]))
    {200, el(:div, ["data-live": live, "data-every": 2_000], live(context, request))}
  end

  @impl true
  def live(context, request) do
    opts = [favor: :low_latency, limit: @page + 1] ++ behind(Request.param(request, "after"))

    case Lease.list(context.store_id, opts) do
      {:ok, []} -> el(:p, [class: "notice"], "Nobody holds a lease#{if opts[:after], do: " behind this one"}.")
      {:ok, leases} -> show(leases)
      {:error, reason} -> el(:p, [class: "notice bad"], Exception.message(Error.from_native(reason)))
    end
  end

  defp behind(nil), do: []

  defp behind(text) do
    case Path.from_string(text) do
      {:ok, name} -> [after: name]
      {:error, _no_name} -> []
    end
  end

  defp show(leases) do
    {leases, more} = Enum.split(leases, @page)

    el(:section, [class: "card", "aria-label": "Leases"], [
      Format.table("Leases that are held", ["Lease", "Holder", "Time", "Epoch"], Enum.map(leases, &row/1)),
      if(more != [], do: el(:nav, [class: "pager", "aria-label": "Pages of leases"], next(List.last(leases))))
    ])
  end

  defp next(lease),
    do: el(:a, [href: "/leases?" <> URI.encode_query(after: Path.to_string(lease.name)), rel: "next"], "Next")

  defp row(lease) do
    [
      el(:span, [class: "path"], Format.path_text(lease.name)),
      el(:code, [class: "preview"], TermText.of_term(lease.holder)),
      Format.duration(lease.ttl),
      Format.number(lease.epoch)
    ]
  end
end
