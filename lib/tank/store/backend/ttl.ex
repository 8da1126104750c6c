defmodule Tank.Store.Backend.Ttl do
  @moduledoc false
  # The leases behind the ttl of keys.
  #
  # Each write with a ttl has a lease of its own: one that another write goes with must not end with this one. A lease
  # whose entry was written again would still be there until its time is over, and a key that is kept alive by writing
  # it again and again would have hundreds. So the writer that took its place gives it back.
  #
  # An entry tells the epoch of its lease, and a lease is given back by its name. So a key's leases have one of a few
  # names, its slots; two of them are in use while a write takes the place of another. Writers of one key at the same
  # moment may need more of them. When none is free the name is one that nobody finds again, and its lease ends when its
  # time is over. Slots go by a hash: keys that share them are in each other's way, but never end what is another's.

  alias Tank.Store.{Backend, Lease, Path, Tree}

  @slots ["0", "1", "2", "3"]

  @doc "A lease for a write to `path`."
  @spec grant(Backend.t(), Path.t(), pos_integer) :: {:ok, Lease.t()} | {:error, term}
  def grant(%{store: store}, path, ttl_s) do
    names = slots(path) |> Enum.filter(&(Lease.read(store, &1, favor: :low_latency) == {:error, :not_found}))
    grant_first(store, names ++ [["ttl", unique()]], ttl_s * 1_000)
  end

  @doc """
  The lease that the entry at `path` goes with, if it can be found; nil otherwise. It may be out of date, and that is
  fine: who has written the entry after this may release it, since no entry goes with an old lease again.
  """
  @spec of_entry(Backend.t(), Path.t()) :: Lease.t() | nil
  def of_entry(%{store: store}, path) do
    with {:ok, %{lease: epoch}} when epoch > 0 <- Tree.get_entry(store, path, favor: :low_latency) do
      Enum.find_value(slots(path), fn name ->
        case Lease.read(store, name, favor: :low_latency) do
          {:ok, %{epoch: ^epoch} = lease} -> lease
          _free_or_of_another -> nil
        end
      end)
    else
      _no_entry_or_without -> nil
    end
  end

  @doc "Gives a lease back. One that cannot be released now goes when its time is over."
  @spec release(Lease.t() | nil) :: :ok
  def release(nil), do: :ok

  def release(lease) do
    _released? = Lease.release(lease, timeout: 1_000)
    :ok
  end

  @doc "The names that leases of a path may have."
  @spec slots(Path.t()) :: [Lease.name()]
  def slots(path), do: for(slot <- @slots, do: ["ttl", "#{:erlang.phash2(path, 0x1_0000_0000)}", slot])

  defp grant_first(store, [name | others], ttl_ms) do
    case Lease.acquire(store, name, holder: :ttl, ttl: ttl_ms) do
      {:ok, lease} -> {:ok, lease}
      {:error, {:held, _lease}} when others != [] -> grant_first(store, others, ttl_ms)
      {:error, reason} -> {:error, reason}
    end
  end

  # No two nodes have the same name, and no two lives of one the same time.
  defp unique, do: inspect({node(), System.os_time(), make_ref()})
end
