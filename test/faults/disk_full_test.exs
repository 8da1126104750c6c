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

  setup %{tmp_dir: dir} do
    image = Image.create(dir, 160)
    %{image: image, options: [data_dir: Path.join(image.mount, "store")], log_file: Path.join(dir, "vm.log")}
  end

  test "filling up in the middle of writes", %{image: image, options: options, log_file: log_file} do
    child = Child.start_tank(options[:data_dir], log_file: log_file)
    Child.write_until(child, 1, 500)

    free = Image.fill(image)
    # The database has reserved some space for its log: this takes that up.
    assert named?(Child.call(child, Subject, :put_until_error, [1 <<< 20], 120_000))

    # A store that opens anew may free some of its log, and goes on writing: others take that up too.
    eventually(
      "the store to give up",
      fn ->
        Image.fill(image)
        not Child.call(child, Subject, :tree_runs?, [])
      end,
      60_000
    )

    {before, _errors} = Child.seen(child)
    Child.await_errors(child, 100)
    assert {:error, {:store_init_failed, %Error{} = error}} = start(child, options)
    assert named?(error.reason)
    {later, errors} = Child.seen(child)
    assert later.acknowledged == before.acknowledged
    assert Enum.reject(Map.keys(errors), &named?/1) == []

    free.()
    assert start(child, options) == :ok
    Child.await_acknowledged(child, 500)
    Child.call(child, Subject, :stop_writers, [])
    assert Child.judge(child) == []
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
