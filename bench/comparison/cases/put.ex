defmodule Tank.Bench.Comparison.Cases.Put do
  @moduledoc """
  Durable puts that overwrite pods in no order, by 1 to 256 processes at once, of three sizes.

  For context, the disk beside them appends as many bytes as that number of pods has and syncs once, in a loop: what one
  thread could reach that writes nothing else and waits for nobody. A process with a file does so for callers who encode
  pods and wait. And etcd, with values of as many bytes.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Disk, Etcd, Load, Machine, Pods, Store, Workload}

  @sides [tank: Store.Tank, khepri: Store.Khepri, api: Store.KhepriApi, disk: Disk, file: Store.File, etcd: Etcd]

  @impl true
  def title, do: "Durable puts"

  @impl true
  def metrics do
    [
      {:rate, "1/s", :more},
      {:p50, "us", :less},
      {:p99, "us", :less},
      {:p999, "us", :less},
      {:bytes, "written a put", :less},
      {:cpu, "us a put", :less},
      {:syncs, "a put", :less}
    ]
  end

  @impl true
  def stages(%{quick?: true}), do: [stage(:usual, 100, [1, 4])]

  def stages(_settings) do
    [stage(:usual, 10_000, [1, 16, 64, 256]), stage(:small, 10_000, [1, 64]), stage(:large, 1_000, [1, 64])]
  end

  defp stage(size, pods, writers) do
    %{sides: @sides, setup: %{size: size, pods: pods}, points: for(n <- writers, do: %{writers: n}), warm_up: true}
  end

  @impl true
  def prepare(Disk, _dir, _params), do: :ok

  def prepare(Etcd, dir, %{size: size, pods: pods}) do
    with :ok <- Etcd.start(Path.join(dir, "etcd")), do: Etcd.fill(pods, bytes(size))
  end

  def prepare(store, dir, %{size: size, pods: pods}) do
    :ok = store.start(dir)
    Store.fill(store, pods, &Pods.sized(size, &1))
  end

  @impl true
  def measure(Disk, dir, %{size: size, writers: writers}, seconds) do
    %{rate: rate, p50: p50, p99: p99} = Disk.appends(dir, seconds / 3, writers * bytes(size))
    %{rate: rate * writers, p50: p50, p99: p99}
  end

  def measure(Etcd, _dir, %{size: size, pods: pods, writers: writers}, seconds),
    do: Etcd.puts(writers, pods, seconds, bytes(size))

  def measure(store, dir, %{size: size, pods: pods, writers: writers}, seconds) do
    {syncs, written, cpu} = {store.syncs(), Machine.written(dir), Machine.cpu_seconds()}
    load = Load.run(writers, seconds, writer(store, Pods.names(pods), Pods.sized(size, "any")))
    a_put = fn total -> total / load.count end

    load
    |> Map.take([:rate, :p50, :p99, :p999])
    |> Map.merge(%{
      bytes: a_put.(Machine.written(dir) - written),
      cpu: a_put.((Machine.cpu_seconds() - cpu) * 1.0e6),
      syncs: a_put.(store.syncs() - syncs)
    })
  end

  defp bytes(size), do: :erlang.external_size(Pods.sized(size, Pods.name(1)))

  defp writer(store, names, pod) do
    fn client ->
      Process.put(:seed, client * 7919)
      fn count -> store.put(Pods.named(pod, Workload.Put.pick(names), count)) end
    end
  end
end
