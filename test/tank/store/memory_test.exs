defmodule Tank.Store.MemoryTest do
  # A store with more values than it may keep in memory.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Cluster

  @moduletag :tmp_dir

  @megabyte 1024 * 1024
  @count 3_000

  setup %{tmp_dir: dir} do
    start_supervised!({Tank.Store, data_dir: dir, memory_bytes_max: @megabyte})
    pods = for i <- 1..@count, do: large_pod("pod-#{i}", 1_000)
    Enum.each(pods, &(:ok = Tank.Store.put_pod(&1)))
    %{pods: pods}
  end

  test "every value is read, one by one and as a list, and memory stays within the bound", %{pods: pods} do
    assert {:ok, %{value_bytes: all}} = Cluster.status(:tank)
    assert all > 3 * @megabyte
    for pod <- Enum.shuffle(pods), do: assert({:ok, pod} == Tank.Store.get_pod(pod.name))
    assert Enum.sort(Tank.Store.list_pods()) == Enum.sort(pods)

    # What was read last is over the bound until it is dropped, a moment later.
    eventually("memory to be within the bound", fn ->
      {:ok, %{memory_bytes: bytes}} = Cluster.status(:tank)
      bytes <= @megabyte || {:not_yet, bytes}
    end)
  end

  test "a create finds what is only on the disk, and leaves it", %{pods: pods} do
    for pod <- Enum.take(pods, 50), do: assert({:error, :exists} == Tank.Store.create_pod(%{pod | restart: :never}))
    for pod <- Enum.take(pods, 50), do: assert({:ok, pod} == Tank.Store.get_pod(pod.name))
  end

  test "a restart keeps no more in memory than it may, and has everything", %{pods: pods, tmp_dir: dir} do
    stop_supervised!(Tank.Store)
    start_supervised!({Tank.Store, data_dir: dir, memory_bytes_max: @megabyte})
    assert {:ok, %{memory_bytes: bytes}} = Cluster.status(:tank)
    assert bytes <= @megabyte
    assert Enum.sort(Tank.Store.list_pods()) == Enum.sort(pods)
  end

  defp large_pod(name, bytes) do
    env = %{"DATA" => Base.encode64(:crypto.strong_rand_bytes(div(bytes * 3, 4)))}
    Tank.Pod.new!(name: name, containers: [[name: "c", image: "i", env: env]])
  end
end
