defmodule Tank.Store.Logs do
  @moduledoc false
  # Takes what the Rust library logs, and gives it to `Logger`. The rate is limited over there (native/tank_nif/src/logs.rs).

  use GenServer

  alias Tank.Store.{Log, Native}

  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(nil) do
    :ok = Native.receive_logs()
    {:ok, nil}
  end

  @impl true
  def handle_info({:tank_log, level, store, target, text, left_out}, state) do
    :ok = Log.log(store_id(store), level, target, message(store, text, left_out))
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp message(store, text, 0), do: prefix(store) <> text
  defp message(store, text, left_out), do: message(store, text, 0) <> " (#{left_out} more of these were left out)"

  defp prefix(nil), do: "tank_store: "
  defp prefix(store), do: "store #{inspect(store_id(store))}: "

  # Of a store of this VM, so there is such an atom.
  defp store_id(nil), do: nil
  defp store_id(store), do: String.to_atom(store)
end
