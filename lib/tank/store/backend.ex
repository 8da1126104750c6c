defmodule Tank.Store.Backend do
  @moduledoc """
  A datastore client for key-value pairs, in the shape of Calico's backend client, for controllers that were written for that.

      iex> alias Tank.Store.{Backend, KVPair}
      iex> {:ok, client} = Backend.new(:app, [:policy])
      iex> {:ok, kv} = Backend.create(client, %KVPair{key: ["endpoints", "host-1", "eth0"], value: "10.0.0.1"})
      iex> {:ok, _kv} = Backend.update(client, %{kv | value: "10.0.0.2"})
      iex> {:error, %Backend.UpdateConflict{}} = Backend.update(client, %{kv | value: "10.0.0.3"})
      iex> {:ok, [found], _revision} = Backend.list(client, root: ["endpoints"])
      iex> {found.key, found.value}
      {["endpoints", "host-1", "eth0"], "10.0.0.2"}

  Keys are those of `Tank.Store.Backend.Key`, below the client's prefix. You do not write parents: a
  parent is created with the first key below it, and deleted with the last one, in the same write. So a sibling that is created
  at that moment is not lost. A revision is an opaque string. When you write a pair back that you have read, the write fails
  if the key was written since.

  ## Errors

  `{:error, exception}`, which can be matched, raised and printed:

  | exception | meaning |
  |---|---|
  | `Tank.Store.Backend.AlreadyExists` | the key of `create/2` exists; the exception holds the existing pair |
  | `Tank.Store.Backend.DoesNotExist` | there is no such key |
  | `Tank.Store.Backend.UpdateConflict` | the key has another revision; the exception holds the current pair |
  | `Tank.Store.Backend.InsufficientIdentifiers` | the key lacks a part |
  | `Tank.Store.Backend.ValidationError` | a field has an invalid value; the exception names the field |
  | `Tank.Store.Backend.DatastoreError` | the store could not do it; `reason` says why |

  Only after a `DatastoreError` with the reason `:timeout` or `:failed` is it unknown whether something was written.
  """

  alias Tank.Store.{KVPair, Options, Path, Syncer}
  alias Tank.Store.Backend.{DoesNotExist, Failure, Key, ListOptions, Read, Revision}
  alias Tank.Store.Backend.{ValidationError, Watcher, Write}

  @enforce_keys [:store, :prefix]
  defstruct [:store, :prefix]

  @typedoc "A client: the id of a store, and the path below which its keys are. It is a plain value, which you do not close."
  @type t :: %__MODULE__{store: atom, prefix: Path.t()}
  @type key :: Key.t() | String.t()
  @type list_options :: ListOptions.t() | keyword | [String.t()] | String.t()

  @ready ["ready"]

  @doc """
  Returns a client of the store with this id, for the keys below `prefix`, a `Tank.Store.Path`.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:policy, "v1"])
      iex> client.prefix
      [:policy, "v1"]
      iex> {:error, %Tank.Store.Backend.ValidationError{field: :prefix}} = Tank.Store.Backend.new(:app, "policy")
  """
  @spec new(atom, Path.t()) :: {:ok, t} | {:error, ValidationError.t()}
  def new(store, prefix) when is_atom(store) do
    case Path.to_key(prefix) do
      {:ok, _key} -> {:ok, %__MODULE__{store: store, prefix: prefix}}
      {:error, {_kind, why}} -> {:error, %ValidationError{field: :prefix, value: prefix, why: "is no path: #{why}"}}
    end
  end

  @doc """
  Writes the ready flag, the key `["ready"]` with the value true, if it does not exist.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:init])
      iex> Tank.Store.Backend.ensure_initialized(client)
      :ok
      iex> {:ok, flag} = Tank.Store.Backend.get(client, ["ready"])
      iex> flag.value
      true
  """
  @spec ensure_initialized(t) :: :ok | {:error, Exception.t()}
  def ensure_initialized(%__MODULE__{} = client) do
    case create(client, %KVPair{key: @ready, value: true}) do
      {:ok, _kv} -> :ok
      {:error, %__MODULE__.AlreadyExists{}} -> :ok
      error -> error
    end
  end

  @doc """
  Writes a key that does not exist, and returns the pair with its revision. Give a pair without a revision.

  Errors: `AlreadyExists`, and those that any write has (see above).

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:create])
      iex> {:ok, kv} = Tank.Store.Backend.create(client, %Tank.Store.KVPair{key: ["a"], value: 1})
      iex> {:error, error} = Tank.Store.Backend.create(client, %Tank.Store.KVPair{key: ["a"], value: 2})
      iex> error.existing == kv
      true
  """
  @spec create(t, KVPair.t()) :: {:ok, KVPair.t()} | {:error, Exception.t()}
  def create(%__MODULE__{} = client, %KVPair{revision: nil} = kv), do: write(client, :create, kv, kv.revision)

  def create(%__MODULE__{}, %KVPair{revision: revision}),
    do: {:error, %ValidationError{field: :revision, value: revision, why: "must not be set for a create"}}

  @doc """
  Writes a key that exists, and returns the pair with its new revision. If the pair has a revision, it must be current.

  Errors: `DoesNotExist`, `UpdateConflict`, and those that any write has.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:update])
      iex> {:error, error} = Tank.Store.Backend.update(client, %Tank.Store.KVPair{key: ["a"], value: 1})
      iex> Exception.message(error)
      "key [\\"a\\"] does not exist"
  """
  @spec update(t, KVPair.t()) :: {:ok, KVPair.t()} | {:error, Exception.t()}
  def update(%__MODULE__{} = client, %KVPair{} = kv), do: write(client, :update, kv, kv.revision)

  @doc """
  Writes a key, whether it exists or not, and returns the pair with its new revision. If the pair has a revision, it must be
  current; `cas: false` ignores it.

  Errors: `UpdateConflict`, and those that any write has.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:apply])
      iex> {:ok, first} = Tank.Store.Backend.apply(client, %Tank.Store.KVPair{key: ["a"], value: 1})
      iex> {:ok, _second} = Tank.Store.Backend.apply(client, %{first | value: 2})
      iex> {:error, error} = Tank.Store.Backend.apply(client, %{first | value: 3})
      iex> error.current.value
      2
      iex> {:ok, _third} = Tank.Store.Backend.apply(client, %{first | value: 3}, cas: false)
  """
  @spec apply(t, KVPair.t(), cas: boolean) :: {:ok, KVPair.t()} | {:error, Exception.t()}
  def apply(%__MODULE__{} = client, %KVPair{} = kv, opts \\ []) do
    write(client, :apply, kv, if(Options.with_defaults!(opts, cas: true)[:cas], do: kv.revision))
  end

  @doc """
  Deletes a key and everything below it, and those parents that have no other keys below them. If a pair has a revision, it must
  be current.

  Errors: `DoesNotExist`, `UpdateConflict`, and those that any write has.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:delete])
      iex> {:ok, kv} = Tank.Store.Backend.create(client, %Tank.Store.KVPair{key: ["workload", "eth0"], value: 1})
      iex> Tank.Store.Backend.delete(client, kv)
      :ok
      iex> {:error, %Tank.Store.Backend.DoesNotExist{}} = Tank.Store.Backend.delete(client, ["workload"])
  """
  @spec delete(t, KVPair.t() | key) :: :ok | {:error, Exception.t()}
  def delete(%__MODULE__{} = client, %KVPair{key: key, revision: revision}), do: delete(client, key, revision)
  def delete(%__MODULE__{} = client, key), do: delete(client, key, nil)

  @doc """
  Returns the pair at a key; with `revision:`, the pair as of that revision.

  Errors: `DoesNotExist`; `DatastoreError` with `:compacted` if that revision is no longer in the history.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:get])
      iex> {:ok, first} = Tank.Store.Backend.create(client, %Tank.Store.KVPair{key: ["a"], value: 1})
      iex> {:ok, _second} = Tank.Store.Backend.update(client, %{first | value: 2})
      iex> Tank.Store.Backend.get(client, ["a"], revision: first.revision)
      {:ok, first}
  """
  @spec get(t, key, revision: Revision.t() | nil) :: {:ok, KVPair.t()} | {:error, Exception.t()}
  def get(%__MODULE__{} = client, key, opts \\ []) do
    with {:ok, parts} <- Key.parse(key),
         {:ok, revision} <- Revision.parse(Options.with_defaults!(opts, revision: nil)[:revision]),
         {:ok, kv} <- Read.get(client, parts, revision) do
      if kv, do: {:ok, %{kv | key: key}}, else: {:error, %DoesNotExist{key: parts}}
    end
  end

  @doc """
  Returns the pairs that `Tank.Store.Backend.ListOptions` select, in the order of their keys, and a revision. `watch/3` from this
  revision reports all later changes. Keys and values that do not parse are left out.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:list])
      iex> for name <- ["web-1", "web-2", "db"] do
      ...>   {:ok, _kv} = Tank.Store.Backend.create(client, %Tank.Store.KVPair{key: ["hosts", name], value: name})
      ...> end
      iex> {:ok, pairs, _revision} = Tank.Store.Backend.list(client, root: ["hosts"], name_prefix: "web")
      iex> Enum.map(pairs, & &1.value)
      ["web-1", "web-2"]
  """
  @spec list(t, list_options) :: {:ok, [KVPair.t()], Revision.t()} | {:error, Exception.t()}
  def list(%__MODULE__{} = client, options) do
    with {:ok, options} <- ListOptions.new(options), {:ok, pairs, revision} <- Read.list(client, options) do
      {:ok, for(%KVPair{} = pair <- pairs, do: pair), revision}
    end
  end

  @doc """
  Sends the calling process all changes after `revision`. If `revision` is nil, it first gets the existing pairs as `:added`.

  Messages are `{:backend_watch, ref, event}` with a `Tank.Store.Backend.Event` and the watch's `ref`. No change is lost: while
  1,000 messages wait in the process's mailbox, the watch pauses. The watch ends with an event of type `:error` if the next
  change is compacted, if the store begins a new history (for example after a restore), or if the store stops. List again, and
  watch from there. The watch also ends when the process dies.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:watch])
      iex> {:ok, [], revision} = Tank.Store.Backend.list(client, ["a"])
      iex> {:ok, watch} = Tank.Store.Backend.watch(client, ["a"], revision)
      iex> {:ok, _kv} = Tank.Store.Backend.create(client, %Tank.Store.KVPair{key: ["a", "b"], value: 1})
      iex> ref = watch.ref
      iex> receive do {:backend_watch, ^ref, event} -> {event.type, event.new.value} end
      {:added, 1}
      iex> Tank.Store.Backend.cancel(watch)
      :ok
  """
  @spec watch(t, list_options, Revision.t() | nil) :: {:ok, Watcher.t()} | {:error, Exception.t()}
  def watch(%__MODULE__{} = client, options, revision) do
    with {:ok, options} <- ListOptions.new(options),
         {:ok, revision} <- Revision.parse(revision),
         do: Watcher.start(client, options, revision)
  end

  @doc "Ends a watch. No message of it arrives later. Returns `:ok` if the watch has already ended."
  @spec cancel(Watcher.t()) :: :ok
  defdelegate cancel(watch), to: Watcher

  @doc """
  Deletes everything below the client's prefix, including the ready flag. Use it in tests.

      iex> {:ok, client} = Tank.Store.Backend.new(:app, [:clean])
      iex> Tank.Store.Backend.ensure_initialized(client)
      iex> {Tank.Store.Backend.clean(client), Tank.Store.Backend.clean?(client)}
      {:ok, {:ok, true}}
  """
  @spec clean(t) :: :ok | {:error, Exception.t()}
  def clean(%__MODULE__{} = client) do
    case Tank.Store.Tree.delete(client.store, client.prefix) do
      {:ok, _revision} -> :ok
      {:error, reason} -> {:error, Failure.new(reason, [])}
    end
  end

  @doc "Whether there is no key below the client's prefix: `{:ok, boolean}`."
  @spec clean?(t) :: {:ok, boolean} | {:error, Exception.t()}
  def clean?(%__MODULE__{} = client) do
    with {:ok, pairs, _revision} <- list(client, []), do: {:ok, pairs == []}
  end

  @doc """
  Returns a syncer, which mirrors keys to `callbacks`, a module or a process. See `Tank.Store.Syncer`.
  """
  @spec syncer(t, module | pid, keyword) :: {:ok, Syncer.t()} | {:error, Exception.t()}
  defdelegate syncer(client, callbacks, opts), to: Syncer, as: :new

  @doc "Starts a syncer: `Tank.Store.Syncer.start/1`."
  @spec start(Syncer.t()) :: :ok
  defdelegate start(syncer), to: Syncer

  @doc "Stops a syncer: `Tank.Store.Syncer.stop/1`."
  @spec stop(Syncer.t()) :: :ok
  defdelegate stop(syncer), to: Syncer

  defp write(client, kind, kv, revision) do
    with {:ok, key} <- Key.parse(kv.key),
         {:ok, revision} <- Revision.parse_number(revision),
         do: Write.write(client, kind, kv, key, revision)
  end

  defp delete(client, key, revision) do
    with {:ok, key} <- Key.parse(key),
         {:ok, revision} <- Revision.parse_number(revision),
         do: Write.delete(client, key, revision)
  end
end
