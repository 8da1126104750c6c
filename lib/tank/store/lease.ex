defmodule Tank.Store.Lease do
  @moduledoc """
  Leases. A lease has one holder at a time, for a limited time, and a fencing token (its epoch).

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, [:leaders, "billing"], holder: "node-1", ttl: 10_000)
      iex> {:error, {:held, %Tank.Store.Lease{holder: "node-1"}}} =
      ...>   Tank.Store.Lease.acquire(:tank, [:leaders, "billing"], holder: "node-2", ttl: 10_000)
      iex> {:ok, safe_ms} = Tank.Store.Lease.renew(lease)
      iex> safe_ms > 5_000 and safe_ms < 10_000
      true
      iex> Tank.Store.Lease.release(lease)
      :ok

  ## Promises

  A lease ends when its holder releases it, or when it was not renewed for `ttl` milliseconds. The leader measures this time
  with its monotonic clock, and ends the lease with a command in the log. It starts to count when a grant or a renewal is
  applied. It counts only time in which the holder could have renewed the lease, not time in which the leader was stopped,
  was cut off, or waited for its disk. A new leader gives every lease its whole time again. So a lease is never granted to
  another holder before its end, and may last longer than `ttl`.

  ## What a holder must do

  `Tank.Store.Lease.Keeper` does this for you, as a child of a supervisor.

  The store cannot always notify a holder in time that its lease is over, because the holder may be stopped or cut off. A
  holder protects itself in two ways. It needs both if it changes something outside of the store:

    * It acts only for as long as `renew/2` returned, measured by its own monotonic clock (after the grant: `remaining/1`).
      That is the `ttl` from before the request was sent, less 2 % for clocks of different speed. Renew three times
      per `ttl`.
    * It sends its `epoch` with each change of an external resource. The resource refuses epochs below the highest one that it
      has seen. Each grant of any lease in the store has a higher epoch. A renewal keeps the epoch.

  Entries that were put with a lease are deleted when it ends, all at one revision. Watches report them as `:expired` if the
  lease was not renewed. Renewing a lease changes no entry.

  A lease survives restarts of the store, and backups contain leases. In a store that was restored or forced into a new
  cluster, holders can neither renew such a lease nor write with it, because another holder may have acquired it in the lost
  history. The lease is not free before its whole time has passed, because its holder may rely on it. New epochs are higher
  than all earlier ones.
  """

  alias Tank.Store.{Call, Counters, Error, Native, Options, Path, Running, View}

  @enforce_keys [:name, :holder, :epoch, :ttl, :store]
  defstruct [:name, :holder, :epoch, :ttl, :store, :deadline]

  @typedoc "The name of a lease is a path; a string or an atom stands for a path with one component."
  @type name :: Path.t() | Path.component()

  @typedoc """
  `ttl` is in milliseconds. `deadline` is when the holder must stop unless it has renewed the lease, in milliseconds of
  `System.monotonic_time/1` of the node that acquired it; nil in leases that were read.
  """
  @type t :: %__MODULE__{
          name: Path.t(),
          holder: term,
          epoch: pos_integer,
          ttl: pos_integer,
          store: atom,
          deadline: integer | nil
        }

  @timeout 5_000

  # Two clocks differ by some hundred parts in a million, and the BEAM lets its monotonic clock run 1 % slow or fast
  # while it follows a system clock that was set.
  @margin_percent 2

  @doc """
  Acquires a lease that is free.

  `:holder` is any term that identifies the holder for others, of at most 1 KiB as external term format. `:ttl` is in
  milliseconds. `:timeout` is 5,000 by default.

  Errors: `{:held, lease}` with the lease that is held, even if the holder is the same; those of `Tank.Store.Error`. After a
  `:timeout` the lease may have been granted. So choose a unique holder, such as `{node(), make_ref()}`, and acquire again:
  `{:held, lease}` with your holder is your grant. Renew it before you rely on it.

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, "once", holder: self(), ttl: 10_000)
      iex> {lease.name, lease.holder == self(), lease.ttl}
      {["once"], true, 10_000}
      iex> Tank.Store.Lease.release(lease)
      :ok
  """
  @spec acquire(atom, name, holder: term, ttl: pos_integer, timeout: timeout) ::
          {:ok, t} | {:error, {:held, t} | Error.reason()}
  def acquire(store, name, opts) when is_atom(store) do
    opts = Options.with_defaults!(opts, [:holder, :ttl, timeout: @timeout])
    ttl = ttl!(opts)
    holder = Call.encode(Keyword.fetch!(opts, :holder))
    sent = now()

    with {:ok, key} <- key(name), {:ok, native} <- Call.fetch_to_write(store) do
      case request(store, :acquire_lease, &Native.acquire_lease(native, &1, key, holder, ttl, &2), opts[:timeout]) do
        {:ok, {:lease, lease}} -> {:ok, %{from_native(lease, path(name), store) | deadline: sent + safe_ms(ttl)}}
        {:error, {:held, lease}} -> {:error, {:held, from_native(lease, path(name), store)}}
        {:error, _reason} = error -> error
      end
    end
  end

  @doc """
  Gives a lease its whole time again. Returns the number of milliseconds from now for which the holder may safely act.

  This is 0 if the answer took too long. The lease is held nevertheless: renew it again before you act. You can also renew a
  lease that was read, or one that `acquire/3` returned in `{:held, lease}`.

  Errors: `:lease_ended` if the lease is over or has another holder; those of `Tank.Store.Error`. After a `:timeout` the lease
  may have been renewed: renew it again.

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, "renewed", holder: 1, ttl: 60_000)
      iex> {:ok, safe_ms} = Tank.Store.Lease.renew(lease)
      iex> safe_ms in 50_000..58_800
      true
      iex> Tank.Store.Lease.release(lease)
      :ok
      iex> Tank.Store.Lease.renew(lease)
      {:error, :lease_ended}
  """
  @spec renew(t, timeout: timeout) :: {:ok, non_neg_integer} | {:error, :lease_ended | Error.reason()}
  def renew(%__MODULE__{} = lease, opts \\ []) do
    opts = Options.with_defaults!(opts, timeout: @timeout)
    sent = now()

    with {:ok, key} <- key(lease.name), {:ok, native} <- Call.fetch_to_write(lease.store) do
      case request(lease.store, :renew_lease, &Native.renew_lease(native, &1, key, lease.epoch, &2), opts[:timeout]) do
        {:ok, {:lease, _renewed}} -> {:ok, max(sent + safe_ms(lease.ttl) - now(), 0)}
        {:error, _reason} = error -> error
      end
    end
  end

  @doc """
  Returns the number of milliseconds from now for which the holder may safely act after the grant, without a renewal. Call it
  on the node that acquired the lease. Returns 0 for a lease that was read.

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, "remaining", holder: 1, ttl: 60_000)
      iex> Tank.Store.Lease.remaining(lease) in 50_000..58_800
      true
      iex> Tank.Store.Lease.release(lease)
      :ok
  """
  @spec remaining(t) :: non_neg_integer
  def remaining(%__MODULE__{deadline: nil}), do: 0
  def remaining(%__MODULE__{deadline: deadline}), do: max(deadline - now(), 0)

  @doc """
  Ends a lease, and deletes the entries that were put with it. Returns `:ok` if the lease has already ended, even if another
  holder has it now.

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, "released", holder: 1, ttl: 60_000)
      iex> Tank.Store.Lease.release(lease)
      :ok
      iex> Tank.Store.Lease.release(lease)
      :ok
  """
  @spec release(t, timeout: timeout) :: :ok | {:error, Error.reason()}
  def release(%__MODULE__{} = lease, opts \\ []) do
    opts = Options.with_defaults!(opts, timeout: @timeout)

    with {:ok, key} <- key(lease.name), {:ok, native} <- Call.fetch_to_write(lease.store) do
      case request(lease.store, :release_lease, &Native.release_lease(native, &1, key, lease.epoch, &2), opts[:timeout]) do
        {:ok, _revision} -> :ok
        {:error, :lease_ended} -> :ok
        {:error, _reason} = error -> error
      end
    end
  end

  @doc """
  Returns the lease with this name. The read is linearizable; with `favor: :low_latency` it returns what this node knows.

  Returns `{:error, :not_found}` if the lease is free. `Tank.Store.Error` lists the other errors.

      iex> Tank.Store.Lease.read(:tank, "nobodys")
      {:error, :not_found}
      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, "read", holder: {:me, 1}, ttl: 60_000)
      iex> {:ok, same} = Tank.Store.Lease.read(:tank, "read")
      iex> {same.holder, same.epoch == lease.epoch}
      {{:me, 1}, true}
      iex> Tank.Store.Lease.release(lease)
      :ok
  """
  @spec read(atom, name, timeout: timeout, favor: :consistency | :low_latency) ::
          {:ok, t} | {:error, :not_found | Error.reason()}
  def read(store, name, opts \\ []) when is_atom(store) do
    opts = Options.with_defaults!(opts, timeout: @timeout, favor: :consistency)

    with {:ok, key} <- key(name), {:ok, native} <- Running.fetch(store) do
      native |> Native.read_lease(key, opts[:favor] == :low_latency) |> read_result(native, key, name, store, opts)
    end
  end

  @doc """
  Returns a page of the leases of a store, sorted by name. The read is linearizable; with `favor: :low_latency` it returns what
  this node knows.

  `:limit` is the size of the page, 100 by default. `:after` is a name: the page starts after it.

      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, [:listed, "a"], holder: 1, ttl: 60_000)
      iex> {:ok, leases} = Tank.Store.Lease.list(:tank, after: [:listed], limit: 1)
      iex> Enum.map(leases, & &1.name)
      [[:listed, "a"]]
      iex> Tank.Store.Lease.release(lease)
      :ok
  """
  @spec list(atom, limit: pos_integer, after: name, timeout: timeout, favor: :consistency | :low_latency) ::
          {:ok, [t]} | {:error, Error.reason()}
  def list(store, opts \\ []) when is_atom(store) do
    opts = Options.with_defaults!(opts, limit: 100, after: nil, timeout: @timeout, favor: :consistency)

    with {:ok, key} <- after_key(opts[:after]), {:ok, view} <- View.take(store, opts[:favor], opts[:timeout]) do
      {:ok, for(lease <- Native.list_leases(view, key, opts[:limit]), do: from_native(lease, name(lease), store))}
    end
  end

  defp after_key(nil), do: {:ok, nil}
  defp after_key(name), do: key(name)

  defp name(lease) do
    {:ok, path} = lease |> elem(0) |> Path.of_key()
    path
  end

  @doc """
  The bytes that the engine uses as the lease's name.

      iex> Tank.Store.Lease.key("a") == Tank.Store.Path.to_key(["a"])
      true
  """
  @spec key(name) :: {:ok, binary} | {:error, {:invalid_path, String.t()}}
  def key(name), do: Path.to_key(path(name))

  defp request(store, call, start, timeout),
    do: Counters.measure(store, :write, call, fn -> Call.request(start, timeout) end)

  defp read_result({:ok, lease}, _native, _key, name, store, _opts), do: {:ok, from_native(lease, path(name), store)}
  defp read_result(:not_found, _native, _key, _name, _store, _opts), do: {:error, :not_found}
  defp read_result({:error, reason}, _native, _key, _name, _store, _opts), do: {:error, Error.public(reason)}

  defp read_result(:wait, native, key, name, store, opts) do
    with :ok <- Call.await_readable(native, opts[:timeout]),
         do: native |> Native.read_lease(key, true) |> read_result(native, key, name, store, opts)
  end

  defp path(name) when is_list(name), do: name
  defp path(name), do: [name]

  defp from_native({_name, holder, epoch, ttl, _renewals}, path, store) do
    %__MODULE__{name: path, holder: :erlang.binary_to_term(holder), epoch: epoch, ttl: ttl, store: store}
  end

  @doc false
  @spec ttl!(keyword) :: pos_integer
  def ttl!(opts) do
    case Keyword.fetch!(opts, :ttl) do
      ttl when is_integer(ttl) and ttl in 1..0xFFFF_FFFF -> ttl
      other -> raise ArgumentError, "option :ttl must be milliseconds, from 1 to #{0xFFFF_FFFF}, got: #{inspect(other)}"
    end
  end

  defp safe_ms(ttl), do: ttl - div(ttl * @margin_percent + 99, 100)

  defp now, do: System.monotonic_time(:millisecond)
end
