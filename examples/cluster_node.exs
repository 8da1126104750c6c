# What runs on the nodes of examples/cluster.exs.

defmodule ClusterNode do
  # Under a process that stays: Tank.Store ends with whoever started it.
  def start(dir, nodes) do
    caller = self()

    spawn(fn ->
      send(caller, {:started, Tank.Store.start_link(data_dir: dir, cluster: nodes)})
      Process.sleep(:infinity)
    end)

    receive do: ({:started, {:ok, _pid}} -> :ok)
  end

  # Puts pods as fast as it can, and notes each acknowledgement in a file, which outlives a kill -9.
  def write(file, prefix) do
    spawn(fn ->
      Process.register(self(), :writer)
      {:ok, device} = :file.open(file, [:append, :raw, :binary])
      write(device, prefix, 0)
    end)

    :ok
  end

  def stop_writing do
    monitor = Process.monitor(:writer)
    send(:writer, :stop)
    receive do: ({:DOWN, ^monitor, :process, _writer, _reason} -> :ok)
  end

  defp write(device, prefix, number) do
    receive do
      :stop -> :ok
    after
      0 ->
        name = "#{prefix}-#{number}"

        if Tank.Store.put_pod(%Tank.Pod{name: name, containers: []}) == :ok,
          do: :ok = :file.write(device, "#{name} #{System.os_time(:millisecond)}\n")

        write(device, prefix, number + 1)
    end
  end
end
