defmodule Tank.Store.Reopening do
  @moduledoc false
  # When a store that ran, and lost its disk, is opened anew: how soon, and for how long that is tried.
  #
  # A disk that is full or fails for some seconds should not end the store, and its supervisor allows few restarts. So the
  # server waits between two tries instead of failing, for half a minute; then the supervisor gives up as always. A store
  # that never ran says at once why it cannot be opened, and so does one whose trouble is not the disk's.
  #
  # It outlives the server: it is made with the store's instance.

  alias Tank.Store.Error

  @type t :: :atomics.atomics_ref()

  # A disk that was in trouble for so long is not waited for any more.
  @patience_ms 30_000
  # A store that ran for so long was in no trouble before.
  @calm_ms 10_000
  # Between failures of a store that opens and fails at its first writes: three of them take more than the ten seconds in
  # which its supervisor allows three restarts.
  @pause_ms 5_500
  # Between two tries to open.
  @try_again_ms 100
  @try_again_max_ms 2_000

  # Times are milliseconds since the reopening was made, and at least 1: 0 is never.
  @made_at 1
  @opened_at 2
  @trouble_since 3
  @failures 4

  @spec new :: t
  def new do
    reopening = :atomics.new(4, signed: true)
    :atomics.put(reopening, @made_at, System.monotonic_time(:millisecond))
    reopening
  end

  @doc "Notes that the store is open."
  @spec opened(t) :: :ok
  def opened(reopening), do: :atomics.put(reopening, @opened_at, now(reopening))

  @doc "Notes that the open store failed."
  @spec failed(t, Error.t()) :: :ok
  def failed(reopening, error) do
    if disk?(error) do
      note_trouble(reopening)
      :atomics.add(reopening, @failures, 1)
    end

    :ok
  end

  @doc "How long to wait before the store is opened: milliseconds."
  @spec pause(t) :: non_neg_integer
  def pause(reopening) do
    if :atomics.get(reopening, @failures) > 1 and in_time?(reopening), do: @pause_ms, else: 0
  end

  @doc "Whether, and after how many milliseconds, to try again when the store could not be opened for the `tries`th time."
  @spec again(t, Error.t(), pos_integer) :: {:after, pos_integer} | :no
  def again(reopening, error, tries) do
    ran? = :atomics.get(reopening, @opened_at) != 0

    if ran? and disk?(error) do
      note_trouble(reopening)
      if in_time?(reopening), do: {:after, min(@try_again_ms * tries * tries, @try_again_max_ms)}, else: :no
    else
      :no
    end
  end

  defp disk?(%Error{reason: :disk_full}), do: true
  defp disk?(%Error{reason: {:storage, _why}}), do: true
  defp disk?(_error), do: false

  # It goes on with the trouble there was, or begins anew.
  defp note_trouble(reopening) do
    [opened_at, since] = for slot <- [@opened_at, @trouble_since], do: :atomics.get(reopening, slot)

    if since == 0 or (since <= opened_at and now(reopening) - opened_at >= @calm_ms) do
      :atomics.put(reopening, @trouble_since, now(reopening))
      :atomics.put(reopening, @failures, 0)
    end
  end

  defp in_time?(reopening), do: now(reopening) - :atomics.get(reopening, @trouble_since) < @patience_ms

  defp now(reopening), do: System.monotonic_time(:millisecond) - :atomics.get(reopening, @made_at) + 1
end
