defmodule Fleet.Limits do
  # Mirrors the limits into the memory of each node, as an agent would into its kernel.
  @behaviour Tank.Store.Syncer

  alias Tank.Store.Syncer.Update

  @impl true
  def on_status_updated(status), do: Application.put_env(:fleet, :limits_status, status)

  @impl true
  def on_updates(updates) do
    limits = Enum.reduce(updates, all(), &apply_update/2)
    Application.put_env(:fleet, :limits, limits)
  end

  def all, do: Application.get_env(:fleet, :limits, %{})

  defp apply_update(%Update{type: :deleted, kv: kv}, limits), do: Map.delete(limits, List.last(kv.key))
  defp apply_update(%Update{kv: kv}, limits), do: Map.put(limits, List.last(kv.key), kv.value)
end
