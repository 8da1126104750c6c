defmodule Tank.Store.Lease.Keeper.Notifier do
  @moduledoc false
  # Calls a keeper's handler with one event after the other, in a process linked to the keeper's: neither waits for the other.

  alias Tank.Store.Callback

  @spec start_link(Callback.t()) :: pid
  def start_link(handler), do: spawn_link(fn -> loop(handler) end)

  @doc "Hands an event over."
  @spec tell(pid | nil, term) :: :ok
  def tell(nil, _event), do: :ok

  def tell(pid, event) do
    send(pid, {:event, event})
    :ok
  end

  @doc "Waits until the handler has returned from all events."
  @spec await_idle(pid | nil, timeout) :: :ok | {:error, :timeout}
  def await_idle(nil, _timeout), do: :ok

  def await_idle(pid, timeout) do
    monitor = Process.monitor(pid)
    send(pid, {:tell_when_idle, self(), monitor})

    receive do
      {^monitor, :idle} -> demonitor(monitor, :ok)
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      timeout -> demonitor(monitor, {:error, :timeout})
    end
  end

  defp demonitor(monitor, result) do
    Process.demonitor(monitor, [:flush])
    result
  end

  defp loop(handler) do
    receive do
      {:event, event} -> Callback.run(handler, event)
      {:tell_when_idle, pid, monitor} -> send(pid, {monitor, :idle})
    end

    loop(handler)
  end
end
