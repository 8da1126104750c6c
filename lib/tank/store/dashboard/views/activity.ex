defmodule Tank.Store.Dashboard.Views.Activity do
  @moduledoc false
  # Plots of the last ten minutes, which the script of the pages draws of what `/activity/samples` gives.

  @behaviour Tank.Store.Dashboard.Pages

  import Tank.Store.Dashboard.Html, only: [el: 2, el: 3]

  alias Tank.Store.Dashboard.Sampler

  # {id, title, what it is, unit, [{column, name}]}
  @plots [
    {"throughput", "Throughput", "each second; reads that asked the leader", "rate",
     [revisions: "revisions of the store", writes: "writes here", reads: "reads here"]},
    {"writes", "Time of a write", "from call to answer, here", "time",
     [write_p50_us: "half, up to", write_p99_us: "99 %, up to"]},
    {"syncs", "Time of a sync", "of the log, on this disk", "time",
     [sync_p50_us: "half, up to", sync_p99_us: "99 %, up to"]},
    {"reads", "Time of a read", "that asked the leader, here", "time",
     [read_p50_us: "half, up to", read_p99_us: "99 %, up to"]},
    {"failures", "Failed calls", "each second, here", "rate", [failures: "failed"]}
  ]

  @impl true
  def page(_context, _request),
    do: {200, [without_script(), el(:div, [class: "plots"], Enum.map(@plots, &plot/1))]}

  @impl true
  def live(_context, _request), do: nil

  @doc "The plots of the overview."
  @spec overview :: [Tank.Store.Dashboard.Html.t()]
  def overview, do: [without_script() | @plots |> Enum.take(2) |> Enum.map(&plot/1)]

  defp without_script, do: el(:noscript, el(:p, [class: "notice"], "Plots need JavaScript."))

  defp plot({id, title, what, unit, series}) do
    columns = for {column, _name} <- series, do: Enum.find_index(Sampler.columns(), &(&1 == column))

    el(
      :figure,
      [class: "plot card", "data-unit": unit, "data-columns": Enum.join(columns, " "), "aria-labelledby": id],
      [
        el(:figcaption, [el(:h2, [id: id], title), el(:span, [class: "muted"], what)]),
        el(:div, [class: "canvas"], nil),
        el(:ul, [class: "legend"], for({{_column, name}, i} <- Enum.with_index(series), do: legend(name, i)))
      ]
    )
  end

  # The script writes the newest value behind the name.
  defp legend(name, i) do
    el(:li, [el(:span, [class: "swatch series-#{i}"], nil), el(:span, name), " ", el(:output, [class: "now"], "–")])
  end
end
