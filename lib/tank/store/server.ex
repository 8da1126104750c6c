defmodule Tank.Store.Server do
  @moduledoc false
  # Owns one open store: opens it, makes it known to callers, and closes it. No call goes through this process.
  #
  #     forming: blank, with a list of nodes: finds or founds its cluster first (Tank.Store.Formation)
  #        v
  #     opening --ok--> open --engine fails--> stops, is started again by its supervisor
  #        |             | |---disk fails, or the directory is lost--> degraded: reads go on from the last view, until it
  #        |             | |                                           could be opened again
  #        |             | |---owner dies------> the whole instance is stopped
  #        |             | |---log lost--> joins its own cluster as a new member (Tank.Store.Replacement)
  #        |             | +---join--> opens a new member, and asks until it is one; or the old one again (Tank.Store.Join)
  #        |             +---go_alone--> opens the same member as a cluster of its own
  #        +--error--> does not start, with the reason; if the store ran before and it is the disk, tries again
  #                    (Tank.Store.Reopening)

  use GenServer, shutdown: 30_000

  require Logger

  alias Tank.Store.{
    Alarms,
    Deadline,
    Error,
    Formation,
    Identity,
    Inbox,
    Instance,
    Join,
    LongCall,
    Members,
    Names,
    Native,
    NodeName,
    Options,
    OtherClusters,
    Peers,
    ProcessCall,
    ReadCache,
    Reopening,
    Replacement,
    Running
  }

  alias Tank.Store.Cluster.Unready
  alias Tank.Store.Formation.{Finish, Forming}
  alias Tank.Store.Registry.Feed

  # How often, and for how long, the cluster that was joined is asked what became of that.
  @ask_again_ms 500
  @ask_timeout 3_000

  # Handing leadership over takes milliseconds; a store that stops does not wait long for it.
  @hand_over_timeout 1_000

  # How soon a member is replaced whose disk went back in time: those that it asks have heard of it then. How often that is
  # tried, and how long the new member may take to catch up.
  @replace_after_ms 200
  @replace_again_ms 1_000
  @replace_timeout 3_600_000

  # What was cached and is outdated takes up memory for as long. Looking takes a quarter of a second for a million rows.
  @sweep_every_ms 10_000

  # A store that has no quorum so long after it was opened says which members it lacks.
  @name_missing_ms 10_000

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
    Process.send_after(self(), :sweep, @sweep_every_ms)

    state = %{config: config, link: Peers.link(config.store_id), store: nil, failure: nil}
    state = Map.merge(state, %{joining: nil, swept: nil, forming: nil})

    case Forming.begin(config) do
      :open -> first_open(state)
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

  def handle_call({:join, request, deadline}, _from, state) do
    with :ok <- deafen(state, request.left?), do: join_anew(request, deadline, state)
  end

  def handle_call({:retire, left?}, _from, state) do
    with :ok <- deafen(state, left?) do
      Running.delete(state.config.store_id)
      {:reply, :ok, state}
    end
  end

  def handle_call(:go_alone, _from, %{config: config} = state) do
    :ok = Identity.leaving_cluster(config)
    close(config, state.store)

    case LongCall.open(config |> Options.to_native() |> Map.put(:alone, true), state.link) do
      {:ok, store} ->
        :ok = Identity.opened(config, store)
        publish(config.store_id, store)
        mark_formed(config)
        {:reply, :ok, %{state | store: store}}

      {:error, reason} ->
        open_again({:error, Error.public(reason)}, state)
    end
  end

  @impl true
  def handle_info(:open, %{store: nil} = state) do
    case open(state) do
      {:ok, state} -> {:noreply, state}
      {:stop, error, state} -> {:stop, {:shutdown, error}, state}
    end
  end

  def handle_info(:resolve, %{joining: {member_id, request}, config: config} = state) do
    case Join.resolve(config.store_id, member_id, request, Deadline.in_ms(@ask_timeout)) do
      :voter ->
        {:noreply, stay(state, Deadline.in_ms(@ask_timeout))}

      :removed ->
        close(config, state.store)

        case open_old(state) do
          {:ok, state} -> {:noreply, state}
          {:error, error} -> {:stop, {:shutdown, Error.from_native(error)}, state}
        end

      {:error, _reason} ->
        Process.send_after(self(), :resolve, @ask_again_ms)
        {:noreply, state}
    end
  end

  def handle_info({:EXIT, worker, ended}, %{forming: %{worker: worker}} = state), do: {:noreply, form(ended, state)}

  # Of an engine that did not come up, which was told already.
  def handle_info({:tank_store_failed, _reason}, %{store: nil} = state), do: {:noreply, state}

  def handle_info({:tank_store_failed, reason}, %{forming: forming} = state) when forming != nil,
    do: {:noreply, fail_forming(Error.from_native(reason), state)}

  def handle_info({:tank_store_failed, reason}, state) do
    error = Error.from_native(reason)

    case Reopening.failed(state.config.reopening, error) do
      {:after, ms} when state.joining == nil ->
        {:noreply, degrade(state, error, ms)}

      _not_the_disk ->
        Logger.error("store #{inspect(state.config.store_id)} failed: #{Exception.message(error)}")
        {:stop, {:shutdown, error}, state}
    end
  end

  def handle_info({:tank_store_alarm, turn, alarm}, state) do
    Alarms.log(state.config.store_id, turn, alarm)
    if turn == :raised, do: replace_if_lost(alarm)
    {:noreply, state}
  end

  # The disk of this member went back in time: a new member takes its place.
  def handle_info({:replace, lost} = again, %{store: store, joining: nil} = state) when store != nil do
    with {:ok, %{member_id: id} = cluster} when id == lost.member_id <- Members.of(store),
         {:ok, request} <- Replacement.request(state.config.store_id, cluster, String.to_atom(lost.told_by)) do
      replace(request, state)
    else
      # It was replaced, or closed.
      {:ok, _another} ->
        {:noreply, state}

      {:error, reason} ->
        Logger.warning(
          "store #{inspect(state.config.store_id)}: waits to be replaced by a new member: #{inspect(reason)}"
        )

        Process.send_after(self(), again, @replace_again_ms)
        {:noreply, state}
    end
  end

  def handle_info({:replace, _lost}, state), do: {:noreply, state}

  def handle_info({:DOWN, _ref, :process, owner, _reason}, %{config: %{owner: owner}} = state) do
    # Stopping the instance waits for this process to end, so another one asks for it: for this very instance, since by
    # then there may be another, of the owner's successor.
    {store_id, [instance | _above]} = {state.config.store_id, Process.get(:"$ancestors")}
    spawn(fn -> Instance.stop(store_id, instance) end)
    {:noreply, state}
  end

  def handle_info(:name_missing, state) do
    # The others are asked, which takes a moment.
    spawn(fn -> Unready.log_missing(state.config.store_id) end)
    {:noreply, state}
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
  def terminate(_reason, %{store: nil, config: config}), do: Running.delete(config.store_id)

  def terminate(_reason, %{config: config, store: store}) do
    :ok = Feed.closing(config.store_id)
    # While it still answers: the others go on without an election.
    Members.give_up_leadership(store, Deadline.in_ms(@hand_over_timeout))
    close(config, store)
  end

  # Readers keep the engine that failed: its last view has all that was ever acknowledged here. Everything else of it
  # ends, so that another engine can open the directory.
  defp degrade(%{config: config, store: store} = state, error, again_ms) do
    log(config.store_id, error)
    state = failed(state, error)
    :ok = Inbox.attach(config.store_id, nil)
    # Its last sync mostly fails too.
    _closed = LongCall.retire(store)
    wait(%{state | store: nil}, again_ms)
  end

  defp first_open(%{config: config} = state) do
    case open(state) do
      {:ok, %{store: nil, failure: {:lost, _what} = lost} = state} ->
        # Nothing is left in memory that could be read.
        Running.refuse(config.store_id, lost)
        {:ok, state}

      {:ok, state} ->
        {:ok, state}

      {:stop, error, _state} ->
        {:stop, error}
    end
  end

  # Opens the store, or waits for the next try.
  defp open(%{config: config} = state) do
    case LongCall.open(Options.to_native(config), state.link) do
      {:ok, store} ->
        publish(config.store_id, store)
        {:ok, opened(%{state | store: store})}

      {:error, reason} ->
        error = Error.from_native(reason)

        case Reopening.failed(config.reopening, error) do
          {:after, again_ms} -> {:ok, state |> failed(error) |> wait(again_ms)}
          :no -> {:stop, error, state}
        end
    end
  end

  defp opened(%{config: config} = state) do
    # It is noted already when the store was degraded.
    _noted = Registry.register(Names, {:dir, config.store_id}, {config.data_dir, config.owner})
    :ok = Feed.opened(config.store_id)
    Reopening.opened(config.reopening)
    :ok = Identity.opened(config, state.store)
    :ok = NodeName.check(config.store_id, state.store)
    :ok = Alarms.clear(config.store_id, :directory_lost)
    Process.send_after(self(), :name_missing, @name_missing_ms)

    if formation = config[:formation] do
      OtherClusters.look(config.store_id, formation.nodes)
      Finish.start_link(state.store, config)
    end

    %{state | failure: nil}
  end

  # What the search for a cluster came to.
  defp form({:decided, decision}, %{forming: forming} = state) when decision in [:open, :found] do
    case open(%{state | forming: Forming.opening(forming)}) do
      {:ok, %{forming: forming} = state} ->
        Forming.ended(forming)
        %{state | forming: nil}

      {:stop, error, state} ->
        fail_forming(error, state)
    end
  end

  defp form({:decided, {:join, request}}, %{forming: forming, config: config} = state) do
    case open_new(request, %{state | forming: Forming.opening(forming)}) do
      {:ok, member_id, state} ->
        admit = &Join.admit(config.store_id, state.store, member_id, request, &1)
        %{state | forming: Forming.admit(state.forming, request, admit), joining: {member_id, request}}

      {:error, reason} ->
        fail_forming(Error.from_native(reason), state)
    end
  end

  defp form({:decided, {:admitted, :ok}}, state), do: stay(state, Deadline.in_ms(@ask_timeout))

  # It is not known whether the new member votes.
  defp form({:decided, {:admitted, {:unknown, _reason}}}, state) do
    send(self(), :resolve)
    %{state | forming: %{state.forming | worker: nil}}
  end

  defp form({:decided, {:admitted, {:error, reason}}}, %{config: config} = state) do
    close(config, state.store)
    %{state | store: nil, joining: nil, forming: Forming.search(state.forming, reason)}
  end

  defp form({:decided, {:error, reason}}, state), do: fail_forming(reason, state)
  defp form(crash, state), do: fail_forming({:tank, :formation_failed, %{why: crash}}, state)

  defp fail_forming(reason, state), do: %{state | forming: Forming.fail(state.forming, reason)}

  defp mark_formed(config) do
    with {:error, reason} <- LongCall.mark_formed(config.data_dir), do: warn("marking it as formed", config, reason)
  end

  # An alarm is logged by itself.
  defp log(_store_id, %Error{reason: {:lost, _what}}), do: :ok

  defp log(store_id, error) do
    Logger.error(
      "store #{inspect(store_id)}: #{Exception.message(error)}. Reads go on from memory and writes are refused " <>
        "until it could be opened again, which is tried every 2 seconds"
    )
  end

  defp failed(%{config: config} = state, %Error{reason: {:lost, what}} = error) do
    :ok = Identity.lost(config)
    details = %{what: what, data_dir: config.data_dir}
    :ok = Alarms.set(config.store_id, :directory_lost, Exception.message(error), details)
    %{state | failure: error.reason}
  end

  # A directory that is lost may show other errors while it is removed or put back.
  defp failed(%{failure: {:lost, _what}} = state, _error), do: state
  defp failed(state, error), do: %{state | failure: error.reason}

  defp wait(state, ms) do
    Process.send_after(self(), :open, ms)
    state
  end

  # Takes nothing more from other nodes: it belongs to a member that is about to end. And nobody can come in any more who
  # is not one already, since a learner's answers are not heard. But another member may have come in since the caller
  # looked: ending would leave it behind without a word.
  defp deafen(%{config: %{store_id: store_id}} = state, left?) do
    :ok = Inbox.attach(store_id, nil)

    with {:error, reason} <- if(left?, do: :ok, else: alone(state)) do
      publish(store_id, state.store)
      {:reply, {:error, reason}, state}
    end
  end

  defp alone(state) do
    with {:ok, cluster} <- Members.of(state.store) do
      if Members.others(cluster) == [],
        do: :ok,
        else: {:error, {:tank, :cluster_has_other_members, %{store_id: state.config.store_id}}}
    end
  end

  defp join_anew(request, deadline, %{config: config} = state) do
    close(config, state.store)

    case open_new(request, state) do
      {:ok, member_id, state} ->
        :ok = Identity.joining(config, state.store)
        ask_in(member_id, request, deadline, state)

      {:error, reason} ->
        open_again({:error, Error.public(reason)}, state)
    end
  end

  # When it comes to nothing, the old member is opened again, and raises its alarm again.
  defp replace(request, %{config: %{store_id: store_id}} = state) do
    :ok = Inbox.attach(store_id, nil)

    case join_anew(request, Deadline.in_ms(@replace_timeout), state) do
      {:reply, :ok, state} ->
        Logger.notice("store #{inspect(store_id)}: a new member has taken the place of the former one")
        {:noreply, state}

      {:reply, {:error, reason}, state} ->
        Logger.warning("store #{inspect(store_id)}: was not replaced by a new member: #{inspect(reason)}")
        {:noreply, state}

      {:stop, reason, _answer, state} ->
        {:stop, reason, state}
    end
  end

  # Of all alarms about lost logs only a member's own says who told it so.
  defp replace_if_lost({:log_lost, %{told_by: _node} = lost}),
    do: Process.send_after(self(), {:replace, lost}, @replace_after_ms)

  # Of a minority; otherwise the operator decides.
  defp replace_if_lost({:state_differs, %{replace: 1} = differs}),
    do: Process.send_after(self(), {:replace, differs}, @replace_after_ms)

  defp replace_if_lost(_alarm), do: :ok

  # Opens a new member of the cluster that is to take it in. What was there is set aside.
  defp open_new(request, %{config: config} = state) do
    options = config |> Options.to_native() |> Map.put(:joining, request.cluster_id)
    options = if request.role == :witness, do: Map.put(options, :witness, true), else: options

    with {:ok, store} <- LongCall.open(options, state.link) do
      :ok = Inbox.attach(config.store_id, store)
      {:ok, %{member_id: member_id}} = Members.of(store)
      {:ok, member_id, %{state | store: store}}
    end
  end

  defp ask_in(member_id, request, deadline, %{config: config, store: store} = state) do
    case Join.admit(config.store_id, store, member_id, request, deadline) do
      :ok ->
        {:reply, :ok, stay(state, deadline)}

      {:error, reason} ->
        close(config, store)
        open_again({:error, reason}, state)

      {:unknown, reason} ->
        send(self(), :resolve)
        {:reply, {:error, reason}, %{state | joining: {member_id, request}}}
    end
  end

  # From here on it is a member, whatever the rest of this says.
  defp stay(%{config: config, store: store} = state, deadline) do
    :ok = Identity.opened(config, store)
    Join.settle(store, deadline)
    publish(config.store_id, store)
    joined(%{state | joining: nil})
  end

  defp joined(%{forming: nil} = state), do: state

  defp joined(%{forming: forming} = state) do
    state = opened(state)
    Forming.ended(forming)
    %{state | forming: nil}
  end

  # What was set aside comes back with this.
  defp open_again(answer, state) do
    case open_old(state) do
      {:ok, state} -> {:reply, answer, state}
      {:error, error} -> {:stop, {:shutdown, Error.from_native(error)}, answer, state}
    end
  end

  # Nothing was set aside.
  defp open_old(%{forming: forming} = state) when forming != nil,
    do: {:ok, %{state | store: nil, joining: nil, forming: Forming.search(forming, :not_taken_in)}}

  defp open_old(%{config: config} = state) do
    case LongCall.open(Options.to_native(config), state.link) do
      {:ok, store} ->
        :ok = Identity.opened(config, store)
        publish(config.store_id, store)
        {:ok, %{state | store: store, joining: nil}}

      {:error, error} ->
        warn("opening the store as it was", config, error)
        {:error, error}
    end
  end

  defp publish(store_id, store) do
    # In this order: once frames reach the new engine, others may write through it, and nobody may still read what the
    # one before has.
    Running.put(store_id, store)
    :ok = Inbox.attach(store_id, store)
    with {:ok, cluster} <- Members.of(store), do: Forming.hold(store_id, cluster.cluster_id)
  end

  defp close(config, store) do
    Running.delete(config.store_id)
    :ok = Inbox.attach(config.store_id, nil)

    case Identity.close(config, store) do
      :ok ->
        :ok

      {:error, reason} ->
        warn("closing", config, reason)
    end
  end

  defp warn(doing, config, reason) do
    Logger.error("#{doing}, store #{inspect(config.store_id)}: #{Exception.message(Error.from_native(reason))}")
  end

  defp name(store_id), do: {:via, Registry, {Names, {:server, store_id}}}
end
