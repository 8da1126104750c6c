defmodule Tank.Store.Formation.Finish do
  @moduledoc false
  # The last step of forming, while the store serves already: the file FORMED says that this member has its place. From then
  # on the store is opened as what it is, whatever other nodes hold.
  #
  # A voter has its place; so has a learner that shall be one. A member that ended between being taken in and its promotion
  # is promoted here.

  require Logger

  alias Tank.Store.{Deadline, Error, LongCall, Members}

  @again_ms 1_000
  @promote_timeout 5_000

  @doc "Does it in a process that ends with the calling one, which owns the store."
  @spec start_link(Tank.Store.Native.store(), Tank.Store.Server.config()) :: pid
  def start_link(store, config), do: spawn_link(fn -> finish(store, config) end)

  defp finish(store, config) do
    case place(store, config.formation.role) do
      :has ->
        with {:error, reason} <- LongCall.mark_formed(config.data_dir) do
          Logger.error("store #{inspect(config.store_id)}: #{Exception.message(Error.from_native(reason))}")
        end

      {:promote, member_id} ->
        Members.change(store, {:promote, member_id}, Deadline.in_ms(@promote_timeout))
        again(store, config)

      :unknown ->
        again(store, config)

      :closed ->
        :ok
    end
  end

  defp place(store, role) do
    with {:ok, cluster} <- Members.of(store) do
      case Enum.find(cluster.members, &(&1.id == cluster.member_id)) do
        nil -> :unknown
        %{voter: voter?} when voter? or role == :learner -> :has
        %{id: id} -> {:promote, id}
      end
    else
      {:error, _reason} -> :closed
    end
  end

  defp again(store, config), do: receive(after: (@again_ms -> finish(store, config)))
end
