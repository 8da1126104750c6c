defmodule Tank.Bench.Disk do
  @moduledoc "What the disk can do without us: `fdatasync.rs`, which appends and syncs in a loop."

  @doc "Runs it for `seconds` in `dir`, with so many bytes each time."
  @spec appends(Path.t(), number, pos_integer) :: %{rate: float, p50: float, p99: float}
  def appends(dir, seconds, bytes \\ 4096) do
    program = Path.join(System.fetch_env!("BENCH_EBIN"), "fdatasync")
    {output, 0} = System.cmd(program, [Path.join(dir, "fdatasync"), to_string(seconds), to_string(bytes)])
    [count, elapsed, p50, p99] = output |> String.split() |> Enum.map(&elem(Float.parse(&1), 0))
    %{rate: count / elapsed, p50: p50, p99: p99}
  end
end
