defmodule Tank.Store.ReopeningTest do
  # Whether and when a store that failed at its disk is opened again; that it heals: degrade_test.exs, test/faults.
  use ExUnit.Case, async: true

  alias Tank.Store.{Error, Reopening}

  @disk_errors [
    %Error{reason: :disk_full},
    %Error{reason: {:storage, "Input/output error"}},
    %Error{reason: {:permission_denied, "/data"}},
    %Error{reason: {:data_dir, "/data"}},
    %Error{reason: {:locked, "/data"}, details: %{by: :this_vm}}
  ]

  test "a store that never ran says at once what is wrong" do
    for error <- @disk_errors, do: assert(Reopening.failed(Reopening.new(), error) == :no)
  end

  test "one that ran is opened again for ever, at growing intervals of at most 2 seconds" do
    for error <- @disk_errors do
      reopening = Reopening.new()
      Reopening.opened(reopening)
      waits = for _try <- 1..1_000, do: elem(Reopening.failed(reopening, error), 1)
      assert hd(waits) == 100 and List.last(waits) == 2_000
      assert waits == Enum.sort(waits)
    end
  end

  test "one that opens and fails again waits longer each time" do
    reopening = Reopening.new()

    waits =
      for _time <- 1..6 do
        Reopening.opened(reopening)
        elem(Reopening.failed(reopening, hd(@disk_errors)), 1)
      end

    assert waits == [100, 400, 900, 1_600, 2_000, 2_000]
  end

  test "what is not the disk's trouble does not pass" do
    reopening = Reopening.new()
    Reopening.opened(reopening)

    for reason <- [:engine_failed, {:corrupt, :log}, {:not_a_directory, "/data"}, {:wrong_store, "other"}] do
      assert Reopening.failed(reopening, %Error{reason: reason}) == :no
    end

    assert Reopening.failed(reopening, %Error{reason: {:locked, "/data"}, details: %{by: :other_process}}) == :no
  end
end
