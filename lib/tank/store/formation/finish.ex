defmodule Tank.Store.Formation.Finish do
  @moduledoc false
  # The last step of forming, while the store serves already: the file FORMED says that this member has its place. From then
  # on the store is opened as what it is, whatever other nodes hold.
  #
  # A member has its place once it knows that it is one. A learner that is to vote sees to that itself
  # (native/tank_engine/src/engine/promotion.rs).

  alias Tank.Store.{Error, Log, LongCall, Members}

  @again_ms 1_000

  @doc "Does it in a process that ends with the calling one, which owns the store."
  @spec start_link(Tank.Store.Native.store(), Tank.Store.Server.config()) :: pid
  def start_link(store, config), do: spawn_link(fn -> finish(store, config) end)

  defp finish(store, config) do
    case Members.of(store) do
      {:ok, cluster} -> if member?(cluster), do: mark(config), else: again(store, config)
      {:error, _closed} -> :ok
    end
  end

  defp member?(cluster), do: Enum.any?(cluster.members, &(&1.id == cluster.member_id))

  defp mark(config) do
    with {:error, reason} <- LongCall.mark_formed(config.data_dir),
         do: Log.error(config.store_id, :formation, text(config.store_id, Error.from_native(reason)))
  end

  defp text(store_id, error), do: "store #{inspect(store_id)}: #{Exception.message(error)}"

  defp again(store, config), do: receive(after: (@again_ms -> finish(store, config)))
end
