defmodule Tank.Store.Server do
  @moduledoc false
  # Owns one open store: opens it, makes it known to callers, and closes it. No call goes through this process.
  #
  #     forming: blank, with a list of nodes: finds or founds its cluster first (Tank.Store.Formation)
  #        v
  #     opening --ok--> open --engine fails--> stops, is started again by its supervisor
  #        |             | |---disk fails, or the directory is lost--> degraded: reads go on from the last view, until it
  #        |             | |                                           could be opened again, and has caught up with that
  #        |             | |---owner dies------> the whole instance is stopped
  #        |             | |---log lost--> joins its own cluster as a new member (Tank.Store.Replacement)
  #        |             | +---join--> opens a new member, and asks until it is one; or the old one again (Tank.Store.Join)
  #        |             +---go_alone--> opens the same member as a cluster of its own
  #        +--error--> does not start, with the reason; if the store ran before and it is the disk, tries again
  #                    (Tank.Store.Reopening)
  #
  # What is done is in server/: opening.ex (opening, and again after a failure of the disk), serving.ex (what callers and
  # other members reach, closing), joining.ex (becoming a member of another cluster).

  use GenServer, shutdown: 30_000

  alias Tank.Store.{
    Alarms,
    Deadline,
    Error,
    Formation,
    Instance,
    LastView,
    Log,
    Members,
    Names,
    Native,
    NodeName,
    Owner,
    Peers,
    ProcessCall,
    ReadCache,
    Reopening,
    Replacement,
    Running,
    Telemetry
  }

  alias Tank.Store.Formation.Forming
  alias Tank.Store.Registry.Feed
  alias Tank.Store.Server.{Joining, Opening, Serving, State}

  # Handing leadership over takes milliseconds; a store that stops does not wait long for it.
  @hand_over_timeout 1_000

  # How soon a member is replaced whose disk went back in time: those that it asks have heard of it then. How often that is
  # tried.
  @replace_after_ms 200
  @replace_again_ms 1_000

  # What was cached and is outdated takes up memory for as long. Looking takes a quarter of a second for a million rows.
  @sweep_every_ms 10_000

  @type config :: %{
          required(:store_id) => atom,
          required(:data_dir) => String.t(),
          required(:owner) => pid | nil,
          required(:options) => map,
          optional(:formation) => Formation.t() | nil,
          optional(:reopening) => Reopening.t()
        }

  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: name(config.store_id))

  @doc "The process that opens, owns or closes a store."
  @spec whereis(atom) :: pid | nil
  def whereis(store_id), do: GenServer.whereis(name(store_id))

  @doc "The directory of a running store."
  @spec data_dir(atom) :: {:ok, String.t()} | {:error, :noproc}
  def data_dir(store_id), do: with({:ok, {dir, _owner}} <- noted(store_id, :dir), do: {:ok, dir})

  @doc """
  The directory of a store that runs or forms its cluster, and the process whose end closes it; nil when it is nobody's.
  """
  @spec started(atom) :: {:ok, {String.t(), pid | nil}} | {:error, :noproc}
  def started(store_id) do
    with {:error, :noproc} <- noted(store_id, :dir),
         {:ok, forming} <- noted(store_id, :forming),
         do: {:ok, {forming.data_dir, forming.owner}}
  end

  @doc "Makes the store a new member of another cluster; what it holds goes when that has taken it in."
  @spec join(atom, map, Deadline.t()) :: :ok | {:error, term}
  def join(store_id, request, deadline),
    do: ProcessCall.call(name(store_id), {:join, request, deadline}, Deadline.remaining(deadline))

  @doc """
  Has the store serve nobody any more, so that it can be erased. Refuses, unless it has left its cluster already, when
  there are other members: one may have come in a moment ago.
  """
  @spec retire(atom, left? :: boolean, Deadline.t()) :: :ok | {:error, term}
  def retire(store_id, left?, deadline),
    do: ProcessCall.call(name(store_id), {:retire, left?}, Deadline.remaining(deadline))

  @doc "Waits until a store that forms its cluster is in it; an error other than `:timeout` is why it never will be."
  @spec await_formed(atom, Deadline.t()) :: :ok | {:error, term}
  def await_formed(store_id, deadline) do
    case noted(store_id, :forming) do
      {:ok, _forming} -> ProcessCall.call(name(store_id), :await_formed, Deadline.remaining(deadline))
      {:error, :noproc} -> :ok
    end
  end

  @doc "Makes the store, with all it holds, the only member of a cluster of its own."
  @spec go_alone(atom, timeout) :: :ok | {:error, term}
  def go_alone(store_id, timeout), do: ProcessCall.call(name(store_id), :go_alone, timeout)

  @doc "The ids of the running stores."
  @spec store_ids :: [atom]
  def store_ids, do: for({store_id, _pid, _dir} <- running(), do: store_id)

  @doc "The running stores, with their servers and directories."
  @spec running :: [{atom, pid, String.t()}]
  def running do
    registered = Registry.select(Names, [{{{:dir, :"$1"}, :"$2", {:"$3", :_}}, [], [{{:"$1", :"$2", :"$3"}}]}])
    # As below.
    Enum.filter(registered, fn {_store_id, pid, _dir} -> Process.alive?(pid) end)
  end

  @doc "What the server of a store has noted. The registry forgets a process a moment after its end."
  @spec noted(atom, :dir | :forming | :holds) :: {:ok, term} | {:error, :noproc}
  def noted(store_id, what) do
    case Registry.lookup(Names, {what, store_id}) do
      [{pid, value}] -> if Process.alive?(pid), do: {:ok, value}, else: {:error, :noproc}
      [] -> {:error, :noproc}
    end
  end

  @impl true
  def init(config) do
    # So that `terminate` runs, and closes the store, when the supervisor stops it.
    Process.flag(:trap_exit, true)

    if config.owner, do: Process.monitor(config.owner)
    :ok = LastView.follow(config.store_id)
    Process.send_after(self(), :sweep, @sweep_every_ms)

    case Peers.link(config.store_id) do
      {:ok, link} -> begin(%State{config: config, link: link})
      {:error, reason} -> {:stop, reason}
    end
  end

  defp begin(%State{config: config} = state) do
    case Forming.begin(config) do
      :open -> Opening.first(state)
      {:form, forming} -> {:ok, %{state | forming: forming}}
    end
  end

  @impl true
  def handle_call(request, from, %{forming: forming} = state) when forming != nil do
    case Forming.call(request, from, forming) do
      {:reply, reply, forming} -> {:reply, reply, %{state | forming: forming}}
      {:noreply, forming} -> {:noreply, %{state | forming: forming}}
    end
  end

  def handle_call(:await_formed, _from, state), do: {:reply, :ok, state}
  # Of a search that has ended meanwhile, here or there.
  def handle_call({kind, _token, _node}, _from, state) when kind in [:promise, :release], do: {:reply, false, state}
  def handle_call({:searching, _token, _nodes, _waits}, _from, state), do: {:reply, :ok, state}

  # Between two tries to open it there is no store, or one that is only read.
  def handle_call(_request, _from, %{store: nil, failure: {:lost, _what} = lost} = state),
    do: {:reply, {:error, lost}, state}

  def handle_call(_request, _from, %{store: nil} = state), do: {:reply, {:error, :noproc}, state}

  # Until it is known whether this is a member of another cluster, it can neither join one nor be alone.
  def handle_call(_request, _from, %{joining: joining} = state) when joining != nil,
    do: {:reply, {:error, :timeout}, state}

  def handle_call({:join, request, deadline}, _from, state), do: Joining.join(state, request, deadline)
  def handle_call({:retire, left?}, _from, state), do: Joining.retire(state, left?)
  def handle_call(:go_alone, _from, state), do: Joining.go_alone(state)

  @impl true
  def handle_info(:open, %{store: nil} = state), do: noreply(Opening.open(state))
  def handle_info(:resolve, %{joining: joining} = state) when joining != nil, do: noreply(Joining.resolve(state))

  def handle_info({:EXIT, worker, ended}, %{forming: %{worker: worker}} = state),
    do: {:noreply, Joining.formed(state, ended)}

  def handle_info({:tank_store_failed, opening, reason}, state) do
    # What another engine failed with was told already: it did not come up, or was closed since.
    if Opening.of_open_engine?(state, opening),
      do: engine_failed(Error.from_native(reason), state),
      else: {:noreply, state}
  end

  def handle_info({:tank_store_alarm, opening, turn, alarm}, state) do
    if Opening.of_open_engine?(state, opening), do: alarm(turn, alarm, state)
    {:noreply, state}
  end

  # The open engine has caught up with what readers have seen, or not.
  def handle_info({ref, answer}, %{catching_up: ref} = state) when is_reference(ref),
    do: {:noreply, Serving.answered(state, answer)}

  def handle_info({:catch_up, ref}, %{catching_up: ref} = state), do: {:noreply, Serving.ask_again(state)}

  def handle_info({:close_former, store}, state) do
    :ok = Serving.close_former(store)
    # This process may be the last one that refers to it, and makes little garbage, so that it collects none.
    {:noreply, state, :hibernate}
  end

  # The disk of this member went back in time: a new member takes its place.
  def handle_info({:replace, lost} = again, %{store: store, joining: nil} = state) when store != nil do
    with {:ok, %{member_id: id} = cluster} when id == lost.member_id <- Members.of(store),
         {:ok, request} <- Replacement.request(state.config.store_id, cluster, String.to_atom(lost.told_by)) do
      noreply(Joining.replace(state, request, Replacement.why(lost)))
    else
      # It was replaced, or closed.
      {:ok, _another} ->
        {:noreply, state}

      {:error, reason} ->
        Log.log(
          state.config.store_id,
          :warning,
          :members,
          "store #{inspect(state.config.store_id)}: waits to be replaced by a new member: #{inspect(reason)}"
        )

        Process.send_after(self(), again, @replace_again_ms)
        {:noreply, state}
    end
  end

  def handle_info({:replace, _lost}, state), do: {:noreply, state}

  def handle_info({:DOWN, _ref, :process, owner, reason}, %{config: %{owner: owner}} = state) do
    # Stopping the instance waits for this process to end, so another one asks for it: for this very instance, since by
    # then there may be another, of the owner's successor.
    {store_id, [instance | _above]} = {state.config.store_id, Process.get(:"$ancestors")}
    spawn(fn -> Instance.stop(store_id, instance) end)
    {:noreply, %{state | owner_crashed?: not Owner.in_order?(reason)}}
  end

  def handle_info(:sweep, %{config: config} = state) do
    Process.send_after(self(), :sweep, @sweep_every_ms)
    # The node may have been distributed, or have got another name, meanwhile.
    if state.store && state.joining == nil, do: NodeName.check(config.store_id, state.store)

    with {:ok, store, cache} <- Running.fetch_with_cache(config.store_id),
         {:ok, view} <- Native.view(store, false),
         revision when revision != state.swept <- Native.view_revision(view) do
      ReadCache.sweep(cache, store)
      {:noreply, %{state | swept: revision}}
    else
      # Nothing has changed, or there is no store just now.
      _nothing_outdated -> {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(reason, %{forming: forming} = state) when forming != nil do
    Forming.stop(forming)
    terminate(reason, %{state | forming: nil})
  end

  # One that is degraded was closed, and is read until now.
  def terminate(_reason, %{store: nil, owner_crashed?: true, config: config}),
    do: Running.leave_to_readers(config.store_id)

  def terminate(_reason, %{store: nil, config: config}), do: Running.delete(config.store_id)

  def terminate(_reason, %{config: config, store: store} = state) do
    began = System.monotonic_time()
    :ok = Feed.closing(config.store_id)
    # While it still answers: the others go on without an election.
    Members.give_up_leadership(store, Deadline.in_ms(@hand_over_timeout))
    if state.owner_crashed?, do: Serving.leave_to_readers(state), else: Serving.close(state)
    took = System.monotonic_time() - began
    Telemetry.execute([:store, :closed], %{duration: took}, %{store_id: config.store_id})
    text = "closed in #{System.convert_time_unit(took, :native, :millisecond)} ms"
    Log.log(config.store_id, :info, :closing, "store #{inspect(config.store_id)}: #{text}")
  end

  defp noreply({:ok, state}), do: {:noreply, state}
  defp noreply({:stop, error, state}), do: {:stop, {:shutdown, error}, state}

  defp engine_failed(error, %{forming: nil} = state), do: noreply(Opening.engine_failed(state, error))
  defp engine_failed(error, state), do: {:noreply, Joining.fail_forming(state, error)}

  defp alarm(turn, alarm, state) do
    Alarms.log(state.config.store_id, turn, alarm)
    if turn == :raised, do: replace_if_lost(alarm)
  end

  # Of all alarms about lost logs only a member's own says who told it so.
  defp replace_if_lost({:log_lost, %{told_by: _node} = lost}),
    do: Process.send_after(self(), {:replace, lost}, @replace_after_ms)

  # Of a minority; otherwise the operator decides.
  defp replace_if_lost({:state_differs, %{replace: 1} = differs}),
    do: Process.send_after(self(), {:replace, differs}, @replace_after_ms)

  defp replace_if_lost(_alarm), do: :ok

  defp name(store_id), do: {:via, Registry, {Names, {:server, store_id}}}
end
