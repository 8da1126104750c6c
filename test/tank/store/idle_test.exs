defmodule Tank.Store.IdleTest do
  # What stores cost that do nothing: processor time, and space on the disk.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Cluster

  @moduletag :tmp_dir

  # Of one core, for a hundred stores.
  @cpu_percent_max 10
  @disk_bytes_max 8_000_000

  # A clock tick of the kernel's figures, in milliseconds; the kernel counts in these whatever its own are.
  @tick_ms 10

  test "ten idle stores take hardly any processor time, and little space", %{tmp_dir: dir} do
    # The machine's other work makes a shorter measurement worth less.
    check(dir, 10, 5_000, @cpu_percent_max / 2)
  end

  @tag :long
  @tag timeout: 300_000
  test "a hundred idle stores take less than a tenth of a core, and little space", %{tmp_dir: dir} do
    check(dir, 100, 20_000, @cpu_percent_max)
  end

  test "a store that is written to again is as quick as before, and compacts its history", %{tmp_dir: dir} do
    store = start_store(dir, history_revisions: 100)
    for n <- 1..1_000, do: {:ok, _revision} = Tank.Store.Tree.put(store, [:item], n)

    eventually("the history to be compacted", fn ->
      match?({:error, {:compacted, _min}}, Tank.Store.Tree.get_entry(store, [:item], revision: 500))
    end)
  end

  defp check(dir, count, measured_ms, percent_max) do
    before = percent_of_a_core(measured_ms)
    stores = for n <- 1..count, do: start_store(Path.join(dir, "#{n}"))
    for store <- stores, do: {:ok, _revision} = Tank.Store.Tree.put(store, [:item], "value")
    # What starting them left to do.
    percent_of_a_core(2_000)

    percent = percent_of_a_core(measured_ms) - before
    threads = length(File.ls!("/proc/self/task"))
    disk = for n <- 1..count, do: disk_bytes(Path.join(dir, "#{n}"))

    IO.puts(
      "#{count} idle stores: #{Float.round(percent, 1)} % of a core (the VM alone: #{Float.round(before, 1)} %), " <>
        "#{threads} threads in all, #{Enum.max(disk)} bytes of disk each"
    )

    assert percent < percent_max, "#{count} idle stores take #{percent} % of a core"
    assert Enum.max(disk) < @disk_bytes_max
    for store <- stores, do: :ok = Cluster.stop(store)
  end

  # Of this process, in the time to come.
  defp percent_of_a_core(ms) do
    {from, began} = {cpu_ms(), System.monotonic_time(:millisecond)}
    Process.sleep(ms)
    (cpu_ms() - from) * 100 / (System.monotonic_time(:millisecond) - began)
  end

  defp cpu_ms do
    # The name, in parentheses, may hold anything.
    [_name, fields] = "/proc/self/stat" |> File.read!() |> String.split(") ", parts: 2)
    [user, system] = fields |> String.split() |> Enum.slice(11, 2) |> Enum.map(&String.to_integer/1)
    (user + system) * @tick_ms
  end

  # What the files take up, holes left out and reserved space counted.
  defp disk_bytes(dir) do
    {out, 0} = System.cmd("du", ["-s", "--block-size=1", dir])
    out |> String.split() |> hd() |> String.to_integer()
  end
end
