defmodule Tank.Bench.CompareTest do
  use ExUnit.Case, async: true

  for file <- ~w(lib/stats lib/json lib/machine lib/report comparison/table comparison/plot) do
    Code.require_file("bench/#{file}.ex", Path.expand("../..", __DIR__))
  end

  alias Tank.Bench.Comparison.{Plot, Table}
  alias Tank.Bench.Stats

  @moduletag :tmp_dir
  # VMs of its own, one after the other.
  @moduletag timeout: 600_000

  @root Path.join(:filename.basedir(:user_cache, "tank_store"), "peers/sid/opt/khepri.ready")
  @cases ~w(put get list mixed start cluster failover catch_up import growth)
  @scripts ~w(bench/compare bench/peers/setup bench/peers/run)

  defmodule Rates do
    @moduledoc false
    def title, do: "Rates"
    def metrics, do: [{:rate, "1/s", :more}, {:p50, "us", :less}, {:p99, "us", :less}, {:p999, "us", :less}]
  end

  test "its scripts are executable bash scripts that stop at the first error" do
    for script <- @scripts do
      assert Bitwise.band(File.stat!(script).mode, 0o111) == 0o111, script
      content = File.read!(script)
      assert content =~ ~r/\A#!\/usr\/bin\/env bash\n/
      assert content =~ "\nset -euo pipefail\n"
      assert {_output, 0} = System.cmd("bash", ["-n", script], stderr_to_stdout: true)
    end
  end

  test "a speed-up is above 1 where we are better, whether more or less is better" do
    assert Stats.speed_ups([10, 30], [5, 10], :more) == [2.0, 3.0]
    assert Stats.speed_ups([5, 10], [10, 30], :less) == [2.0, 3.0]
    # Nothing can be said of a round in which nothing was counted.
    assert Stats.speed_ups([0, 10], [10, 5], :more) == [2.0]
  end

  test "a table has a line for each point and metric, sizes in their order, and no speed-up without a pair" do
    rows = [
      row(:tank, 100, :rate, [10, 20, 30]),
      row(:khepri, 100, :rate, [5, 5, 5]),
      row(:tank, 20, :p50, [4.0]),
      row(:khepri, 20, :p50, [6.0]),
      row(:disk, 20, :rate, [7])
    ]

    assert %{head: head, rows: lines} = Table.build(Rates, rows)
    assert List.last(head) == "speed-up over Khepri (median)"

    assert lines == [
             ["20 writers", "rate, 1/s", "", "", "7 (7-7)", ""],
             ["20 writers", "p50, us", "4.00 (4.00-4.00)", "6.00 (6.00-6.00)", "", "1.50 (1.50-1.50)"],
             ["100 writers", "rate, 1/s", "20 (10-30)", "5 (5-5)", "", "4.00 (2.00-6.00)"]
           ]
  end

  test "the plot of puts is well-formed, and has a line for each store and metric", %{tmp_dir: dir} do
    rows =
      for side <- [:tank, :khepri, :disk], metric <- [:rate, :p50, :p99, :p999], writers <- [1, 64] do
        row(side, writers, metric, [writers * 100.0]) |> put_in([:params, :size], :usual)
      end

    assert [path] = Plot.write(:put, rows, dir)
    svg = File.read!(path)
    assert open_tags(svg) == []
    # Rates of all three, and three percentiles of two.
    assert svg |> String.split("<polyline") |> length() == 1 + 3 + 6
    assert Plot.write(:get, rows, dir) == []
  end

  if File.regular?(@root) do
    @tag :long
    test "bench/compare --quick runs the cases with both stores and writes what it found", %{tmp_dir: dir} do
      # This environment's library is there already; its figures would be worth nothing.
      {output, status} = compare(["--quick", "--dir", Path.join(dir, "stores"), "--out", dir | @cases])
      assert status == 0, output
      assert output =~ "the figures mean nothing"

      for name <- @cases do
        json = File.read!(Path.join(dir, "compare_#{name}.json"))
        for store <- ~w(tank khepri), do: assert(json =~ ~s("store": "#{store}"), "#{name}: no figures of #{store}")
        assert json =~ ~s(.speed_up")
      end

      assert File.regular?(Path.join(dir, "compare_put.svg"))
      assert File.ls!(Path.join(dir, "stores")) == []
    end

    test "an unknown case is refused", %{tmp_dir: dir} do
      assert {output, 1} = compare(["--quick", "--dir", Path.join(dir, "stores"), "--out", dir, "nonsense"])
      assert output =~ "no case nonsense"
    end
  end

  # What is opened is closed, in order.
  defp open_tags(svg) do
    for [_tag, slash, name, self] <- Regex.scan(~r{<(/?)(\w+)[^<>]*?(/?)>}, svg), self == "", reduce: [] do
      [^name | outer] when slash == "/" -> outer
      open when slash == "" -> [name | open]
    end
  end

  defp compare(arguments),
    do: System.cmd(Path.expand("bench/compare"), arguments, env: [{"MIX_ENV", "test"}], stderr_to_stdout: true)

  defp row(side, writers, metric, values),
    do: %{side: side, params: %{writers: writers}, metric: metric, values: values}
end
