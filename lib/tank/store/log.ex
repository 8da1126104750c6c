defmodule Tank.Store.Log do
  @moduledoc false
  # What this library logs: with the store, the member and the part of the library as metadata, so that it can be filtered.

  require Logger

  # One about what happens thousands of times a second is logged as often.
  @limited_ms 10_000

  @type target ::
          :opening
          | :closing
          | :disk
          | :alarm
          | :engine
          | :cluster
          | :members
          | :formation
          | :overload
          | :projection
          | :dashboard

  @doc "Logs `text`, which begins with the store, unless it is nil."
  @spec log(atom | nil, Logger.level(), target | String.t(), String.t() | (() -> String.t())) :: :ok
  def log(store_id, level, target, text) do
    Logger.log(level, text, store_id: store_id, member: node(), target: target)
  end

  @doc "As `log/4`, of what came with a reason."
  @spec error(atom, target, String.t()) :: :ok
  def error(store_id, target, text), do: log(store_id, :error, target, text)

  @doc "Whether it is time to log something again that was logged at `last`, in milliseconds of monotonic time."
  @spec due?(integer, integer) :: boolean
  def due?(last, now), do: last == 0 or now - last >= @limited_ms
end
