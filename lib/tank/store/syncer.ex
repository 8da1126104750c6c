defmodule Tank.Store.Syncer do
  @moduledoc """
  Mirrors keys of a `Tank.Store.Backend` to a consumer: first all there are, then each change.

      defmodule Agent do
        @behaviour Tank.Store.Syncer
        def on_status_updated(status), do: Dataplane.status(status)
        def on_updates(updates), do: Enum.each(updates, &Dataplane.apply/1)
      end

      {:ok, syncer} = Tank.Store.Backend.syncer(client, Agent, types: [[root: ["endpoints"]], [root: ["policies"]]])
      :ok = Tank.Store.Syncer.start(syncer)

  The consumer is a module of this behaviour, whose callbacks one process calls; or a process, which gets the messages
  `{:syncer, ref, {:status, status}}`, `{:syncer, ref, {:updates, updates}}` and
  `{:syncer, ref, {:parse_failed, raw_key, raw_value}}` with the syncer's `ref`.

  ## What is promised

    * A `:new` update is of a key that the consumer does not have, `:updated` and `:deleted` of one that it has. The
      updates of a key come in the order of its changes, and none comes twice.
    * The status is `:wait_for_datastore` until the first type has been listed, `:resync_in_progress` until all have
      been, and `:in_sync` once all that was listed was delivered. It goes back to `:resync_in_progress` when a list
      fails, and when the store's member here loses its quorum. No status comes twice in a row.
    * A batch has at most 1,000 updates. What changes while a callback runs gathers, and comes next. When more than
      10,000 updates wait, those of one key become one.
    * Nothing that happens to the store ends a syncer. After any failure it lists anew, and delivers the difference to
      what the consumer has: this is also how it catches up when it was cut off for longer than the history reaches.
    * A value that does not parse is told by `parse_failed`, and the key's update carries nil.
    * `stop/1` delivers all that the consumer has as `:deleted`, and nothing more.

  A mirror of a member without a quorum is as old as that member, which its status says a moment after the loss; it
  catches up when the quorum is back.

  The syncer is linked to the process that made it; a callback that raises ends both. It ends with the process that it
  sends messages to. Types should not share keys.
  """

  alias Tank.Store.{Backend, Cluster, Deadline, Options, ProcessCall}
  alias Tank.Store.Backend.{Key, ListOptions, ValidationError}
  alias Tank.Store.Syncer.{Merger, Source, Update}

  @type status :: :wait_for_datastore | :resync_in_progress | :in_sync

  @doc "The syncer's status, whenever it is another."
  @callback on_status_updated(status) :: term
  @doc "What to change, in this order."
  @callback on_updates([Update.t()]) :: term
  @doc "The value at a key, as `Tank.Store.Backend.Key.to_path/1` prints it, could not be parsed."
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
  Makes a syncer and starts it, for a supervisor:

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app"},
        {Tank.Store.Syncer, store_id: :app, prefix: [:policy], callbacks: MyApp.Agent, types: [[root: ["endpoints"]]]}
      ]

  Options: `:store_id`, that of `Tank.Store.Cluster.get_default_store_id/0` unless given; `:prefix`, the path below which the
  keys are, `[]` unless given; `:callbacks`, the module or process that is told, required; `:id`, of the child specification;
  those of `new/3`. When its supervisor stops it, the consumer is told nothing more. Errors are those of `new/3`.

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
  Makes a syncer, which does nothing until it is started.

  Options:

    * `:types` - for each type of resource its `Tank.Store.Backend.ListOptions`; everything below the client's prefix
      unless given
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
  Starts a syncer. Returns `:ok` also if it runs already, and if it has ended, which it stays.

  `{:error, :timeout}` when the node is too busy to start it within 5 seconds: it may start later.
  """
  @spec start(t) :: :ok | {:error, :timeout}
  def start(%__MODULE__{pid: pid}), do: call(pid, :start, @start_timeout)

  @doc """
  Stops a syncer, and returns when its consumer has been told that all is deleted. Called by a callback, it returns at
  once. Returns `:ok` also if the syncer has ended.

  `{:error, :timeout}` when the consumer has not taken all of that within `timeout` milliseconds. The syncer goes on
  telling it; call this again to wait for the end.
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
