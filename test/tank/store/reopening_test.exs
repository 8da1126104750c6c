defmodule Tank.Store.ReopeningTest do
  # Whether a store that cannot be opened is tried again; that it comes back is seen in test/faults.
  use ExUnit.Case, async: true

  alias Tank.Store.{Error, Reopening}

  @disk_errors [%Error{reason: :disk_full}, %Error{reason: {:storage, "Input/output error"}}]

  test "a store that never ran says at once what is wrong" do
    for error <- @disk_errors, do: assert(Reopening.again(Reopening.new(), error, 1) == :no)
    assert Reopening.pause(Reopening.new()) == 0
  end

  test "one that ran waits for its disk, longer each time" do
    for error <- @disk_errors do
      reopening = Reopening.new()
      Reopening.opened(reopening)
      waits = for tries <- 1..20, do: elem(Reopening.again(reopening, error, tries), 1)
      assert hd(waits) == 100 and List.last(waits) == 2_000
      assert waits == Enum.sort(waits)
    end
  end

  test "what is not the disk's trouble does not pass" do
    reopening = Reopening.new()
    Reopening.opened(reopening)

    for reason <- [:engine_failed, {:corrupt, "log", "a record"}] do
      assert Reopening.again(reopening, %Error{reason: reason}, 1) == :no
      for _again <- 1..3, do: Reopening.failed(reopening, %Error{reason: reason})
      assert Reopening.pause(reopening) == 0
    end
  end

  test "one that opens and fails again is opened at once, and then after a pause" do
    reopening = Reopening.new()
    Reopening.opened(reopening)
    Reopening.failed(reopening, hd(@disk_errors))
    assert Reopening.pause(reopening) == 0
    Reopening.opened(reopening)
    Reopening.failed(reopening, hd(@disk_errors))
    assert Reopening.pause(reopening) > 5_000
  end
end
