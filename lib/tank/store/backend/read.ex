defmodule Tank.Store.Backend.Read do
  @moduledoc false
  # Entries of the store as key-value pairs.

  alias Tank.Store.{Backend, Change, Entry, KVPair, Position, Since, Tree}
  alias Tank.Store.Backend.{Event, Failure, ListOptions, Revision}

  @type unparsed :: {:unparsed, KVPair.t(), raw :: term}

  @doc "The pair at a key, nil when there is none; `revision` nil is now."
  @spec get(Backend.t(), [String.t()], Position.t() | nil) :: {:ok, KVPair.t() | nil} | {:error, Exception.t()}
  def get(client, key, revision) do
    case Tree.get_entry(client.store, client.prefix ++ key, at(revision)) do
      {:ok, entry} -> {:ok, pair(client, entry)}
      {:error, :not_found} -> {:ok, nil}
      {:error, reason} -> {:error, Failure.new(reason, key)}
    end
  end

  @doc "The pairs that the options take, those that do not parse marked, and the revision that they are of."
  @spec list(Backend.t(), ListOptions.t()) :: {:ok, [KVPair.t() | unparsed], Revision.t()} | {:error, Exception.t()}
  def list(client, options) do
    base = client.prefix ++ ListOptions.base(options)

    with {:ok, past} <- Revision.parse(options.revision),
         {:ok, entries, position} <- entries(client.store, base, past) do
      pairs = for entry <- entries, pair <- read(client, options, entry), do: pair
      {:ok, pairs, Revision.from_position(position)}
    else
      {:error, reason} when is_exception(reason) -> {:error, reason}
      {:error, reason} -> {:error, Failure.new(reason, ListOptions.base(options))}
    end
  end

  @doc "The events of changes that the options take."
  @spec events(Backend.t(), ListOptions.t(), [Change.t()]) :: [Event.t()]
  def events(client, options, changes) do
    for %Change{path: path} = change <- changes,
        key = below(client.prefix, path),
        ListOptions.match?(options, key),
        event <- event(options, key, change),
        do: event
  end

  @doc "An entry as it is stored, whatever its value."
  @spec pair(Backend.t(), Entry.t()) :: KVPair.t()
  def pair(client, entry) do
    %KVPair{key: below(client.prefix, entry.path), value: entry.value, revision: Revision.from_integer(entry.revision)}
  end

  @doc "Whether the options take an entry, and its pair then: a list of one or none."
  @spec read(Backend.t(), ListOptions.t(), Entry.t()) :: [KVPair.t() | unparsed]
  def read(client, options, entry) do
    %KVPair{key: key, value: raw} = pair = pair(client, entry)

    with true <- ListOptions.match?(options, key), {:ok, value} <- ListOptions.read(options, key, raw) do
      [%{pair | value: value}]
    else
      :error -> [{:unparsed, %{pair | value: nil}, raw}]
      _of_another_kind -> []
    end
  end

  # The path itself and all below it, of one revision.
  defp entries(store, base, nil) do
    # Known before the list is made, it is no newer than that.
    with {:ok, history} <- Tree.history(store, favor: :low_latency),
         {:ok, {:ok, entries, revision}} <- Tree.transaction(store, &read_all(&1, base)) do
      {:ok, entries, {history, revision}}
    else
      {:ok, error} -> error
      error -> error
    end
  end

  # The store lists the present. What has changed since is looked up one by one, as it was.
  defp entries(store, base, past) do
    with {:ok, now, {_history, present}} <- entries(store, base, nil),
         :ok <- if(Position.revision(past) <= present, do: :ok, else: {:error, {:future_revision, present}}),
         {:ok, changed} <- changed_since(store, base, past),
         {:ok, then} <- entries_at(store, changed, past) do
      entries = Enum.reject(now, &MapSet.member?(changed, &1.path)) ++ then
      {:ok, Enum.sort_by(entries, & &1.path), past}
    end
  end

  defp read_all(tx, base) do
    with {:ok, below, revision} <- Tree.list(tx, base, depth: :infinity),
         {:ok, own} <- own_entry(tx, base),
         do: {:ok, own ++ below, revision}
  end

  defp own_entry(tx, base) do
    case Tree.get_entry(tx, base) do
      {:ok, entry} -> {:ok, [entry]}
      {:error, :not_found} -> {:ok, []}
      error -> error
    end
  end

  defp changed_since(store, base, past) do
    case Since.list(store, base, past) do
      :unchanged -> {:ok, MapSet.new()}
      {:ok, changes, _revision} -> {:ok, MapSet.new(changes, & &1.path)}
      error -> error
    end
  end

  defp entries_at(store, paths, past) do
    Enum.reduce_while(paths, {:ok, []}, fn path, {:ok, entries} ->
      case Tree.get_entry(store, path, revision: past) do
        {:ok, entry} -> {:cont, {:ok, [entry | entries]}}
        {:error, :not_found} -> {:cont, {:ok, entries}}
        error -> {:halt, error}
      end
    end)
  end

  defp at(nil), do: []
  defp at(revision), do: [revision: revision]

  defp event(options, key, %Change{type: type} = change) when type in [:deleted, :expired] do
    case old(options, key, change) do
      :ignore -> []
      old -> [%Event{type: :deleted, old: old, revision: Revision.from_integer(change.revision)}]
    end
  end

  defp event(options, key, change) do
    revision = Revision.from_integer(change.revision)

    case ListOptions.read(options, key, change.value) do
      {:ok, value} ->
        new = %KVPair{key: key, value: value, revision: revision}
        old = if change.type == :updated, do: old(options, key, change)

        if old in [nil, :ignore],
          do: [%Event{type: :added, new: new, revision: revision}],
          else: [%Event{type: :modified, new: new, old: old, revision: revision}]

      :error ->
        [Event.unparsed(%KVPair{key: key, revision: revision}, change.value)]

      # It was of this kind, and now is of another.
      :ignore ->
        if change.type == :updated, do: event(options, key, %{change | type: :deleted}), else: []
    end
  end

  # What a change replaced; its value is nil when it did not parse. A change does not tell its revision.
  defp old(options, key, %Change{previous: previous}) do
    case ListOptions.read(options, key, previous) do
      {:ok, value} -> %KVPair{key: key, value: value}
      :error -> %KVPair{key: key}
      :ignore -> :ignore
    end
  end

  defp below(prefix, path), do: Enum.drop(path, length(prefix))
end
