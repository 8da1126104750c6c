defmodule Tank.Store.Faults.DiskErrorTest do
  # A disk that answers syncs with an error. What was acknowledged stays; nothing is acknowledged after the error until
  # the store is opened again; reads go on; callers get named errors, in time; and the VM lives.
  use ExUnit.Case, async: false

  alias Tank.Store.Error
  alias Tank.Store.Faults.{Child, Strace, Subject}

  @moduletag :tmp_dir
  @moduletag :faults
  @moduletag timeout: 300_000

  # How long readers are without an answer at the most, besides what the machine does to any process.
  @pause_ms_max 200

  setup %{tmp_dir: dir} do
    child = Child.start_tank(Path.join(dir, "store"), log_file: Path.join(dir, "vm.log"))
    %{child: child, options: [data_dir: Path.join(dir, "store")]}
  end

  test "after one error the store is opened again by itself, and works", %{child: child, tmp_dir: dir} do
    tank = Child.call(child, Process, :whereis, [Tank.Store])
    Child.write_until(child, 1, 200)

    # RocksDB's errors stay: it would refuse all writes after this one, though the disk is fine again.
    strace = Strace.attach(Child.os_pid(child), "error=EIO:when=20", dir)
    Child.await_errors(child, 1)
    assert Strace.detach(strace) >= 1

    Child.await_acknowledged(child, 500)
    Child.call(child, Subject, :stop_writers, [])
    assert Child.call(child, Process, :whereis, [Tank.Store]) == tank
    assert Child.judge(child) == []
    assert_named_errors(child)
  end

  test "errors for a dozen seconds: nothing is acknowledged, reads go on, and it works when the disk is back", %{
    child: child,
    tmp_dir: dir
  } do
    tank = Child.call(child, Process, :whereis, [Tank.Store])
    Child.write_until(child, 1, 200)
    :ok = Child.call(child, Subject, :start_reader, [])

    strace = Strace.attach(Child.os_pid(child), "error=EIO", dir)
    Child.await_errors(child, 50)
    {before, _errors} = Child.seen(child)
    # How long the disk is out of order; nothing is waited for.
    Process.sleep(12_000)
    {later, _errors} = Child.seen(child)
    assert later.acknowledged == before.acknowledged
    assert Strace.detach(strace) >= 1

    Child.await_acknowledged(child, 500)
    assert {_reads, [], longest_ms, bare_ms} = Child.call(child, Subject, :stop_reader, [])
    assert longest_ms < @pause_ms_max + bare_ms
    Child.call(child, Subject, :stop_writers, [])
    assert Child.call(child, Process, :whereis, [Tank.Store]) == tank
    assert Child.judge(child) == []
    assert_named_errors(child)
  end

  test "a store that is started while errors last says so; afterwards it opens with all that was", context do
    %{child: child, tmp_dir: dir, options: options} = context
    Child.write_until(child, 1, 500)

    strace = Strace.attach(Child.os_pid(child), "error=EIO", dir)
    Child.await_errors(child, 50)
    Child.call(child, Subject, :stop_tank, [])
    {before, _errors} = Child.seen(child)
    Child.await_errors(child, 100)
    assert {:error, {:store_init_failed, %Error{} = error}} = Child.call(child, Subject, :start_tank, [options])
    assert named?(error.reason)
    {later, _errors} = Child.seen(child)
    assert later.acknowledged == before.acknowledged
    assert Strace.detach(strace) >= 1

    assert Child.call(child, Subject, :start_tank, [options]) == :ok
    Child.await_acknowledged(child, 500)
    Child.call(child, Subject, :stop_writers, [])
    assert Child.judge(child) == []
    assert_named_errors(child)
  end

  test "a store closes in time on a disk that fails, and opens on one that does not", context do
    %{child: child, tmp_dir: dir, options: options} = context
    Child.write_until(child, 1, 200)
    Child.call(child, Subject, :stop_writers, [])

    strace = Strace.attach(Child.os_pid(child), "error=EIO", dir)
    assert {milliseconds, :ok} = Child.call(child, Subject, :timed, [Subject, :stop_tank, []])
    assert milliseconds < 15_000
    Strace.detach(strace)

    assert Child.call(child, Subject, :start_tank, [options]) == :ok
    assert Child.judge(child) == []
  end

  test "an error now and then, in a sync or in the note of what is synced: it recovers each time", context do
    %{child: child, tmp_dir: dir} = context

    problems =
      for run <- 1..5 do
        Child.write_until(child, run, 200)

        strace =
          Strace.attach(Child.os_pid(child), "error=EIO:when=#{10 * run}+30", dir, Strace.syncs() ++ ["pwrite64"])

        Child.await_errors(child, 1)
        assert Strace.detach(strace) >= 1
        Child.await_acknowledged(child, 200)
        Child.call(child, Subject, :stop_writers, [])
        Child.judge(child)
      end

    assert Enum.concat(problems) == []
    assert_named_errors(child)
  end

  defp assert_named_errors(child) do
    {_ledger, errors} = Child.seen(child)
    assert errors != %{}
    assert Enum.reject(Map.keys(errors), &named?/1) == []
  end

  defp named?({:storage, why}), do: is_binary(why)
  defp named?(reason), do: reason in [:engine_failed, :noproc, :timeout]
end
