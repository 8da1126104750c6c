defmodule Tank.Store.Syncer do
  @moduledoc """
  Mirrors keys of a `Tank.Store.Backend` to a consumer: first all existing keys, then each change.

      defmodule Agent do
        @behaviour Tank.Store.Syncer
        def on_status_updated(status), do: Dataplane.status(status)
        def on_updates(updates), do: Enum.each(updates, &Dataplane.apply/1)
      end

      {:ok, syncer} = Tank.Store.Backend.syncer(client, Agent, types: [[root: ["endpoints"]], [root: ["policies"]]])
      :ok = Tank.Store.Syncer.start(syncer)

  The consumer is a module with this behaviour, whose callbacks are called by one process; or it is a process, which gets the messages
  `{:syncer, ref, {:status, status}}`, `{:syncer, ref, {:updates, updates}}` and
  `{:syncer, ref, {:parse_failed, raw_key, raw_value}}` with the syncer's `ref`.

  ## Promises

    * A `:new` update is for a key that the consumer does not have; `:updated` and `:deleted` are for a key that it has. The
      updates of a key arrive in the order of its changes, each once.
    * The status is `:wait_for_datastore` until the first type has been listed, `:resync_in_progress` until all types have
      been listed, and `:in_sync` once everything that was listed is delivered. It becomes `:resync_in_progress` again when a
      list fails, and when the store's member on this node loses its quorum. The same status is never sent twice in a row.
    * A batch has at most 1,000 updates. Changes that arrive while a callback runs are in the next batch. When more than
      10,000 updates wait, the updates of one key are merged.
    * No failure of the store ends a syncer. After a failure it lists again, and delivers only the differences. In the same way
      it catches up when it was cut off for longer than the history reaches.
    * If a value does not parse, `parse_failed` reports it, and the update of its key has the value nil.
    * `stop/1` delivers all keys that the consumer has as `:deleted`, and nothing more.

  Without a quorum, the mirror is as old as its member; the status says so a moment after the quorum is lost. The mirror
  catches up when the quorum is back.

  The syncer is linked to the process that created it; a callback that raises ends both. A syncer that sends messages ends
  with their receiver. Types must not share keys.
  """

  alias Tank.Store.{Backend, Cluster, Deadline, Options, ProcessCall}
  alias Tank.Store.Backend.{Key, ListOptions, ValidationError}
  alias Tank.Store.Syncer.{Merger, Source, Update}

  @type status :: :wait_for_datastore | :resync_in_progress | :in_sync

  @doc "Called when the syncer's status changes."
  @callback on_status_updated(status) :: term
  @doc "Called with the updates to apply, in order."
  @callback on_updates([Update.t()]) :: term
  @doc "Called when the value of a key cannot be parsed. The key is printed as by `Tank.Store.Backend.Key.to_path/1`."
  @callback parse_failed(raw_key :: String.t(), raw_value :: term) :: term
  @optional_callbacks parse_failed: 2

  @enforce_keys [:ref, :pid]
  defstruct [:ref, :pid]

  @type t :: %__MODULE__{ref: reference, pid: pid}

  @defaults [types: [[]], retry_ms: 200, source: Source.Store]
  @own [:store_id, :store, :prefix, :callbacks, :id]

  @doc """
  The child specification of a syncer, `start_link/1`. Its id is `{Tank.Store.Syncer, store_id, prefix, callbacks}`, unless
  `:id` is given.

      iex> Tank.Store.Syncer.child_spec(store_id: :app, prefix: [:policy], callbacks: MyApp.Agent).id
      {Tank.Store.Syncer, :app, [:policy], MyApp.Agent}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(opts) do
    store_id = Options.store_id!(opts, Cluster.get_default_store_id())
    id = Keyword.get(opts, :id, {__MODULE__, store_id, Keyword.get(opts, :prefix, []), opts[:callbacks]})
    %{id: id, start: {__MODULE__, :start_link, [opts]}, type: :worker}
  end

  @doc """
  Creates and starts a syncer, for a supervisor:

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app"},
        {Tank.Store.Syncer, store_id: :app, prefix: [:policy], callbacks: MyApp.Agent, types: [[root: ["endpoints"]]]}
      ]

  Options: `:store_id`, by default `Tank.Store.Cluster.get_default_store_id/0`; `:prefix`, the path below which the keys are,
  `[]` by default; `:callbacks`, the consumer's module or process, required; `:id` of the child specification; and the options
  of `new/3`. When the supervisor stops the syncer, the consumer gets nothing more. Errors are those of `new/3`.

      iex> Tank.Store.Syncer.start_link(store_id: :app, calbacks: MyApp.Agent)
      ** (ArgumentError) unknown option :calbacks, did you mean :callbacks?
  """
  @spec start_link(keyword) :: {:ok, pid} | {:error, term}
  def start_link(opts) do
    :ok = Options.known!(opts, @own ++ Keyword.keys(@defaults))
    {own, opts} = Keyword.split(opts, @own)
    callbacks = callbacks!(own[:callbacks])

    with {:ok, client} <- Backend.new(Options.store_id!(own, Cluster.get_default_store_id()), own[:prefix] || []),
         {:ok, syncer} <- new(client, callbacks, opts),
         :ok <- start(syncer),
         do: {:ok, syncer.pid}
  end

  defp callbacks!(callbacks) when is_pid(callbacks) or (is_atom(callbacks) and callbacks != nil), do: callbacks

  defp callbacks!(other),
    do: raise(ArgumentError, "option :callbacks must be a module or a process, got: #{inspect(other)}")

  @doc """
  Creates a syncer. It does nothing until it is started.

  Options:

    * `:types` - the `Tank.Store.Backend.ListOptions` of each type of resource; the default is one type with everything below
      the client's prefix
    * `:retry_ms` - how long to wait after a list or a watch failed, 200 by default
  """
  @spec new(Backend.t(), module | pid, keyword) :: {:ok, t} | {:error, Exception.t()}
  def new(%Backend{} = client, callbacks, opts \\ []) when is_atom(callbacks) or is_pid(callbacks) do
    opts = opts |> Options.with_defaults!(@defaults) |> Map.new()

    with {:ok, types} <- types(opts.types) do
      ref = make_ref()

      args = %{
        client: client,
        callbacks: callbacks,
        ref: ref,
        types: types,
        retry_ms: opts.retry_ms,
        source: opts.source
      }

      {:ok, pid} = Merger.start_link(args)
      {:ok, %__MODULE__{ref: ref, pid: pid}}
    end
  end

  # The merger answers at once, unless the node is overloaded.
  @start_timeout 5_000
  @stop_timeout 60_000

  @doc """
  Starts a syncer. Returns `:ok` if it already runs, and also if it has ended; a syncer that has ended cannot be restarted.

  Returns `{:error, :timeout}` if the node is too busy to start it within 5 seconds. It may start later.
  """
  @spec start(t) :: :ok | {:error, :timeout}
  def start(%__MODULE__{pid: pid}), do: call(pid, :start, @start_timeout)

  @doc """
  Stops a syncer. Returns once the consumer has received all keys as `:deleted`. If a callback calls this, it returns at once.
  Returns `:ok` if the syncer has already ended.

  Returns `{:error, :timeout}` if the consumer has not taken all updates within `timeout` milliseconds. The syncer continues to
  deliver them; call this again to wait.
  """
  @spec stop(t, timeout) :: :ok | {:error, :timeout}
  def stop(%__MODULE__{pid: pid}, timeout \\ @stop_timeout), do: call(pid, :stop, timeout)

  @doc false
  # Hands one thing over to the consumer.
  def deliver(pid, ref, out) when is_pid(pid), do: send(pid, {:syncer, ref, message(out)})
  def deliver(module, _ref, {:status, status}), do: module.on_status_updated(status)
  def deliver(module, _ref, {:updates, updates}), do: module.on_updates(updates)

  def deliver(module, _ref, {:unparsed, key, raw}) do
    if Code.ensure_loaded?(module) and function_exported?(module, :parse_failed, 2),
      do: module.parse_failed(Key.to_path(key), raw)
  end

  defp message({:unparsed, key, raw}), do: {:parse_failed, Key.to_path(key), raw}
  defp message(out), do: out

  # It has ended, however: there is nothing to start or to stop any more.
  defp call(pid, request, timeout) do
    with {:error, :noproc} <- ProcessCall.call(pid, request, Deadline.bounded(timeout)), do: :ok
  end

  defp types([_ | _] = types) do
    Enum.reduce_while(types, {:ok, []}, fn type, {:ok, checked} ->
      case ListOptions.new(type) do
        {:ok, %{revision: nil} = type} -> {:cont, {:ok, checked ++ [type]}}
        {:ok, type} -> {:halt, invalid(type.revision, "must not be set for a syncer", :revision)}
        error -> {:halt, error}
      end
    end)
  end

  defp types(other), do: invalid(other, "is no list of list options", :types)

  defp invalid(value, why, field), do: {:error, %ValidationError{field: field, value: value, why: why}}
end
