defmodule Tank.Store.Syncer.Source do
  @moduledoc false
  # Where a follower reads: the store; and, in tests, the store with failures of all kinds.

  alias Tank.Store.Backend
  alias Tank.Store.Backend.ListOptions
  alias Tank.Store.Syncer.{Feed, Item}

  @doc "All that the options take, and the revision behind which a watch has what follows."
  @callback list(Backend.t(), ListOptions.t()) :: {:ok, [Item.t()], revision :: String.t()} | {:error, term}
  @doc "Starts to send what changes to the calling process."
  @callback watch(Backend.t(), ListOptions.t(), revision :: String.t()) :: {:ok, watch :: term} | {:error, term}
  @doc "What a message says of a watch: also that there is no quorum, so that nothing new will come."
  @callback read(watch :: term, message :: term) :: {:changes, [Feed.change()]} | {:ended, term} | :lost | :unknown
  @callback cancel(watch :: term) :: :ok
end

defmodule Tank.Store.Syncer.Source.Store do
  @moduledoc false
  # The store itself: a watch of it, and what its member says of the quorum.

  @behaviour Tank.Store.Syncer.Source

  alias Tank.Store.Backend.{Event, Read, Revision, Watcher}
  alias Tank.Store.Syncer.Item
  alias Tank.Store.{Cluster, KVPair, Watch}

  @impl true
  def list(client, options) do
    with {:ok, pairs, revision} <- Read.list(client, options), do: {:ok, Enum.map(pairs, &item/1), revision}
  end

  @impl true
  def watch(client, options, revision) do
    with {:ok, revision} <- Revision.parse(revision), :ok <- Cluster.subscribe(client.store) do
      case Watcher.watch(client, options, {:after, revision}) do
        {:ok, watch} ->
          {:ok, {watch, client, options}}

        error ->
          unsubscribe(client.store)
          error
      end
    end
  end

  @impl true
  def read({%Watch{ref: ref}, client, options}, {:store_watch, ref, message}) do
    with {:events, events} <- Watcher.read(client, options, message), do: {:changes, Enum.map(events, &change/1)}
  end

  def read({_watch, %{store: store}, _options}, {:store_cluster, store, {:quorum, :lost}}), do: :lost
  def read(_watch, _message), do: :unknown

  @impl true
  def cancel({watch, client, _options}) do
    unsubscribe(client.store)
    Watch.cancel(watch)
  end

  # What was told of the quorum of then must not end a watch of later.
  defp unsubscribe(store) do
    _gone? = Cluster.unsubscribe(store)
    forget(store)
  end

  defp forget(store) do
    receive do
      {:store_cluster, ^store, _event} -> forget(store)
    after
      0 -> :ok
    end
  end

  defp item({:unparsed, pair, raw}), do: %Item{kv: pair, unparsed: {:value, raw}}
  defp item(pair), do: %Item{kv: pair}

  defp change(%Event{type: :deleted, old: %KVPair{key: key}}), do: {:delete, key}
  defp change(%Event{type: :error, new: pair, raw: raw}), do: {:put, item({:unparsed, pair, raw})}
  defp change(%Event{new: pair}), do: {:put, item(pair)}
end
