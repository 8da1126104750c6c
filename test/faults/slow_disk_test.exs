defmodule Tank.Store.Faults.SlowDiskTest do
  # A disk that takes seconds for a sync. Writes wait for it, and give up in time; reads do not wait at all.
  use ExUnit.Case, async: false

  alias Tank.Store.Faults.{Child, Strace, Subject}

  @moduletag :tmp_dir
  @moduletag :faults
  @moduletag timeout: 300_000

  @pod %Tank.Pod{name: "before", containers: [%Tank.Container{name: "app", image: "app:1"}]}

  # After one put the log's thread waits for the disk; after twenty by a single writer, the raft core itself does.
  setup %{tmp_dir: dir, puts: puts} do
    child = Child.start_tank(Path.join(dir, "store"), log_file: Path.join(dir, "vm.log"))
    for _put <- 1..puts, do: :ok = Child.call(child, Tank.Store, :put_pod, [@pod])
    %{child: child}
  end

  for puts <- [1, 20] do
    @tag puts: puts
    test "syncs of 2 seconds after #{puts} puts: a write takes as long, a read does not", %{child: child, tmp_dir: dir} do
      strace = Strace.attach(Child.os_pid(child), "delay_enter=2000000", dir)
      writing = Task.async(fn -> timed_put(child, "slow") end)
      assert_reads_quickly(child, writing)
      assert {milliseconds, :ok} = Task.await(writing, 30_000)
      assert milliseconds >= 1_900
      assert Strace.detach(strace) >= 1
      assert {:ok, _pod} = Child.call(child, Tank.Store, :get_pod, ["slow"])
    end

    @tag puts: puts
    test "syncs of 7 seconds after #{puts} puts: writes time out, and all is well afterwards", %{
      child: child,
      tmp_dir: dir
    } do
      strace = Strace.attach(Child.os_pid(child), "delay_enter=7000000", dir)
      writing = Task.async(fn -> timed_put(child, "slow") end)
      assert_reads_quickly(child, writing)
      assert {milliseconds, {:error, :timeout}} = Task.await(writing, 30_000)
      assert milliseconds in 4_900..6_900
      Strace.detach(strace)

      Child.write_until(child, 1, 500)
      Child.call(child, Subject, :stop_writers, [])
      # Unknown meant unknown: it was only late.
      assert {:ok, slow} = Child.call(child, Tank.Store, :get_pod, ["slow"])
      assert slow.name == "slow"
      for name <- ["slow", "before"], do: :ok = Child.call(child, Tank.Store, :delete_pod, [name])
      assert Child.judge(child) == []
    end
  end

  defp timed_put(child, name) do
    Child.call(child, Subject, :timed, [Tank.Store, :put_pod, [%{@pod | name: name}]], 30_000)
  end

  # For as long as the write waits.
  defp assert_reads_quickly(child, writing, reads \\ 0) do
    {milliseconds, {:ok, @pod}} = Child.call(child, Subject, :timed, [Tank.Store, :get_pod, ["before"]])
    assert milliseconds < 1_000
    {milliseconds, pods} = Child.call(child, Subject, :timed, [Tank.Store, :list_pods, []])
    assert @pod in pods
    assert milliseconds < 1_000
    {milliseconds, {:ok, _status}} = Child.call(child, Subject, :timed, [Tank.Store.Cluster, :status, [:tank]])
    assert milliseconds < 1_000

    case Task.yield(writing, 50) do
      nil -> assert_reads_quickly(child, writing, reads + 1)
      {:ok, result} -> assert(reads > 10) && send(self(), {writing.ref, result})
    end
  end
end
