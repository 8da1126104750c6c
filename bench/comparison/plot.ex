defmodule Tank.Bench.Comparison.Plot do
  @moduledoc "Plots of what the case `put` found: puts a second and their latencies, over the number of writers. SVG."

  alias Tank.Bench.{Report, Stats}

  @colors %{tank: "#0b6e4f", khepri: "#c84c09", disk: "#8d99ae"}
  @names %{tank: "Tank.Store", khepri: "Khepri", disk: "disk alone"}
  @width 500
  @height 340
  # Around the axes: left, top, right, bottom.
  @margin {70, 40, 150, 50}

  @doc "Writes the plots of a case into `dir`, and gives their paths; none for a case that has none."
  @spec write(atom, [Tank.Bench.Comparison.row()], Path.t()) :: [Path.t()]
  def write(:put, rows, dir) do
    rows = for row <- rows, row.params.size == :usual, do: row
    path = Path.join(dir, "compare_put.svg")
    File.write!(path, svg([rates(rows), latencies(rows)]))
    [path]
  end

  def write(_name, _rows, _dir), do: []

  defp rates(rows) do
    lines =
      for side <- [:tank, :khepri, :disk], points = points(rows, side, :rate), points != [], do: {side, "", points}

    %{title: "Durable puts a second, pods of 1.6 KB", lines: lines}
  end

  defp latencies(rows) do
    lines =
      for side <- [:tank, :khepri],
          {metric, dash} <- [p50: "", p99: "6 3", p999: "2 3"],
          points = points(rows, side, metric),
          points != [] do
        {side, {metric, dash}, points}
      end

    %{title: "Latency of a put, us: p50, p99, p99.9", lines: lines}
  end

  defp points(rows, side, metric) do
    Enum.sort(for %{side: ^side, metric: ^metric} = row <- rows, do: {row.params.writers, Stats.median(row.values)})
  end

  defp svg(panels) do
    width = @width * length(panels)

    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{width} #{@height}" font-family="sans-serif" font-size="12">\n),
      ~s(<rect width="#{width}" height="#{@height}" fill="white"/>\n),
      for(
        {panel, i} <- Enum.with_index(panels),
        do: [~s(<g transform="translate(#{i * @width},0\)">\n), panel(panel), "</g>\n"]
      ),
      "</svg>\n"
    ]
  end

  # Both axes are logarithmic: a factor is the same distance everywhere.
  defp panel(%{title: title, lines: lines}) do
    points = for {_side, _style, points} <- lines, point <- points, do: point
    {left, right} = points |> Enum.map(&elem(&1, 0)) |> Enum.min_max()
    {low, high} = points |> Enum.map(&elem(&1, 1)) |> Enum.min_max()
    axes = %{x: {left, max(right, left + 1)}, y: {decade(low, &Float.floor/1), decade(high, &Float.ceil/1)}}

    [
      text(@width / 2, 20, "middle", title, "#222"),
      grid(axes, points |> Enum.map(&elem(&1, 0)) |> Enum.uniq()),
      for({{side, style, points}, i} <- Enum.with_index(lines), do: line(axes, side, style, points, i))
    ]
  end

  defp grid(axes, writers) do
    {left, top, right, bottom} = @margin
    {low, high} = axes.y
    rows = for power <- round(:math.log10(low))..round(:math.log10(high)), do: :math.pow(10, power)

    [
      for value <- rows do
        y = y(axes, value)

        [
          ~s(<line x1="#{left}" x2="#{@width - right}" y1="#{y}" y2="#{y}" stroke="#ddd"/>\n),
          text(left - 6, y + 4, "end", Report.number(round(value)), "#222")
        ]
      end,
      for count <- writers do
        x = x(axes, count)

        [
          ~s(<line x1="#{x}" x2="#{x}" y1="#{top}" y2="#{@height - bottom}" stroke="#eee"/>\n),
          text(x, @height - bottom + 18, "middle", Integer.to_string(count), "#222")
        ]
      end,
      text((left + @width - right) / 2, @height - 10, "middle", "writers", "#222")
    ]
  end

  defp line(axes, side, style, points, index) do
    {dash, label} = style(side, style)
    places = for {writers, value} <- points, do: {x(axes, writers), y(axes, value)}
    path = Enum.map_join(places, " ", fn {x, y} -> "#{x},#{y}" end)
    {_left, top, right, _bottom} = @margin
    {x, y} = {@width - right + 8, top + 10 + index * 18}
    stroke = ~s(stroke="#{@colors[side]}" stroke-width="2" stroke-dasharray="#{dash}")

    [
      ~s(<polyline points="#{path}" fill="none" #{stroke}/>\n),
      for({x, y} <- places, do: ~s(<circle cx="#{x}" cy="#{y}" r="3" fill="#{@colors[side]}"/>\n)),
      ~s(<line x1="#{x}" x2="#{x + 16}" y1="#{y - 4}" y2="#{y - 4}" #{stroke}/>\n),
      text(x + 20, y, "start", label, @colors[side])
    ]
  end

  defp style(side, {metric, dash}), do: {dash, "#{@names[side]} #{metric}"}
  defp style(side, dash), do: {dash, @names[side]}

  defp text(x, y, anchor, text, color) do
    ~s(<text x="#{x}" y="#{y}" text-anchor="#{anchor}" fill="#{color}">#{text}</text>\n)
  end

  defp x(axes, value) do
    {left, _top, right, _bottom} = @margin
    place(axes.x, value, left, @width - right)
  end

  defp y(axes, value) do
    {_left, top, _right, bottom} = @margin
    place(axes.y, value, @height - bottom, top)
  end

  defp place({low, high}, value, from, to) do
    Float.round(from + (to - from) * :math.log(value / low) / :math.log(high / low), 1)
  end

  # The power of ten below or above.
  defp decade(value, round) do
    power = round.(:math.log10(value))
    :math.pow(10, power)
  end
end
