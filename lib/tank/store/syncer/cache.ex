defmodule Tank.Store.Syncer.Cache do
  @moduledoc false
  # The keys of one type that the consumer has, or will have when all that waits for it was delivered, each with its
  # revision. It decides what is an update, and of which type.
  #
  # Only whether revisions are equal counts, not which is larger: a store that was restored from a backup counts anew.

  alias Tank.Store.KVPair
  alias Tank.Store.Syncer.{Item, Update}

  @type t :: %{optional(Tank.Store.Backend.Key.t()) => String.t()}
  @type update :: {Update.t(), unparsed :: {:value, term} | nil}

  @spec new :: t
  def new, do: %{}

  @doc "What a pair changes, if anything: one that was seen at this revision changes nothing."
  @spec put(t, Item.t()) :: {[update], t}
  def put(cache, %Item{kv: %KVPair{key: key, revision: revision} = kv, unparsed: unparsed}) do
    case cache do
      %{^key => ^revision} -> {[], cache}
      %{^key => _other} -> {[{%Update{kv: kv, type: :updated}, unparsed}], Map.put(cache, key, revision)}
      _unknown -> {[{%Update{kv: kv, type: :new}, unparsed}], Map.put(cache, key, revision)}
    end
  end

  @spec delete(t, Tank.Store.Backend.Key.t()) :: {[update], t}
  def delete(cache, key) do
    if is_map_key(cache, key), do: {[{deleted(key), nil}], Map.delete(cache, key)}, else: {[], cache}
  end

  @doc """
  What leads from the cache to a full list. Deletions come first: what moves from one key to another, such as an address,
  is free before it is taken.
  """
  @spec relist(t, [Item.t()]) :: {[update], t}
  def relist(cache, items) do
    listed = MapSet.new(items, & &1.kv.key)
    gone = for {key, _revision} <- cache, not MapSet.member?(listed, key), do: key
    cache = Map.drop(cache, gone)

    {changed, cache} = Enum.flat_map_reduce(items, cache, fn item, cache -> put(cache, item) end)
    {for(key <- gone, do: {deleted(key), nil}) ++ changed, cache}
  end

  @doc "The update that tells of a deletion."
  @spec deleted(Tank.Store.Backend.Key.t()) :: Update.t()
  def deleted(key), do: %Update{kv: %KVPair{key: key}, type: :deleted}
end
