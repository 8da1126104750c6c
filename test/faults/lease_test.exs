defmodule Tank.Store.Faults.LeaseTest do
  # Leases while the clock on the wall jumps, and while the disk does not answer.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.Faults.Strace
  alias Tank.Store.Lease

  @moduletag :tmp_dir
  @moduletag :faults
  @moduletag timeout: 300_000

  defp acquire(peer, name, ttl), do: call(peer, Lease, :acquire, [store(), name, [holder: peer.node, ttl: ttl]])
  defp read(peer, name), do: call(peer, Lease, :read, [store(), name])
  defp now, do: System.monotonic_time(:millisecond)

  defp await_end(peer, name) do
    eventually("#{name} to end", fn -> read(peer, name) == {:error, :not_found} end, 30_000)
    now()
  end

  test "the clock on the wall jumps a day, and back: leases last as long as they should", %{tmp_dir: dir} do
    clock = Path.join(dir, "clock")
    File.write!(clock, "+0s")
    peers = start_cluster(dir, 3, exec: fn _number -> with_clock(clock) end)
    leader = await_leader(peers)
    [holder, _third] = peers -- [leader]
    real = System.os_time(:second)

    for {offset, number} <- Enum.with_index(["+86400s", "-86400s", "+0s", "+3600s"]) do
      name = "jump-#{number}"
      asked = now()
      {:ok, kept} = acquire(holder, "kept-#{number}", 3_000)
      {:ok, lease} = acquire(holder, name, 3_000)
      File.write!(clock, offset)

      eventually("the clock to jump", fn ->
        seen = call(leader, System, :os_time, [:second]) - real - String.to_integer(String.trim_trailing(offset, "s"))
        abs(seen) < 600 or {:not_yet, seen}
      end)

      assert {:ok, %{epoch: epoch}} = read(holder, name)
      assert epoch == lease.epoch
      assert {:ok, safe_ms} = call(holder, Lease, :renew, [kept])
      assert safe_ms in 1..2_940
      took = await_end(holder, name) - asked
      assert took in 3_000..8_000, "it lasted #{took} ms"
    end
  end

  test "syncs that take 5 seconds end no lease whose holder could not renew it", %{tmp_dir: dir} do
    [peer] = start_nodes(dir, 1)
    {:ok, lease} = acquire(peer, "renewed meanwhile", 2_000)
    {:ok, idle} = acquire(peer, "renewed after", 2_000)
    strace = Strace.attach(String.to_integer(peer.os_pid), "delay_enter=5000000", dir)
    began = now()
    renewing = Task.async(fn -> call(peer, Lease, :renew, [lease, [timeout: 30_000]]) end)
    assert {:ok, _safe_ms} = Task.await(renewing, 60_000)
    assert now() - began >= 4_500, "the sync was not held up"
    assert Strace.detach(strace) >= 1
    continued = now()
    assert {:ok, _safe_ms} = call(peer, Lease, :renew, [idle])
    for name <- [lease.name, idle.name], do: assert({:ok, _lease} = read(peer, name))
    assert await_end(peer, idle.name) - continued >= 2_000
    assert await_end(peer, lease.name)
  end

  defp with_clock(file) do
    library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
    assert File.exists?(library), "libfaketime is missing; bin/setup --faults installs what there is"
    # The monotonic clock stays what it is: no operating system makes that jump.
    variables = ["LD_PRELOAD=#{library}", "FAKETIME_TIMESTAMP_FILE=#{file}", "FAKETIME_NO_CACHE=1"]
    monotonic = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]
    erl = System.find_executable("erl")
    {~c"/usr/bin/env", Enum.map(variables ++ monotonic ++ [erl], &String.to_charlist/1)}
  end
end
