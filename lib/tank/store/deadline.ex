defmodule Tank.Store.Deadline do
  @moduledoc false
  # One deadline for all steps of a call, so that none of them gets the whole timeout anew.

  @type t :: integer | :infinity

  @spec in_ms(timeout) :: t
  def in_ms(:infinity), do: :infinity
  def in_ms(timeout) when is_integer(timeout) and timeout >= 0, do: System.monotonic_time(:millisecond) + timeout

  @doc "Milliseconds that are left, 0 when it is over."
  @spec remaining(t) :: timeout
  def remaining(:infinity), do: :infinity
  def remaining(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  @doc "A deadline before this one, for a step whose failure still has to be handled and told in time."
  @spec before(t) :: t
  def before(:infinity), do: :infinity

  def before(deadline) do
    left = remaining(deadline)
    System.monotonic_time(:millisecond) + left - margin(left)
  end

  @doc "Half of the time: for a step that may well fail, and then leaves time for another way."
  @spec half(t) :: t
  def half(:infinity), do: in_ms(5_000)
  def half(deadline), do: deadline |> remaining() |> div(2) |> in_ms()

  @doc "The part of a timeout that is kept back for the answer's way."
  @spec margin(non_neg_integer) :: non_neg_integer
  def margin(timeout), do: timeout |> div(10) |> min(100)
end
