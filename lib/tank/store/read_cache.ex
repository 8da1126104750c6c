defmodule Tank.Store.ReadCache do
  @moduledoc false
  # The values that are read again and again, each a row of an ETS table, which belongs to one open store. From there a
  # value is copied in a third of the time that it takes the library to find and copy it. Readers fill the table;
  # writers know nothing of it.
  #
  # A row `{id, value, slot, revision}` says since when its value is what the store holds. In fifty nanoseconds the engine
  # tells whether that is still so: native/tank_engine/src/last_changed.rs. A row of which it is not goes when its entry is
  # read again, or else when the store's server sweeps. A store whose memory has a bound keeps nothing here: see
  # native/tank_nif/src/term_cache.
  #
  # An id is what a caller names the entry by: a path, or a pod's name, which is none. Either has rows of its own.

  alias Tank.Store.Native

  @type table :: :ets.tid()
  @type id :: [atom | String.t()] | atom | String.t()

  @doc "An empty cache. It goes with the calling process, or with `delete/1`."
  @spec new :: table
  # One lock, which readers do not contend for: a lock for each part of the table would cost each read a quarter more,
  # and rows are written seldom.
  def new, do: :ets.new(__MODULE__, [:set, :public, read_concurrency: true])

  @doc "Has it deleted: not by the caller, since that takes a tenth of a second for a hundred thousand rows."
  @spec delete(table) :: :ok
  def delete(table) do
    spawn(fn -> delete_now(table) end)
    :ok
  end

  defp delete_now(table) do
    :ets.delete(table)
  rescue
    # It went with its process.
    ArgumentError -> :ok
  end

  @typedoc "A row's value, and since when it is what the store holds."
  @type kept :: {value :: term, Native.slot(), revision :: non_neg_integer}

  @doc """
  The value of a row, if a linearizable read would find it now. `{:wait, kept}` when it would find it, or nothing else,
  once this member has asked: see `still?/2`.
  """
  @spec fetch(table, Native.store(), id) :: {:ok, term} | {:wait, kept} | :error
  def fetch(table, store, id) do
    case :ets.lookup(table, id) do
      [{_id, value, slot, revision}] -> judged(Native.is_current(store, slot, revision), value, slot, revision)
      [] -> :error
    end
  rescue
    # The store was closed a moment ago.
    ArgumentError -> :error
  end

  defp judged(true, value, _slot, _revision), do: {:ok, value}
  defp judged(false, _value, _slot, _revision), do: :error
  defp judged(:wait, value, slot, revision), do: {:wait, {value, slot, revision}}

  @doc "Whether what was kept is what this member holds."
  @spec still?(Native.store(), kept) :: boolean
  def still?(store, {_value, slot, revision}), do: Native.is_current_here(store, slot, revision)

  @doc "The value of a row, if it is what this member holds."
  @spec fetch_here(table, Native.store(), id) :: {:ok, term} | :error
  def fetch_here(table, store, id) do
    case :ets.lookup(table, id) do
      [{_id, value, slot, revision}] -> if Native.is_current_here(store, slot, revision), do: {:ok, value}, else: :error
      [] -> :error
    end
  rescue
    ArgumentError -> :error
  end

  @doc "Keeps a value as the library gave it."
  @spec keep(table, id, term, Native.slot(), non_neg_integer) :: :ok
  def keep(table, id, value, slot, revision) do
    :ets.insert(table, {own(id), value, slot, revision})
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc "Removes the rows whose values are no longer what this member holds, in a process of its own."
  @spec sweep(table, Native.store()) :: pid
  def sweep(table, store), do: spawn(fn -> remove_outdated(table, store) end)

  @doc "Bytes of memory that it takes up."
  @spec bytes(table) :: non_neg_integer
  def bytes(table) do
    case :ets.info(table, :memory) do
      :undefined -> 0
      words -> words * :erlang.system_info(:wordsize)
    end
  end

  defp remove_outdated(table, store) do
    :ets.safe_fixtable(table, true)
    remove_outdated(:ets.select(table, [{{:"$1", :_, :"$2", :"$3"}, [], [:"$$"]}], 1_000), table, store)
  rescue
    ArgumentError -> :ok
  end

  defp remove_outdated(:"$end_of_table", _table, _store), do: :ok

  defp remove_outdated({rows, more}, table, store) do
    for [id, slot, revision] <- rows, not Native.is_current_here(store, slot, revision) do
      # It may have been kept anew meanwhile.
      :ets.match_delete(table, {id, :_, slot, revision})
    end

    remove_outdated(:ets.select(more), table, store)
  end

  # A name may be a part of a large binary, which must not stay with it.
  defp own(id) when is_binary(id), do: :binary.copy(id)
  defp own([_component | _rest] = path), do: Enum.map(path, &own/1)
  defp own(id), do: id
end
