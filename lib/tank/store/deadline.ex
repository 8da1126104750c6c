defmodule Tank.Store.Deadline do
  @moduledoc false
  # One deadline for all steps of a call, so that none of them gets the whole timeout anew.

  # A day. No call waits for ever: what did not happen by then does not happen.
  @longest_ms 24 * 60 * 60 * 1000

  # The longest half of a deadline: a step that was not answered within this time is tried another way.
  @half_max_ms 30_000

  @type t :: integer

  @doc "The milliseconds that a timeout stands for: a day for `:infinity` and whatever is longer."
  @spec bounded(timeout) :: non_neg_integer
  def bounded(:infinity), do: @longest_ms
  def bounded(timeout) when is_integer(timeout) and timeout >= 0, do: min(timeout, @longest_ms)

  @spec in_ms(timeout) :: t
  def in_ms(timeout), do: System.monotonic_time(:millisecond) + bounded(timeout)

  @doc "Milliseconds that are left, 0 when it is over."
  @spec remaining(t) :: non_neg_integer
  def remaining(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  @doc "A deadline before this one, for a step whose failure still has to be handled and told in time."
  @spec before(t) :: t
  def before(deadline) do
    left = remaining(deadline)
    System.monotonic_time(:millisecond) + left - margin(left)
  end

  @doc "Half of the time: for a step that may well fail, and then leaves time for another way."
  @spec half(t) :: t
  # Of a day, the other way must not wait for hours.
  def half(deadline), do: deadline |> remaining() |> div(2) |> min(@half_max_ms) |> in_ms()

  @doc "The part of a timeout that is kept back for the answer's way."
  @spec margin(non_neg_integer) :: non_neg_integer
  def margin(timeout), do: timeout |> div(10) |> min(100)
end
