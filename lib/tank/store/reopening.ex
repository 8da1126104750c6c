defmodule Tank.Store.Reopening do
  @moduledoc false
  # When a store that ran and whose disk is in trouble is opened again.
  #
  # A disk that is full or fails should not end the store, nor the tree that the user has it in. So the server tries again
  # for as long as it takes, soon at first. A store that never ran says at once why it cannot be opened, and a store stops
  # whose trouble is not the disk's. While its directory is lost any trouble is: it may be removed, or put back, just then.
  #
  # It outlives the server, which may be restarted meanwhile: it is made with the store's instance.

  alias Tank.Store.Error

  @type t :: :atomics.atomics_ref()

  # A store that ran for so long was in no trouble before.
  @calm_ms 10_000
  # Between two tries: a disk that takes writes again is noticed within the longest of them.
  @try_again_ms 100
  @try_again_max_ms 2_000

  # Whether the store was ever open. When it was opened, in milliseconds since the reopening was made; 0 while it is not
  # open. How many times in a row it failed. Whether its directory is lost.
  @ran 1
  @opened_at 2
  @failures 3
  @made_at 4
  @lost 5

  @spec new :: t
  def new do
    reopening = :atomics.new(5, signed: true)
    :atomics.put(reopening, @made_at, System.monotonic_time(:millisecond))
    reopening
  end

  @doc "Notes that the store is open."
  @spec opened(t) :: :ok
  def opened(reopening) do
    :atomics.put(reopening, @ran, 1)
    :atomics.put(reopening, @lost, 0)
    :atomics.put(reopening, @opened_at, now(reopening))
  end

  @doc "Whether the store was ever open."
  @spec ran?(t) :: boolean
  def ran?(reopening), do: :atomics.get(reopening, @ran) == 1

  @doc """
  Notes that the store failed or could not be opened. Whether to open it again, and after how many milliseconds.
  """
  @spec failed(t, Error.t()) :: {:after, pos_integer} | :no
  def failed(reopening, error) do
    if match?(%Error{reason: {:lost, _what}}, error), do: :atomics.put(reopening, @lost, 1)

    if ran?(reopening) and (of_the_disk?(error) or :atomics.get(reopening, @lost) == 1) do
      if calm?(reopening), do: :atomics.put(reopening, @failures, 0)
      :atomics.put(reopening, @opened_at, 0)
      failures = :atomics.add_get(reopening, @failures, 1)
      {:after, min(@try_again_ms * failures * failures, @try_again_max_ms)}
    else
      :no
    end
  end

  # As native/tank_engine/src/error.rs, `is_of_the_disk`. And the directory is locked for a moment longer when the failed
  # engine could not be closed at once.
  defp of_the_disk?(%Error{reason: :disk_full}), do: true
  defp of_the_disk?(%Error{reason: {:locked, _path}, details: %{by: :this_vm}}), do: true
  defp of_the_disk?(%Error{reason: {kind, _what}}), do: kind in [:storage, :permission_denied, :data_dir, :lost]
  defp of_the_disk?(_error), do: false

  defp calm?(reopening) do
    opened_at = :atomics.get(reopening, @opened_at)
    opened_at > 0 and now(reopening) - opened_at >= @calm_ms
  end

  # At least 1: 0 is never.
  defp now(reopening), do: System.monotonic_time(:millisecond) - :atomics.get(reopening, @made_at) + 1
end
