defmodule Tank.Store.FlakySource do
  @moduledoc """
  The store as a syncer's source, which fails as often as `rate/1` says: lists that fail, watches that do not start, and
  watches that end with what they had to tell.
  """

  @behaviour Tank.Store.Syncer.Source

  alias Tank.Store.Syncer.Source.Store

  @doc "How many of a thousand calls fail, for the whole VM."
  def rate(per_mille), do: :persistent_term.put(__MODULE__, per_mille)

  @impl true
  def list(client, options), do: if(fails?(), do: {:error, :injected}, else: Store.list(client, options))

  @impl true
  def watch(client, options, revision),
    do: if(fails?(), do: {:error, :injected}, else: Store.watch(client, options, revision))

  @impl true
  def read(watch, message) do
    with {:changes, [_ | _]} = changes <- Store.read(watch, message),
         do: if(fails?(), do: {:ended, :injected}, else: changes)
  end

  @impl true
  def cancel(watch), do: Store.cancel(watch)

  defp fails?, do: :rand.uniform(1_000) <= :persistent_term.get(__MODULE__, 0)
end
