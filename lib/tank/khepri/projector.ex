defmodule Tank.Khepri.Projector do
  @moduledoc false
  # Keeps the tables of all projections of a store on this member. It owns them, fills them from a view, and follows the
  # store's changes itself, without the process of a `Tank.Store.Watch` between. A writer waits until its own revision is in
  # the tables; that costs nothing while there are none.
  #
  # A view that tables were filled from may be ahead of the changes: those up to its revision are passed over.

  use GenServer

  import Tank.Khepri.Records, only: [khepri_projection: 1]

  alias Tank.Khepri.{Condition, Core, Engine, Event, Match, Path, Projections, Tables}
  alias Tank.Store.{Change, Native}

  @retry_ms 50
  # A revision that changed no entry is not told of unless it is asked for. Most are told of sooner than this.
  @ask_after_ms 1
  # In the atomics: the last revision that is in the tables, and how many projections there are.
  @revision 1
  @count 2

  @spec start_link(atom) :: GenServer.on_start()
  def start_link(store), do: GenServer.start_link(__MODULE__, store)

  @spec child_spec(atom) :: Supervisor.child_spec()
  def child_spec(store), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [store]}}

  @doc "Waits until the tables hold a revision."
  @spec await(atom, non_neg_integer) :: :ok
  def await(store, revision) do
    with {pid, counters} <- :persistent_term.get({__MODULE__, store}, nil),
         true <- :atomics.get(counters, @count) > 0 and :atomics.get(counters, @revision) < revision do
      call(pid, {:await, revision})
    else
      _nothing_to_wait_for -> :ok
    end
  end

  @doc "Waits until the tables are those of the projections that are registered now."
  @spec await_registered(atom) :: :ok
  def await_registered(store) do
    with {pid, _counters} <- :persistent_term.get({__MODULE__, store}, nil),
         {:ok, view} <- Engine.view(store, :low_latency, 5_000) do
      call(pid, {:await, Native.view_revision(view)})
    else
      _nobody_or_no_store -> :ok
    end
  end

  # A projector that is late or gone does not fail what is written already.
  defp call(pid, request) do
    GenServer.call(pid, request, 30_000)
  catch
    :exit, _late_or_gone -> :ok
  end

  @impl GenServer
  def init(store) do
    Process.flag(:trap_exit, true)
    counters = :atomics.new(2, [])
    :persistent_term.put({__MODULE__, store}, {self(), counters})

    state = %{
      store: store,
      counters: counters,
      watch: nil,
      projections: %{},
      waiting: [],
      asking?: false,
      revision: 0
    }

    {:ok, connect(state)}
  end

  @impl GenServer
  def terminate(_reason, state) do
    :persistent_term.erase({__MODULE__, state.store})
    :ok
  end

  @impl GenServer
  def handle_call({:await, revision}, from, state) do
    # It is there already, and is told of in a moment: it takes less to look.
    state = if revision > state.revision, do: take(state), else: state
    {:noreply, answer(%{state | waiting: [{revision, from} | state.waiting]})}
  end

  @impl GenServer
  def handle_info(:tank_watch_ready, state), do: {:noreply, take(state)}
  def handle_info(:connect, state), do: {:noreply, connect(state)}
  def handle_info(:ask, state), do: {:noreply, ask(%{state | asking?: false})}
  def handle_info(_other, state), do: {:noreply, state}

  # -- Following the store

  defp connect(state) do
    with {:ok, watch} <- Engine.follow(state.store),
         {:ok, view} <- Engine.view(state.store, :low_latency, 5_000) do
      %{state | watch: watch} |> register(view) |> reached(Native.view_revision(view)) |> take()
    else
      {:error, _reason} -> lost(state)
    end
  end

  # Opened again, or too far behind: all is compared with the store.
  defp lost(state) do
    Process.send_after(self(), :connect, @retry_ms)
    %{state | watch: nil}
  end

  defp take(%{watch: nil} = state), do: state

  defp take(state) do
    case Engine.taken(state.watch) do
      {more, revisions, position} ->
        # Between two batches it hears who waits.
        if more == :more, do: send(self(), :tank_watch_ready)
        revisions |> Enum.reduce(state, &told/2) |> reached(position)

      {:error, _reason} ->
        lost(state)
    end
  end

  defp told({revision, changes}, state) do
    changes = Change.all(changes, false)
    events = Event.of(changes)
    overlay = {Map.new(events, &{&1.path, &1}), state.store}
    state = Enum.reduce(events, state, &change(&1, revision, overlay, &2))
    state = if Enum.any?(changes, &registration?/1), do: register_anew(state), else: state

    reached(state, revision)
  end

  defp reached(state, revision) do
    :atomics.put(state.counters, @count, map_size(state.projections))
    :atomics.put(state.counters, @revision, max(revision, state.revision))
    answer(%{state | revision: max(revision, state.revision)})
  end

  defp answer(state) do
    {done, waiting} = Enum.split_with(state.waiting, fn {revision, _from} -> revision <= state.revision end)
    for {_revision, from} <- done, do: GenServer.reply(from, :ok)
    ask_soon(%{state | waiting: waiting})
  end

  defp ask_soon(%{waiting: [_ | _], asking?: false} = state) do
    Process.send_after(self(), :ask, @ask_after_ms)
    %{state | asking?: true}
  end

  defp ask_soon(state), do: state

  # It looks for itself.
  defp ask(%{waiting: [_ | _]} = state), do: take(state)
  defp ask(state), do: state

  # -- Registrations

  defp registration?(%Change{path: path}), do: Projections.registration?(path)
  defp registration?(_node), do: false

  defp register_anew(state) do
    case Engine.view(state.store, :low_latency, 5_000) do
      {:ok, view} -> register(state, view, Map.keys(state.projections))
      {:error, _reason} -> state
    end
  end

  # `filled`: those that are followed already.
  defp register(state, view, filled \\ []) do
    registered = Map.new(Projections.all(view))
    for {name, known} <- state.projections, not is_map_key(registered, name), do: Tables.delete(known.projection)

    projections =
      Map.new(registered, fn {name, {pattern, projection}} ->
        known = state.projections[name]
        same? = name in filled and known != nil and known.projection == projection and known.given == pattern
        {name, if(same?, do: known, else: filled(view, pattern, projection))}
      end)

    %{state | projections: projections}
  end

  defp filled(view, given, projection) do
    :ok = Tables.create(projection)
    {:ok, nodes} = Core.fold(view, given, %{}, [], fn path, {_key, props}, nodes -> [{path, props} | nodes] end)
    :ok = Tables.fill(projection, nodes)
    pattern = given |> Path.realpath() |> Path.compile()

    %{
      given: given,
      projection: projection,
      pattern: pattern,
      shape: Match.shape(pattern),
      # Most patterns are of one depth, which tells most changes apart at once.
      # Whether more than the payload is of concern.
      whole?: whole?(projection) or not Match.by_name?(pattern),
      levels: if(Enum.any?(pattern, &Condition.applies_to_grandchildren/1), do: :any, else: length(pattern)),
      by_name?: Match.by_name?(pattern),
      # Which nodes have a row, where that does not follow from their paths.
      matched: if(Match.by_name?(pattern), do: nil, else: MapSet.new(nodes, &elem(&1, 0))),
      revision: Native.view_revision(view)
    }
  end

  defp whole?(khepri_projection(projection_fun: fun)), do: is_function(fun, 4)

  # -- Changes

  defp change(%{path: path} = event, revision, overlay, state) do
    levels = length(path)

    Enum.reduce(state.projections, state, fn {name, projection}, state ->
      if projection.levels in [levels, :any] and revision > projection.revision and
           (event.payload? or projection.whole?) and Match.matches?(projection.shape, path, fn _path -> %{} end),
         do: put_in(state.projections[name], changed(projection, event, overlay)),
         else: state
    end)
  end

  defp changed(%{by_name?: true} = projection, event, overlay) do
    update(projection, event, event.old, event.new, overlay)
    projection
  end

  defp changed(projection, %{path: path} = event, overlay) do
    was? = MapSet.member?(projection.matched, path)
    is? = event.new != %{} and Match.matches?(projection.pattern, path, &lookup(&1, overlay))
    [old, new] = for {matched?, props} <- [{was?, event.old}, {is?, event.new}], do: if(matched?, do: props, else: %{})
    if was? or is?, do: update(projection, event, old, new, overlay)
    changed = if is?, do: &MapSet.put/2, else: &MapSet.delete/2
    %{projection | matched: changed.(projection.matched, path)}
  end

  # Only a function of all properties gets those of the children, too.
  defp update(%{projection: projection}, %{path: path}, old, new, overlay) do
    [old, new] =
      if whole?(projection), do: for(props <- [old, new], do: complete(props, path, overlay)), else: [old, new]

    Tables.update(projection, path, old, new)
  end

  defp lookup(path, {events, store} = overlay) do
    case events do
      %{^path => %{new: new}} when new == %{} -> nil
      %{^path => %{new: new}} -> complete(new, path, overlay)
      _unchanged -> with(view when view != nil <- view(store), {_key, props} <- node(view, path), do: props)
    end
  end

  defp complete(props, path, {_events, store}), do: Event.with_children(props, path, fn -> view(store) end)

  defp node(view, path), do: Engine.node(view, Engine.key(path), :props)

  defp view(store) do
    case Engine.view(store, :low_latency, 5_000) do
      {:ok, view} -> view
      {:error, _reason} -> nil
    end
  end
end
