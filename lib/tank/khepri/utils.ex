defmodule Tank.Khepri.Utils do
  @moduledoc false
  # What applications call of Khepri's utilities: how much of a timeout is left.

  @spec start_timeout_window(timeout) :: integer | :none
  def start_timeout_window(:infinity), do: :none
  def start_timeout_window(_timeout), do: System.monotonic_time()

  @spec end_timeout_window(timeout, integer | :none) :: timeout
  def end_timeout_window(:infinity, :none), do: :infinity

  def end_timeout_window(timeout, started) do
    passed = System.convert_time_unit(System.monotonic_time() - started, :native, :millisecond)
    max(timeout - passed, 0)
  end
end
