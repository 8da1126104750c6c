defmodule Tank.Store.Lease.Keeper.Renewal do
  @moduledoc false
  # Asks the store for a lease, or for its renewal, in a process linked to the keeper's, which is sent `{ref, answer}`:
  # `{:ok, lease}`, with the time until when its holder may go on, or why not.

  alias Tank.Store.Lease

  @doc "Renews `held`, or acquires the lease when that is nil."
  @spec start(atom, Lease.name(), term, pos_integer, Lease.t() | nil) :: reference
  def start(store, name, holder, ttl, held) do
    Task.async(fn -> ask(store, name, holder, ttl, held) end).ref
  end

  # An answer that comes after the holder's time is of no use. The rest of a third is left to another try.
  defp ask(_store, _name, _holder, ttl, %Lease{} = held),
    do: renew(held, max(min(div(ttl, 3), Lease.remaining(held)), 1))

  # Acquiring is a write: while another one holds the lease, this node's memory says so, as a rule.
  defp ask(store, name, holder, ttl, nil) do
    case Lease.read(store, name, favor: :low_latency) do
      {:ok, %{holder: other}} when other !== holder -> {:error, :held}
      _mine_or_free -> acquire(store, name, holder, ttl)
    end
  end

  defp acquire(store, name, holder, ttl) do
    case Lease.acquire(store, name, holder: holder, ttl: ttl, timeout: ttl) do
      # The answer to an earlier try was lost.
      {:error, {:held, %{holder: ^holder} = lease}} -> renew(lease, ttl)
      answer -> answer
    end
  end

  defp renew(lease, timeout) do
    with {:ok, safe_ms} <- Lease.renew(lease, timeout: timeout),
         do: {:ok, %{lease | deadline: System.monotonic_time(:millisecond) + safe_ms}}
  end
end
