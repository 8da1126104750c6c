defmodule Tank.Store.Server.Opening do
  @moduledoc false
  # Opens the directory of a store, and again when its disk was in trouble.
  #
  #     first --ok--> open <------------------+
  #       |             | disk fails, lost    | :open, after a while
  #       |             v                     |
  #       |         degraded: reads go on from the last view --error of the disk--> waits longer (Tank.Store.Reopening)
  #       +--error, or one that is not the disk's--> stops, with the reason

  alias Tank.Store.{
    Alarms,
    Counters,
    Error,
    Identity,
    Log,
    LongCall,
    Names,
    Native,
    NodeName,
    Options,
    OtherClusters,
    Reopening,
    Running,
    Telemetry
  }

  alias Tank.Store.Cluster.Unready
  alias Tank.Store.Formation.Finish
  alias Tank.Store.Registry.Feed
  alias Tank.Store.Server.{Serving, State}

  # A store that had no quorum for so long since it was opened says which members it lacks.
  @name_missing_ms 10_000

  @type opened :: {:ok, State.t()} | {:stop, Error.t(), State.t()}

  @doc "Opens the store of a server that has just started."
  @spec first(State.t()) :: {:ok, State.t()} | {:stop, Error.t()}
  def first(state) do
    case open(state) do
      {:ok, %{store: nil, failure: {:lost, _what} = lost} = state} ->
        # Nothing is left in memory that could be read.
        Running.refuse(state.config.store_id, lost)
        {:ok, state}

      {:ok, state} ->
        {:ok, state}

      {:stop, error, _state} ->
        {:stop, error}
    end
  end

  @doc "Opens the store, or waits for the next try."
  @spec open(State.t()) :: opened
  def open(%State{config: config} = state) do
    began = System.monotonic_time()

    case LongCall.open(Options.to_native(config), state.link) do
      {:ok, store} -> {:ok, state |> Serving.take_over(store) |> opened() |> tell_opened(state.failure, began)}
      {:error, reason} -> failed(state, Error.from_native(reason))
    end
  end

  @doc "What follows when the store of this server is open for the first time, or again."
  @spec opened(State.t()) :: State.t()
  def opened(%State{config: config, store: store} = state) do
    # It is noted already when the store was degraded.
    _noted = Registry.register(Names, {:dir, config.store_id}, {config.data_dir, config.owner})
    :ok = Feed.opened(config.store_id)
    Reopening.opened(config.reopening)
    :ok = Counters.open(config.store_id)
    :ok = Identity.opened(config, store)
    :ok = NodeName.check(config.store_id, store)
    :ok = Alarms.clear(config.store_id, :directory_lost)
    spawn(fn -> Unready.log_missing(config.store_id, store, @name_missing_ms) end)

    if formation = config[:formation] do
      OtherClusters.look(config.store_id, formation.nodes)
      Finish.start_link(store, config)
    end

    %{state | failure: nil}
  end

  @doc """
  The open engine failed. Of its disk: it ends but for its last view, which readers keep, so that another engine can open
  the directory.
  """
  @spec engine_failed(State.t(), Error.t()) :: opened
  def engine_failed(%State{config: config} = state, error) do
    Telemetry.execute([:store, :failed], %{}, %{store_id: config.store_id, reason: error.reason})

    case Reopening.failed(config.reopening, error) do
      {:after, again_ms} when state.joining == nil ->
        log(config.store_id, error)
        {:ok, state |> note_failure(error) |> Serving.retire() |> wait(again_ms)}

      _not_the_disk ->
        Log.error(config.store_id, :engine, "store #{inspect(config.store_id)} failed: #{Exception.message(error)}")
        {:stop, error, state}
    end
  end

  @doc "Whether `opening`, which came with what an engine said, is that of the open engine."
  @spec of_open_engine?(State.t(), non_neg_integer) :: boolean
  def of_open_engine?(%State{store: nil}, _opening), do: false
  def of_open_engine?(%State{store: store}, opening), do: Native.opening(store) == opening

  defp tell_opened(%State{config: %{store_id: store_id}, store: store} = state, failure, began) do
    took = System.monotonic_time() - began

    with {:ok, %{entries: entries, revision: revision}} <- Native.status(store) do
      measurements = %{duration: took, entries: entries, revision: revision}
      Telemetry.execute([:store, :opened], measurements, %{store_id: store_id, again: failure != nil})
      ms = System.convert_time_unit(took, :native, :millisecond)
      text = "opened #{again(failure)}in #{ms} ms, #{entries} entries at revision #{revision}"
      Log.log(store_id, :info, :opening, "store #{inspect(store_id)}: #{text}")
    end

    state
  end

  defp again(nil), do: ""
  defp again(failure), do: "again after #{inspect(failure)} "

  defp failed(%State{config: config} = state, error) do
    case Reopening.failed(config.reopening, error) do
      {:after, again_ms} -> {:ok, state |> note_failure(error) |> wait(again_ms)}
      :no -> {:stop, error, state}
    end
  end

  defp note_failure(%State{config: config} = state, %Error{reason: {:lost, what}} = error) do
    :ok = Identity.lost(config)
    details = %{what: what, data_dir: config.data_dir}
    :ok = Alarms.set(config.store_id, :directory_lost, Exception.message(error), details)
    %{state | failure: error.reason}
  end

  # A directory that is lost may show other errors while it is removed or put back.
  defp note_failure(%State{failure: {:lost, _what}} = state, _error), do: state
  defp note_failure(state, error), do: %{state | failure: error.reason}

  defp wait(state, ms) do
    Process.send_after(self(), :open, ms)
    state
  end

  # An alarm is logged by itself.
  defp log(_store_id, %Error{reason: {:lost, _what}}), do: :ok

  defp log(store_id, error) do
    Log.error(
      store_id,
      :disk,
      "store #{inspect(store_id)}: #{Exception.message(error)}. Reads go on from memory and writes are refused " <>
        "until it could be opened again, which is tried every 2 seconds"
    )
  end
end
