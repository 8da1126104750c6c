defmodule Tank.Store.Dashboard.Views.Changes do
  @moduledoc false
  # What changes under a path, as it happens. The script of the pages asks for what came after the last row it has.

  @behaviour Tank.Store.Dashboard.Pages

  import Tank.Store.Dashboard.Html, only: [el: 2, el: 3]

  alias Tank.Store.Dashboard.Views.Tree
  alias Tank.Store.Dashboard.{Format, Recorder, Request}
  alias Tank.Store.Path

  @impl true
  def page(context, request) do
    text = Request.param(request, "path", "/")

    with {:ok, path} <- Tree.path(context.store_id, text), {:ok, answer} <- Recorder.look(context.store_id, path, 0) do
      {200, [Tree.path_form(text, "/changes"), show(path, answer)]}
    else
      {:error, :too_many} -> {503, notice(text, "Other browsers watch too many paths now. Try again in a minute.")}
      {:error, reason} when reason in [:noproc, :timeout] -> {503, notice(text, "The dashboard is being stopped.")}
      error -> Tree.failed(text, error, "/changes")
    end
  end

  @impl true
  def live(context, request) do
    with {:ok, path} <- Tree.path(context.store_id, Request.param(request, "path", "/")),
         {:ok, answer} <- Recorder.look(context.store_id, path, Request.number(request, "after")) do
      part(answer)
    else
      _no_path_or_ends -> nil
    end
  end

  @doc "Waits until there is something that came after what the browser has."
  @spec wait(Tank.Store.Dashboard.Context.t(), Request.t()) :: :ok
  def wait(context, request) do
    case Tree.path(context.store_id, Request.param(request, "path", "/")) do
      {:ok, path} -> Recorder.wait(context.store_id, path, Request.number(request, "after"))
      {:error, _no_path} -> :ok
    end
  end

  defp notice(text, why), do: [Tree.path_form(text, "/changes"), el(:p, [class: "notice", role: "status"], why)]

  defp show(path, answer) do
    live = "/changes/live?" <> URI.encode_query(path: Path.to_string(path))

    el(:section, [class: "card", "aria-labelledby": "log"], [
      el(:div, [class: "title"], [
        el(:h2, [id: "log"], "Below #{Format.path_text(path)}"),
        el(:button, [type: "button", id: "pause", "aria-pressed": "false", hidden: true], "Pause")
      ]),
      el(
        :noscript,
        el(:p, [class: "notice"], "Load the page again for what is new: without JavaScript it stays as it is.")
      ),
      el(:p, [id: "watching", class: "muted"], watching(answer)),
      el(
        :ol,
        [
          id: "changes",
          role: "log",
          "aria-labelledby": "log",
          tabindex: "0",
          "data-changes": live,
          "data-after": answer.number
        ],
        rows(answer)
      )
    ])
  end

  defp part(answer) do
    el(:div, ["data-after": answer.number, "data-watching": watching(answer)], el(:ol, rows(answer)))
  end

  defp watching(%{state: :down}), do: "The store does not run. This goes on when it does."
  defp watching(%{left_out: 0, rows: []}), do: "Waits for the next change."
  defp watching(%{left_out: 0}), do: "The newest change comes first."

  defp watching(%{left_out: count}),
    do: "#{Format.number(count)} newer changes are not shown: there are too many at a time."

  defp rows(answer), do: Enum.map(answer.rows, &row/1)

  defp row(row) do
    el(:li, [class: "change"], [
      el(:span, [class: "type #{row.type}"], row.type),
      el(:span, [class: "what"], [Format.path_link(row.path), value(row), left_out(row)]),
      el(:span, [class: "muted when"], ["revision #{Format.number(row.revision)}, ", time(row.at_ms)])
    ])
  end

  defp value(%{value: nil}), do: nil
  defp value(%{value: value}), do: el(:code, [class: "preview"], value)

  defp left_out(%{left_out: 0}), do: nil
  defp left_out(%{left_out: count}), do: el(:span, [class: "muted"], "#{Format.number(count)} before it are not shown")

  # The script makes it the browser's time.
  defp time(at_ms) do
    at = DateTime.from_unix!(at_ms, :millisecond)
    el(:time, [datetime: DateTime.to_iso8601(at)], Calendar.strftime(at, "%H:%M:%S UTC"))
  end
end
