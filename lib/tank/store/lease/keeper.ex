defmodule Tank.Store.Lease.Keeper do
  @moduledoc """
  Acquires a lease, renews it, and reports when it is lost.

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app"},
        {Tank.Store.Lease.Keeper, store_id: :app, lease: [:leaders, "billing"], ttl: 10_000, handler: {MyApp.Billing, :lead, []}}
      ]

      defmodule MyApp.Billing do
        def lead({:acquired, lease}), do: # start, and send lease.epoch with each change
        def lead({:lost, _lease, _reason}), do: # stop
      end

  One keeper in the cluster holds the lease at a time. Keepers of the same lease on other nodes wait. One of them acquires the
  lease within `:retry_ms` after it ends.

      waiting --acquired--> held --renewed, three times in a ttl--> held
         ^                   |
         +--lost: ended, or could not be renewed in time--+

  ## Events

  A separate process calls the handler with one event after the other, so a slow handler delays no renewal:

    * `{:acquired, lease}` - this keeper holds the lease
    * `{:lost, lease, reason}` - this keeper no longer holds the lease, or cannot know: stop what the lease protects. The
      reason is `:not_renewed` if no answer arrived before the time to act was over, by this node's clock; `:lease_ended` if
      the store says that the lease is over; `:stopped` if this process is being stopped, which releases the lease once the
      handler has returned

  This is safe as long as the handler returns soon. Protect resources outside of the store with the lease's `epoch` as well:
  see `Tank.Store.Lease`.

      iex> me = self()
      iex> {:ok, keeper} = Tank.Store.Lease.Keeper.start_link(store_id: :tank, lease: "kept", ttl: 10_000, handler: &send(me, &1))
      iex> {:ok, lease} = Tank.Store.Lease.Keeper.await(keeper)
      iex> receive do {:acquired, acquired} -> acquired == lease end
      true
      iex> GenServer.stop(keeper)
      iex> receive do {:lost, lost, reason} -> {lost.name, reason} end
      {["kept"], :stopped}
      iex> Tank.Store.Lease.read(:tank, "kept")
      {:error, :not_found}
  """

  use GenServer

  alias Tank.Store.{Callback, Cluster, Deadline, Lease, Options, ProcessCall}
  alias Tank.Store.Lease.Keeper.{Notifier, Renewal}

  @names [:store_id, :lease, :holder, :ttl, :retry_ms, :handler, :name, :id]
  @retry_ms 1_000
  # How long stopping waits for the handler, and then for the release. A lease that was not released ends by itself.
  @handler_timeout 5_000
  @release_timeout 2_000
  @shutdown 10_000

  @type event :: {:acquired, Lease.t()} | {:lost, Lease.t(), :not_renewed | :lease_ended | :stopped}

  @doc """
  The child specification of a keeper. Its id is `{Tank.Store.Lease.Keeper, store_id, lease}`, unless `:id` is given.

      iex> Tank.Store.Lease.Keeper.child_spec(store_id: :app, lease: "billing", ttl: 10_000).id
      {Tank.Store.Lease.Keeper, :app, "billing"}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(opts) do
    id = Keyword.get_lazy(opts, :id, fn -> {__MODULE__, store_id!(opts), opts[:lease]} end)
    %{id: id, start: {__MODULE__, :start_link, [opts]}, type: :worker, shutdown: @shutdown}
  end

  @doc """
  Starts a keeper. Returns at once, even if the store does not run. `await/2` waits until the keeper holds the lease.

  Options:

    * `:store_id` - the store's id; the default is `Tank.Store.Cluster.get_default_store_id/0`
    * `:lease` - the lease's name, a path or one component; required
    * `:ttl` - milliseconds after which the lease ends if it is not renewed; required
    * `:handler` - a function of one argument, or `{module, function, arguments}`, that is called with each event
    * `:holder` - a term that identifies the holder for others; the default is this node and process. Each keeper needs a
      different one
    * `:retry_ms` - milliseconds between two tries of a keeper that waits; the default is 1,000, or a third of `:ttl` if that
      is less
    * `:name` - registers the process
    * `:id` - of the child specification

  Raises `ArgumentError` for an unknown option or an invalid value.
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts) do
    :ok = Options.known!(opts, @names)
    GenServer.start_link(__MODULE__, args!(opts), Keyword.take(opts, [:name]))
  end

  @doc """
  Returns the lease if this keeper may act on it: it holds the lease, and there is time left by this node's clock. Otherwise
  it returns `{:error, :lease_ended}`.

      iex> Tank.Store.Lease.Keeper.lease(:no_keeper)
      {:error, :noproc}
  """
  @spec lease(GenServer.server(), timeout) :: {:ok, Lease.t()} | {:error, :lease_ended | :noproc | :timeout}
  def lease(keeper, timeout \\ 5_000), do: ProcessCall.call(keeper, :lease, Options.timeout!(timeout))

  @doc "Waits until the lease is held. Returns `{:error, :timeout}` after `timeout` milliseconds, 5,000 by default."
  @spec await(GenServer.server(), timeout) :: {:ok, Lease.t()} | {:error, :noproc | :timeout}
  def await(keeper, timeout \\ 5_000) do
    timeout = timeout |> Options.timeout!() |> Deadline.bounded()
    ProcessCall.call(keeper, {:await, Deadline.in_ms(timeout)}, timeout)
  end

  @impl true
  def init(args) do
    Process.flag(:trap_exit, true)
    holder = Map.get_lazy(args, :holder, fn -> {node(), self(), System.unique_integer()} end)
    notifier = if args.handler, do: Notifier.start_link(args.handler)
    state = Map.merge(args, %{holder: holder, notifier: notifier, lease: nil, asked: nil, timer: nil, waiting: []})
    {:ok, ask(state)}
  end

  @impl true
  def handle_call(:lease, _from, state), do: {:reply, held(state), state}

  def handle_call({:await, deadline}, from, state) do
    case held(state) do
      {:ok, lease} -> {:reply, {:ok, lease}, state}
      {:error, :lease_ended} -> {:noreply, %{state | waiting: [{from, deadline} | state.waiting]}}
    end
  end

  @impl true
  def handle_info({ref, answer}, %{asked: ref} = state), do: {:noreply, answered(answer, %{state | asked: nil})}
  def handle_info(:ask, %{asked: nil} = state), do: {:noreply, ask(state)}

  # The time in which the holder may go on is over, if this is not of an earlier renewal.
  def handle_info({:over, deadline}, %{lease: %{deadline: deadline}} = state),
    do: {:noreply, lose(state, :not_renewed)}

  # The handler failed, and what the lease protects may go on: the lease is not released, and ends by itself.
  def handle_info({:EXIT, pid, reason}, %{notifier: pid} = state),
    do: {:stop, reason, %{state | notifier: nil, lease: nil}}

  # Of the process that asks; the supervisor's end comes by `terminate`.
  def handle_info({:EXIT, _pid, reason}, state) when reason != :normal, do: {:stop, reason, state}
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{lease: nil}), do: :ok

  def terminate(_reason, %{lease: lease} = state) do
    Notifier.tell(state.notifier, {:lost, lease, :stopped})
    # Another one gets it when it is released: what it protects must have ended by then.
    with :ok <- Notifier.await_idle(state.notifier, min(@handler_timeout, Lease.remaining(lease))),
         do: Lease.release(lease, timeout: @release_timeout)
  end

  # -- Asking the store, in a process of its own: this one always answers

  defp ask(state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    %{state | asked: Renewal.start(state.store, state.name, state.holder, state.ttl, state.lease), timer: nil}
  end

  defp answered({:ok, lease}, state) do
    Process.send_after(self(), {:over, lease.deadline}, Lease.remaining(lease))
    state |> hold(lease) |> ask_after(div(state.ttl, 3))
  end

  defp answered({:error, :lease_ended}, %{lease: %Lease{}} = state),
    do: state |> lose(:lease_ended) |> ask_after(state.retry_ms)

  # It may be in time when it is asked again.
  defp answered({:error, _reason}, %{lease: %Lease{}} = state), do: ask_after(state, div(state.ttl, 10))
  defp answered({:error, _held_or_down}, state), do: ask_after(state, state.retry_ms)

  defp ask_after(state, ms), do: %{state | timer: Process.send_after(self(), :ask, max(ms, 1))}

  # -- Events

  # It came too late: the next renewal may be quicker.
  defp hold(state, lease) do
    cond do
      Lease.remaining(lease) == 0 -> state
      match?(%{epoch: epoch} when epoch == lease.epoch, state.lease) -> %{state | lease: lease}
      true -> acquired(state, lease)
    end
  end

  defp acquired(state, lease) do
    # Another grant than the one that it knew of.
    state = if state.lease, do: lose(state, :lease_ended), else: state
    Notifier.tell(state.notifier, {:acquired, lease})
    for {from, deadline} <- state.waiting, Deadline.remaining(deadline) > 0, do: GenServer.reply(from, {:ok, lease})
    %{state | lease: lease, waiting: []}
  end

  defp lose(%{lease: lease} = state, reason) do
    Notifier.tell(state.notifier, {:lost, lease, reason})
    %{state | lease: nil}
  end

  defp held(%{lease: %Lease{} = lease}),
    do: if(Lease.remaining(lease) > 0, do: {:ok, lease}, else: {:error, :lease_ended})

  defp held(_waiting), do: {:error, :lease_ended}

  # -- Options

  defp store_id!(opts), do: Options.store_id!(opts, Cluster.get_default_store_id())

  defp args!(opts) do
    ttl = Lease.ttl!(opts)

    %{store: store_id!(opts), name: name!(opts[:lease]), ttl: ttl, retry_ms: retry_ms!(opts[:retry_ms], ttl)}
    |> Map.put(:handler, opts[:handler] && Callback.check!(opts[:handler], :handler))
    |> Map.merge(Map.new(Keyword.take(opts, [:holder])))
  end

  defp name!(name) do
    case name != nil && Lease.key(name) do
      {:ok, _key} -> name
      _no_path -> raise ArgumentError, "option :lease must be a path or one component, got: #{inspect(name)}"
    end
  end

  defp retry_ms!(nil, ttl), do: min(@retry_ms, max(div(ttl, 3), 1))
  defp retry_ms!(ms, _ttl) when is_integer(ms) and ms > 0, do: ms

  defp retry_ms!(other, _ttl),
    do: raise(ArgumentError, "option :retry_ms must be milliseconds from 1 on, got: #{inspect(other)}")
end
