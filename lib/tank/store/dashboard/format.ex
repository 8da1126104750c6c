defmodule Tank.Store.Dashboard.Format do
  @moduledoc false
  # Numbers, times and paths as the pages show them.

  import Tank.Store.Dashboard.Html, only: [el: 3]

  alias Tank.Store.Dashboard.{Html, TermText}
  alias Tank.Store.{Path, StatusText}

  @doc """
  A number with its thousands apart; nothing known is a dash.

      iex> Enum.map([0, 1234, 1234567, nil], &Tank.Store.Dashboard.Format.number/1)
      ["0", "1,234", "1,234,567", "–"]
  """
  @spec number(integer | nil) :: String.t()
  def number(nil), do: "–"
  def number(count), do: count |> Integer.to_string() |> String.replace(~r/\B(?=(\d{3})+$)/, ",")

  @doc "A number of bytes."
  @spec bytes(non_neg_integer) :: String.t()
  defdelegate bytes(count), to: StatusText

  @doc """
  A time that is given in milliseconds.

      iex> Enum.map([250, 10_000, 90_000, 7_200_000], &Tank.Store.Dashboard.Format.duration/1)
      ["250 ms", "10 s", "1.5 min", "2 h"]
  """
  @spec duration(non_neg_integer) :: String.t()
  def duration(ms) when ms < 1_000, do: "#{ms} ms"
  def duration(ms) when ms < 60_000, do: "#{short(ms / 1_000)} s"
  def duration(ms) when ms < 3_600_000, do: "#{short(ms / 60_000)} min"
  def duration(ms), do: "#{short(ms / 3_600_000)} h"

  @doc "The address of a path in the tree, with other parameters."
  @spec tree(Path.t(), keyword) :: String.t()
  def tree(path, others \\ []), do: "/tree?" <> URI.encode_query([{:path, Path.to_string(path)} | others])

  @doc "A path that leads to its node in the tree."
  @spec path_link(Path.t()) :: Html.t()
  def path_link(path), do: el(:a, [class: "path", href: tree(path)], path_text(path))

  @doc "A path as a string that people read; `Path.to_string/1` gives one that is read back."
  @spec path_text(Path.t()) :: String.t()
  def path_text([]), do: "[]"
  def path_text(path), do: "[" <> Enum.map_join(path, ", ", &TermText.component/1) <> "]"

  @doc "A table, with a caption that only screen readers see; each cell knows its heading, for narrow screens."
  @spec table(String.t(), [String.t()], [[Html.t()]]) :: Html.t()
  def table(caption, headings, rows) do
    el(:div, [class: "scroll"], [
      el(:table, [], [
        el(:caption, [class: "hidden"], caption),
        el(
          :thead,
          [],
          el(:tr, [], for(heading <- headings, do: el(:th, [scope: "col", class: kind(heading)], heading)))
        ),
        el(:tbody, [], for(row <- rows, do: el(:tr, [], cells(headings, row))))
      ])
    ])
  end

  # Its first cell names a row.
  defp cells([heading | headings], [first | cells]) do
    [
      el(:th, ["data-label": heading, scope: "row"], first)
      | for(
          {heading, cell} <- Enum.zip(headings, cells),
          do: el(:td, ["data-label": heading, class: kind(heading)], cell)
        )
    ]
  end

  # Headings of columns of numbers.
  @numeric ~w(Children Version Revision Lag Epoch Renewals Time Waiting Told Behind)

  defp kind(heading) when heading in @numeric, do: "number"
  defp kind(_text), do: nil

  defp short(number) do
    text = :erlang.float_to_binary(number, decimals: 1)
    String.replace_suffix(text, ".0", "")
  end
end
