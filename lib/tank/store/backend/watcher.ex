defmodule Tank.Store.Backend.Watcher do
  @moduledoc """
  A watch of `Tank.Store.Backend.watch/3`: `ref` is what its messages have.
  """

  use GenServer, restart: :temporary

  alias Tank.Store.{Backend, Position, ProcessCall, Watch}
  alias Tank.Store.Backend.{Event, Failure, ListOptions, Read}

  # Events are held back while so many messages wait for the consumer; the store's history keeps what follows.
  @mailbox_max 1_000
  @look_again_ms 10
  # It hears of its end between two messages. One that does not is killed.
  @cancel_timeout 5_000

  @enforce_keys [:ref, :pid]
  defstruct [:ref, :pid]

  @type t :: %__MODULE__{ref: reference, pid: pid}

  @doc false
  @spec start(Backend.t(), ListOptions.t(), Position.t() | nil) :: {:ok, t} | {:error, Exception.t()}
  def start(client, options, revision) do
    ref = make_ref()
    args = %{client: client, options: options, from: from(revision), ref: ref, consumer: self()}

    case GenServer.start(__MODULE__, args) do
      {:ok, pid} -> {:ok, %__MODULE__{ref: ref, pid: pid}}
      {:error, {:shutdown, reason}} -> {:error, Failure.new(reason, ListOptions.base(options))}
      # It crashed, which was logged.
      {:error, _crash} -> {:error, Failure.new(:engine_failed, ListOptions.base(options))}
    end
  end

  @doc false
  @spec cancel(t) :: :ok
  def cancel(%__MODULE__{pid: pid, ref: ref}) do
    _ended = ProcessCall.stop(pid, {:cancel, ref}, @cancel_timeout)
    flush(ref)
  end

  @doc false
  # The store's watch of what the options take, for the calling process. Its messages are read by `read/3`.
  @spec watch(Backend.t(), ListOptions.t(), Watch.from()) :: {:ok, Watch.t()} | {:error, term}
  def watch(client, options, from) do
    Watch.start(client.store, client.prefix ++ ListOptions.base(options), from: from, lag_timeout_ms: :infinity)
  end

  @doc false
  @spec read(Backend.t(), ListOptions.t(), term) :: {:events, [Event.t()]} | {:ended, term}
  def read(client, options, {:changes, _revision, changes}), do: {:events, Read.events(client, options, changes)}
  def read(_client, _options, {:cancelled, reason}), do: {:ended, reason}

  def read(client, options, {:snapshot_part, entries}),
    do: {:events, Enum.flat_map(entries, &added(client, options, &1))}

  def read(client, options, {:snapshot, entries, _revision}), do: read(client, options, {:snapshot_part, entries})
  def read(_client, _options, _other), do: {:events, []}

  @impl true
  def init(args) do
    case watch(args.client, args.options, args.from) do
      {:ok, watch} -> {:ok, Map.merge(args, %{watch: watch, monitor: Process.monitor(args.consumer)})}
      {:error, reason} -> {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_info({:store_watch, ref, message}, %{watch: %{ref: ref}} = state) do
    case read(state.client, state.options, message) do
      {:events, events} ->
        tell(state, events)

      {:ended, reason} ->
        error = Failure.new(reason, ListOptions.base(state.options))
        tell(state, [%Event{type: :error, error: error}])
        {:stop, :normal, state}
    end
  end

  def handle_info({:cancel, ref}, %{ref: ref} = state), do: {:stop, :normal, state}
  def handle_info({:DOWN, monitor, _kind, _pid, _reason}, %{monitor: monitor} = state), do: {:stop, :normal, state}
  def handle_info(_other, state), do: {:noreply, state}

  # The events of a message go one by one, each when there is room.
  defp tell(state, []), do: {:noreply, state}

  defp tell(%{ref: ref, monitor: monitor} = state, [event | rest] = events) do
    if full?(state.consumer) do
      receive do
        {:cancel, ^ref} -> {:stop, :normal, state}
        {:DOWN, ^monitor, _kind, _pid, _reason} -> {:stop, :normal, state}
      after
        @look_again_ms -> tell(state, events)
      end
    else
      send(state.consumer, {:backend_watch, ref, event})
      tell(state, rest)
    end
  end

  defp full?(consumer) do
    case Process.info(consumer, :message_queue_len) do
      {:message_queue_len, length} -> length >= @mailbox_max
      nil -> true
    end
  end

  defp added(client, options, entry) do
    for pair <- Read.read(client, options, entry) do
      case pair do
        {:unparsed, pair, raw} -> Event.unparsed(pair, raw)
        pair -> %Event{type: :added, new: pair, revision: pair.revision}
      end
    end
  end

  defp flush(ref) do
    receive do
      {:backend_watch, ^ref, _event} -> flush(ref)
    after
      0 -> :ok
    end
  end

  defp from(nil), do: :snapshot
  defp from(revision), do: {:after, revision}
end
