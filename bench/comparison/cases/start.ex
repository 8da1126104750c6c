defmodule Tank.Bench.Comparison.Cases.Start do
  @moduledoc """
  From starting a store in a fresh VM to its first answer, after a clean stop and after a `kill -9` under load; and the
  memory and the disk that its pods take. Khepri has its projection, without which it cannot list fast.

  A million pods only with `--million`: Khepri then needs some 20 GB of memory.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{FreshVm, Store, Workload}

  @sides [tank: Store.Tank, khepri: Store.KhepriProjected]

  # Measured at 100,000 pods: what filling and a start after a kill take at their peak, for each pod.
  @khepri_bytes 25_000

  @impl true
  def title, do: "Starting, memory, disk"

  @impl true
  def metrics do
    [
      {:clean, "s to the first answer after a clean stop", :less},
      {:killed, "s to the first answer after a kill -9", :less},
      {:closing, "s to stop", :less},
      {:memory, "B a pod, resident", :less},
      {:decoded, "B a pod, resident, each read twice", :less},
      {:disk, "B a pod, files", :less}
    ]
  end

  @impl true
  def stages(settings) do
    sizes =
      cond do
        settings.quick? -> [100]
        settings.million? -> [100_000, 1_000_000]
        true -> [100_000]
      end

    for size <- sizes, do: %{sides: @sides, setup: %{pods: size}, points: [%{}], warm_up: false}
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    if store == Store.KhepriProjected and pods * @khepri_bytes > available_bytes() do
      {:skip, "it would need #{div(pods * @khepri_bytes, 1_000_000_000)} GB of memory"}
    else
      {:ok, :ok} = FreshVm.call(Workload.Start, :fill, [store, files(dir), pods])
      :ok
    end
  end

  @impl true
  def measure(store, dir, %{pods: pods}, seconds) do
    {:ok, clean} = FreshVm.call(Workload.Start, :open, [store, files(dir), pods, true])
    :killed = FreshVm.call(Workload.Start, :die, [store, files(dir), pods, seconds])
    {:ok, killed} = FreshVm.call(Workload.Start, :open, [store, files(dir), pods, false])
    Map.put(clean, :killed, killed.clean)
  end

  defp files(dir), do: Path.join(dir, "start")

  defp available_bytes do
    [_line, kb] = Regex.run(~r/^MemAvailable:\s+(\d+) kB$/m, File.read!("/proc/meminfo"))
    String.to_integer(kb) * 1024
  end
end
