defmodule Tank.Store.Faults.DiskFullTest do
  # A disk without space, while the store runs and when it starts. What was acknowledged stays, callers get named errors
  # in time, the VM lives, and once there is space again the store opens.
  use ExUnit.Case, async: false

  import Bitwise, only: [<<<: 2]
  import Tank.Store.TankCase, only: [eventually: 3]

  alias Tank.Store.Error
  alias Tank.Store.Faults.{Child, Image, Subject}

  @moduletag :tmp_dir
  @moduletag :faults
  @moduletag timeout: 300_000

  @start_ms_max 15_000

  # How long readers are without an answer at the most, besides what the machine does to any process.
  @pause_ms_max 200

  setup %{tmp_dir: dir} do
    image = Image.create(dir, 160)
    %{image: image, options: [data_dir: Path.join(image.mount, "store")], log_file: Path.join(dir, "vm.log")}
  end

  # How long the disk is full.
  for seconds <- [10, 120] do
    @seconds seconds
    if seconds > 10, do: @tag(:long)

    test "full in the middle of writes for #{seconds} s: reads never stop, and it heals by itself", context do
      %{image: image, options: options, log_file: log_file} = context
      child = Child.start_tank(options[:data_dir], log_file: log_file)
      tank = Child.call(child, Process, :whereis, [Tank.Store])
      Child.write_until(child, 1, 500)
      :ok = Child.call(child, Subject, :start_reader, [])

      free = Image.fill(image)
      # The database has reserved some space for its log: this takes that up.
      assert named?(Child.call(child, Subject, :put_until_error, [1 <<< 20], 120_000))
      full_until = System.monotonic_time(:millisecond) + @seconds * 1_000

      # A store that is opened again may free some of its log, and goes on writing: others take that up too.
      eventually(
        "the time to be over",
        fn ->
          Image.fill(image)
          Process.sleep(500)
          System.monotonic_time(:millisecond) > full_until
        end,
        (@seconds + 10) * 1_000
      )

      Child.await_errors(child, 100)
      free.()
      freed_at = System.monotonic_time(:millisecond)
      Child.await_acknowledged(child, 1)
      healed_ms = System.monotonic_time(:millisecond) - freed_at
      {reads, problems, longest_ms, bare_ms} = Child.call(child, Subject, :stop_reader, [])

      IO.puts(
        "\nfull for #{@seconds} s: #{reads} reads, #{longest_ms} ms at the most without an answer (without reads: #{bare_ms}); " <>
          "healed #{healed_ms} ms after"
      )

      assert healed_ms < 5_000
      assert problems == []
      assert longest_ms < @pause_ms_max + bare_ms

      assert Child.call(child, Process, :whereis, [Tank.Store]) == tank
      Child.await_acknowledged(child, 500)
      Child.call(child, Subject, :stop_writers, [])
      assert Child.judge(child) == []
      {_ledger, errors} = Child.seen(child)
      assert Enum.reject(Map.keys(errors), &named?/1) == []
    end
  end

  for kibibytes <- [0, 8, 64, 1024, 8192] do
    @kibibytes kibibytes
    test "a new store with #{kibibytes} KiB", %{image: image, options: options, log_file: log_file} do
      child = Child.start(log_file: log_file)
      free = Image.fill(image, @kibibytes * 1024)
      assert_starts_or_is_full(start(child, options))
      Child.call(child, Subject, :stop_tank, [])

      free.()
      assert start(child, options) == :ok
      assert Child.judge(child) == []
    end

    test "a store that is there with #{kibibytes} KiB", %{image: image, options: options, log_file: log_file} do
      child = Child.start_tank(options[:data_dir], log_file: log_file)
      Child.write_until(child, 1, 500)
      Child.call(child, Subject, :stop_writers, [])
      Child.call(child, Subject, :stop_tank, [])

      free = Image.fill(image, @kibibytes * 1024)
      assert_starts_or_is_full(start(child, options))
      Child.call(child, Subject, :stop_tank, [])

      free.()
      assert start(child, options) == :ok
      assert Child.judge(child) == []
    end
  end

  test "40 MiB are enough for a new store", %{image: image, options: options, log_file: log_file} do
    child = Child.start(log_file: log_file)
    Image.fill(image, 40 <<< 20)
    assert start(child, options) == :ok
    Child.write_until(child, 1, 500)
    Child.call(child, Subject, :stop_writers, [])
    assert Child.judge(child) == []
  end

  defp start(child, options) do
    {milliseconds, result} = Child.call(child, Subject, :timed, [Subject, :start_tank, [options]])
    assert milliseconds < @start_ms_max
    result
  end

  defp assert_starts_or_is_full(:ok), do: :ok

  defp assert_starts_or_is_full(result) do
    assert {:error, {:store_init_failed, %Error{reason: :disk_full}}} = result
  end

  defp named?({:storage, why}), do: is_binary(why)
  defp named?(reason), do: reason in [:disk_full, :engine_failed, :noproc, :timeout]
end
