defmodule Tank.Store.Dashboard.Views.Watches do
  @moduledoc false
  # Which processes of this node watch the store, and whether they keep up.

  @behaviour Tank.Store.Dashboard.Pages

  import Tank.Store.Dashboard.Html, only: [el: 2, el: 3]

  alias Tank.Store.Dashboard.{Format, Sampler, TermText}
  alias Tank.Store.Watch.Feed

  @shown 100

  @impl true
  def page(context, request),
    do: {200, el(:div, ["data-live": "/watches/live", "data-every": 3_000], live(context, request))}

  @impl true
  def live(context, _request) do
    case context.store_id |> Feed.list() |> Enum.sort_by(&{-&1.waiting, &1.sent}) do
      [] -> el(:p, [class: "notice"], "No process of this node watches the store.")
      watches -> show(context, watches)
    end
  end

  defp show(context, watches) do
    {shown, more} = Enum.split(watches, @shown)
    headings = ["Watches", "Process", "Told", "Waiting"]

    el(:section, [class: "card", "aria-label": "Watches"], [
      el(:p, [class: "muted"], [
        "#{Format.number(length(watches))} watches of this node",
        revision(Sampler.now(context.store_id))
      ]),
      Format.table("Watches of this node", headings, Enum.map(shown, &row/1)),
      if(more != [], do: el(:p, [class: "muted"], "#{Format.number(length(more))} more, with fewer messages waiting"))
    ])
  end

  defp revision({_at, {:ok, status}}), do: "; the store is at revision #{Format.number(status.revision)}"
  defp revision(_down), do: nil

  defp row(watch) do
    [
      el(:code, [class: "preview"], TermText.of_term(watch.pattern)),
      subscriber(watch.subscriber),
      Format.number(watch.sent),
      Format.number(watch.waiting)
    ]
  end

  defp subscriber(pid), do: [el(:code, inspect(pid)), " ", el(:span, [class: "muted"], name(pid))]

  defp name(pid) do
    case Process.info(pid, [:registered_name, :dictionary]) do
      nil -> "has ended"
      [registered_name: name, dictionary: _own] when is_atom(name) -> inspect(name)
      [registered_name: _none, dictionary: dictionary] -> initial_call(dictionary[:"$initial_call"])
    end
  end

  defp initial_call({module, _function, _arity}), do: inspect(module)
  defp initial_call(_none), do: nil
end
