defmodule Tank.Store.Owner do
  @moduledoc false
  # Ties a store to a user's supervision tree: the process behind the name `Tank.Store`, and each child that is a
  # `Tank.Store.Cluster`.
  #
  # With a `data_dir` it starts the store, and the store ends with it, however it ends. Without, it attaches to a store
  # that someone else started, and leaves it running. In both cases it stops when the store has stopped for good, so
  # that its supervisor hears of it.

  use GenServer

  alias Tank.Store.Cluster
  alias Tank.Store.Cluster.{Arguments, Start, Unready}
  alias Tank.Store.{Call, Deadline, Error, Identity, Instance, Names, PodsTable, Running, Server}

  # Closing a store and opening it anew takes milliseconds, unless the disk hangs.
  @settling_timeout 30_000
  # How often to look whether a store has been opened anew: only its end is told.
  @look_again_ms 10

  @doc "Starts the process `Tank.Store`."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    config = Arguments.child!(options, [:pods_table])
    config |> Map.put(:pods_table, pods_table!(options)) |> start_link(Tank.Store)
  end

  @doc "Starts a process for a store of any id."
  @spec start_child(keyword) :: GenServer.on_start()
  def start_child(options) do
    %{store_id: store_id} = config = Arguments.child!(options)
    start_link(config, {:via, Registry, {Names, {:owner, store_id}}})
  end

  defp pods_table!(options) do
    case Keyword.get(options, :pods_table, false) do
      table? when is_boolean(table?) -> table?
      other -> raise ArgumentError, "option :pods_table must be a boolean, got: #{inspect(other)}"
    end
  end

  defp start_link(config, name), do: GenServer.start_link(__MODULE__, Map.put(config, :name, name), name: name)

  @doc """
  The id of the store that `Tank.Store` is for; nil, which no store has, while it does not run. Raises when it was never
  started in this VM.
  """
  @spec store_id! :: atom
  def store_id! do
    # It is there from the end of the first start on, for ever. Looking whether a process lives costs a tenth of looking
    # up a name.
    case :persistent_term.get(__MODULE__, nil) do
      {store_id, owner} -> if is_pid(owner) and Process.alive?(owner), do: store_id
      nil -> raise "Tank.Store is not started"
    end
  end

  @doc "As `store_id!/0`, for reads of what this node knows: they go on while `Tank.Store` is restarted after a crash."
  @spec store_id_to_read! :: atom
  def store_id_to_read! do
    case :persistent_term.get(__MODULE__, nil) do
      {_store_id, :stopped} -> nil
      {store_id, _owner} -> store_id
      nil -> raise "Tank.Store is not started"
    end
  end

  @doc "Has calls of `Tank.Store` go to the default store while `holder` lives, unless it is started."
  @spec stand_in(pid) :: :ok
  def stand_in(holder) do
    case :persistent_term.get(__MODULE__, nil) do
      {_store_id, owner} when is_pid(owner) -> if Process.alive?(owner), do: :ok, else: stand_in_as(holder)
      _stopped -> stand_in_as(holder)
    end
  end

  defp stand_in_as(holder), do: :persistent_term.put(__MODULE__, {Cluster.get_default_store_id(), holder})

  @impl true
  def init(%{store_id: store_id} = config) do
    Process.flag(:trap_exit, true)

    case attach(config, now() + @settling_timeout) do
      {:ok, instance} ->
        begin(%{name: config.name, store_id: store_id, instance: instance, table: nil}, config)

      {:error, reason} ->
        {:stop, {:store_init_failed, Error.from_native(reason)}}
    end
  end

  defp begin(state, config) do
    case config[:pods_table] && PodsTable.start_link(config.store_id) do
      {:ok, table} ->
        note(state, self())
        {:ok, %{state | table: table}}

      {:error, reason} ->
        stop(state)
        {:stop, {:store_init_failed, reason}}

      _no_table ->
        note(state, self())
        {:ok, state}
    end
  end

  @impl true
  def handle_info({:DOWN, _ref, :process, _instance, reason}, state) do
    {:stop, {:store_stopped, reason}, %{state | instance: nil}}
  end

  # It failed several times: its supervisor has given up.
  def handle_info({:EXIT, table, reason}, %{table: table} = state) when table != nil,
    do: {:stop, {:pods_table_stopped, reason}, state}

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(reason, state) do
    if state.table, do: PodsTable.stop(state.table)
    # After a crash the store's server hears of it (`Tank.Store.Server`), and leaves its last view to readers.
    if in_order?(reason), do: stop(state), else: :ok
  end

  @doc "Whether a process that ended with `reason` was stopped, and did not crash."
  @spec in_order?(term) :: boolean
  def in_order?({:shutdown, _why}), do: true
  def in_order?(reason), do: reason in [:normal, :shutdown]

  # The instance that this process started: by now another one may run under the store's id.
  defp stop(%{instance: instance, store_id: store_id} = state) do
    note(state, :stopped)
    with true <- instance != nil, :ok <- Instance.stop(store_id, instance), do: Identity.closed(store_id)
  end

  defp note(%{name: Tank.Store, store_id: store_id}, owner), do: :persistent_term.put(__MODULE__, {store_id, owner})
  defp note(_child, _owner), do: :ok

  # Returns once the store answers, with the instance that is ours to stop, or nil.
  defp attach(config, deadline) do
    with {:ok, instance} <- obtain(config, deadline), do: attach(instance, config, deadline)
  end

  defp attach(instance, config, deadline) do
    case await_ready(config) do
      :ok ->
        {:ok, instance}

      # Whoever it belongs to has just stopped it.
      {:error, :noproc} when instance == nil and config.data_dir != nil ->
        attach_again(config, deadline)

      # A new member takes the place of one whose disk went back in time (Tank.Store.Replacement).
      {:error, reason} when reason in [:log_lost, :noproc] and instance != nil ->
        if now() < deadline and Process.alive?(instance),
          do: receive(after: (@look_again_ms -> attach(instance, config, deadline))),
          else: fail(reason, instance, config)

      {:error, reason} ->
        fail(reason, instance, config)
    end
  end

  # A start that failed leaves nothing running.
  defp fail(reason, instance, %{store_id: store_id}) do
    error = Unready.explain(store_id, reason)
    _stopped = Instance.stop(store_id, instance)
    {:error, error}
  end

  defp attach_again(config, deadline) do
    if now() < deadline,
      do: receive(after: (@look_again_ms -> attach(config, deadline))),
      else: {:error, :noproc}
  end

  defp await_ready(%{store_id: store_id} = config) do
    case Instance.whereis(store_id) do
      nil -> {:error, :noproc}
      instance -> await_ready(config, Process.monitor(instance))
    end
  end

  # Should it end before this process is ready, this process hears of it when it is.
  defp await_ready(%{store_id: store_id, timeout: timeout}, monitor) do
    with :ok <- Server.await_formed(store_id, Deadline.in_ms(timeout)),
         {:ok, store} <- Running.fetch(store_id),
         :ok <- Call.await_readable(store, timeout) do
      :ok
    else
      error ->
        Process.demonitor(monitor, [:flush])
        error
    end
  end

  defp obtain(%{data_dir: nil, store_id: store_id}, _deadline) do
    case Running.fetch(store_id) do
      {:ok, _store} -> {:ok, nil}
      {:error, :noproc} -> {:error, Error.from_native({:no_data_dir, store_id})}
      {:error, reason} -> {:error, Error.from_native(reason)}
    end
  end

  defp obtain(%{data_dir: dir, store_id: store_id, options: options} = config, deadline) do
    case Start.owned(dir, store_id, options, self(), config.formation) do
      {:ok, instance} -> {:ok, instance}
      {:error, {:already_started, instance}} -> attach_or_wait(instance, config, deadline)
      {:error, reason} -> {:error, reason}
    end
  end

  # A store of this id is there already: someone else's, or our predecessor's, which is closing since it died. While it
  # has no server, it is closing, or being opened anew.
  defp attach_or_wait(instance, config, deadline) do
    with {:ok, {dir, owner}} <- Server.started(config.store_id),
         true <- owner == nil or Process.alive?(owner) do
      if dir == Path.expand(config.data_dir),
        do: {:ok, nil},
        else: {:error, Error.from_native({:already_running, dir})}
    else
      _closing_or_opening -> wait(instance, config, deadline)
    end
  end

  defp wait(instance, config, deadline) do
    monitor = Process.monitor(instance)

    receive do
      {:DOWN, ^monitor, :process, ^instance, _reason} -> obtain(config, deadline)
    after
      @look_again_ms ->
        Process.demonitor(monitor, [:flush])

        if now() < deadline,
          do: obtain(config, deadline),
          else: {:error, Error.from_native({:locked, Path.expand(config.data_dir), :this_vm})}
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
