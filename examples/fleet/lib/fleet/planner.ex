defmodule Fleet.Planner do
  # One node at a time plans. Which one, and with which epoch, is in the application's environment of each node.

  def lead({:acquired, lease}), do: Application.put_env(:fleet, :planner_epoch, lease.epoch)
  def lead({:lost, _lease, _reason}), do: Application.delete_env(:fleet, :planner_epoch)
end
