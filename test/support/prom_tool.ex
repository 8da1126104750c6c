defmodule Tank.Store.PromTool do
  @moduledoc """
  Prometheus' own reader and evaluator, `promtool`, on the text of `Tank.Store.Metrics` and the rules in `ops/`.
  """

  import ExUnit.Assertions

  @rules "ops/alerts.yml"
  # Each series has a sample every ten seconds for an hour: longer than any rule looks back or waits.
  @samples 360

  @doc "Why tests with it are skipped; nil when they are not."
  def missing do
    unless System.find_executable("promtool"),
      do: "promtool is not installed: apt-get install -y --no-install-recommends prometheus"
  end

  @doc "Fails when Prometheus does not accept the rules."
  def check_rules!, do: run!(["check", "rules", @rules])

  @doc "Fails when Prometheus does not accept the text."
  def check_metrics!(text) do
    path = write("metrics", text)
    {output, status} = System.cmd("sh", ["-c", "promtool check metrics < #{path}"], stderr_to_stdout: true)
    File.rm!(path)
    assert status == 0, output
  end

  @doc """
  The alerts that fire, sorted, when things go on for an hour as between the two scrapes of each node: `{before, after}`.
  """
  def firing(scrapes) do
    series = scrapes |> Enum.with_index() |> Enum.flat_map(&series/1)
    path = write("rules.yml", rules_test(series))
    {output, status} = System.cmd("promtool", ["test", "rules", path], stderr_to_stdout: true)
    File.rm!(path)
    # The test expects that nothing fires: what does is in its message.
    assert status == 0 or output =~ "got:", output
    for([_all, name] <- Regex.scan(~r/alertname="(\w+)"/, output), do: name) |> Enum.uniq() |> Enum.sort()
  end

  defp rules_test(series) do
    """
    rule_files: [#{inspect(Path.expand(@rules))}]
    evaluation_interval: 10s
    tests:
      - interval: 10s
        input_series:
    #{Enum.map_join(series, "\n", fn {name, values} -> "      - {series: '#{escape(name)}', values: '#{values}'}" end)}
        promql_expr_test:
          - expr: count by (alertname) (ALERTS{alertstate="firing"})
            eval_time: 59m
            exp_samples: []
    """
  end

  # As scraped from a node of its own, which Prometheus tells by a label.
  defp series({{before, later}, node}) do
    before = samples(before)

    for {name, value} <- samples(later) do
      step =
        if name =~ ~r/_(total|bucket|sum|count)[{]/, do: number(value) - number(Map.get(before, name, "0")), else: 0

      {String.replace(name, ~r/}$/, ~s(,instance="node#{node}"})), "#{value}+#{step}x#{@samples}"}
    end
  end

  defp samples(text) do
    for line <- String.split(text, "\n", trim: true), not String.starts_with?(line, "#"), into: %{} do
      [_all, name, value] = Regex.run(~r/^(.*) (\S+)$/, line)
      {name, value}
    end
  end

  defp number(text) do
    {number, ""} = Float.parse(text)
    number
  end

  # In YAML, a quote within quotes is two.
  defp escape(text), do: String.replace(text, "'", "''")

  defp run!(args) do
    {output, status} = System.cmd("promtool", args, stderr_to_stdout: true)
    assert status == 0, output
  end

  defp write(name, text) do
    path = Path.join(System.tmp_dir!(), "promtool_#{System.unique_integer([:positive])}_#{System.pid()}_#{name}")
    File.write!(path, text)
    path
  end
end
