defmodule Tank.Store.ForkStorm do
  @moduledoc """
  Clients of a store that is restored, forced into a new cluster and replaced by an import, again and again.

  On one node: writers, mirrors by `list_since` (with the history in their position and without), by a watch, by a syncer
  and by a projection, and holders of a lease that write only guarded by its epoch. They go on by themselves, whatever
  happens to the store. A mirror fails at a change that does not fit what it has.

  `judge/1` looks at what the writers and holders of all nodes noted: no revision and no epoch was given twice, and no
  holder wrote with a lease of another history, or after another one.
  """

  import ExUnit.Assertions
  import Tank.Store.TankCase, only: [eventually: 3]

  alias Tank.Store.{Backend, Lease, Mirror, Projection, Tree, Watch}

  @root :forks
  @keys 30
  @ttl 150
  # No history of a test is longer.
  @history_length 1_000_000_000_000

  # -- What a test calls, on the node that the clients are of

  @doc "Starts the clients of a node; they end with `stop/0`."
  def start(store, name) do
    caller = self()

    pid =
      spawn(fn ->
        Process.register(self(), __MODULE__)
        {:ok, client} = Backend.new(store, [@root])
        {mirror, _syncer} = Mirror.start_link(client, types: [[root: []]], retry_ms: 20)
        table = :"fork_storm_#{name}"
        {:ok, _projection} = Projection.start_link(store: store, pattern: [@root], table: table)
        since = for kind <- [:with_history, :without], do: spawn_link(fn -> mirror_since(store, kind, nil, %{}) end)
        watch = spawn_link(fn -> mirror_watch(store, nil, %{}) end)
        state = %{syncer: mirror, table: table, since: since, watch: watch, store: store, name: name}
        state = Map.put(state, :led, :counters.new(2, []))
        clients = writers(state)
        send(caller, :started)
        serve(Map.put(state, :clients, clients))
      end)

    monitor = Process.monitor(pid)

    receive do
      :started -> Process.demonitor(monitor, [:flush]) && :ok
      {:DOWN, ^monitor, :process, ^pid, reason} -> flunk("the clients did not start: #{inspect(reason)}")
    end
  end

  @doc "Lets the writers and holders write, or not. Nothing where there are none."
  def write(on?), do: if(Process.whereis(__MODULE__), do: ask({:write, on?}), else: :ok)

  @doc "What the mirrors of this node hold: a map of maps."
  def mirrors, do: ask(:mirrors)

  @doc "What the writers and holders noted, of which this takes note."
  def notes, do: ask(:notes)

  @doc "How many grants and guarded writes the holders of this node had so far."
  @spec led :: {non_neg_integer, non_neg_integer}
  def led, do: ask(:led)

  def stop do
    pid = Process.whereis(__MODULE__)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
  end

  @doc "What the store holds, as the mirrors do."
  def contents(store) do
    with {:ok, entries, _revision} <- Tree.list(store, [@root], depth: :infinity), do: {:ok, by_path(entries)}
  end

  @doc "Waits until all mirrors of this node hold what the store holds, which nobody writes to."
  def await_equal(store, what) do
    eventually(
      "the mirrors to equal the store after #{what}",
      fn ->
        with {:ok, expected} <- contents(store) do
          differing = for {name, held} <- mirrors(), held != expected, do: {name, difference(held, expected)}
          differing == [] or {:not_yet, differing}
        else
          error -> {:not_yet, error}
        end
      end,
      60_000
    )
  end

  @doc "Fails when the notes of all nodes tell of a revision or an epoch twice, or of a stale holder that wrote."
  def judge(notes) do
    written = for {:wrote, revision, _what} <- notes, do: revision
    guarded = for {:guarded, revision, epoch} <- notes, do: {revision, epoch}
    epochs = for {:granted, epoch} <- notes, do: epoch
    revisions = written ++ Enum.map(guarded, &elem(&1, 0)) ++ epochs
    assert twice(revisions) == [], "given twice: #{inspect(twice(revisions))}"

    assert Enum.all?(guarded, fn {revision, epoch} -> (revision - epoch) in 1..@history_length end),
           "of another history"

    in_order = guarded |> Enum.sort() |> Enum.map(&elem(&1, 1))
    assert in_order == Enum.sort(in_order), "a stale holder wrote"
    %{writes: length(written), guarded: length(guarded), grants: length(epochs)}
  end

  defp twice(all), do: all -- Enum.uniq(all)

  defp difference(held, expected) do
    keys = for {key, _value} <- Map.merge(held, expected), held[key] != expected[key], do: key
    for key <- Enum.take(keys, 3), do: {key, held: held[key], expected: expected[key]}
  end

  # -- The process that the clients belong to

  defp ask(what) do
    pid = Process.whereis(__MODULE__) || flunk("the clients have ended")
    monitor = Process.monitor(pid)
    send(pid, {what, self(), monitor})

    receive do
      {^monitor, answer} -> Process.demonitor(monitor, [:flush]) && answer
      {:DOWN, ^monitor, :process, ^pid, reason} -> flunk("the clients have ended: #{Exception.format_exit(reason)}")
    end
  end

  defp serve(state) do
    receive do
      {{:write, true}, from, ref} ->
        send(from, {ref, :ok})
        serve(%{state | clients: state.clients ++ writers(state)})

      {{:write, false}, from, ref} ->
        notes = Enum.flat_map(state.clients, &stopped/1)
        send(from, {ref, :ok})
        serve(state |> Map.update(:notes, notes, &(notes ++ &1)) |> Map.put(:clients, []))

      {:notes, from, ref} ->
        send(from, {ref, Map.get(state, :notes, [])})
        serve(state)

      {:led, from, ref} ->
        send(from, {ref, {:counters.get(state.led, 1), :counters.get(state.led, 2)}})
        serve(state)

      {:mirrors, from, ref} ->
        send(from, {ref, held(state)})
        serve(state)
    end
  end

  defp stopped(client) do
    send(client, {:stop, self()})
    receive do: ({^client, notes} -> notes)
  end

  defp held(state) do
    [with_history, without] = Enum.map(state.since, &held_by/1)

    %{
      with_history: with_history,
      without: without,
      watch: held_by(state.watch),
      syncer: for({[key], {value, _revision}} <- Mirror.state(state.syncer).entries, into: %{}, do: {key, value}),
      projection: for({[_root, key], value} <- :ets.tab2list(state.table), into: %{}, do: {key, value})
    }
  end

  defp held_by(mirror) do
    send(mirror, {:held, self()})
    receive do: ({^mirror, held} -> held)
  end

  # -- Writers and holders of a lease

  defp writers(%{store: store, name: name, led: led}) do
    writers = for n <- 1..2, do: spawn_link(fn -> write_on(store, {name, n}, 0, []) end)
    holders = for n <- 1..2, do: spawn_link(fn -> contend({store, led}, {name, n, make_ref()}, []) end)
    writers ++ holders
  end

  defp asked_to_stop(notes, then) do
    receive do
      {:stop, from} -> send(from, {self(), notes})
    after
      :rand.uniform(4) - 1 -> then.()
    end
  end

  defp write_on(store, name, n, notes) do
    path = [@root, "k#{:rand.uniform(@keys)}"]
    value = {name, self(), n}

    note =
      case :rand.uniform(4) do
        1 -> if(is_tuple(Tree.delete(store, path, timeout: 500)), do: [])
        _put -> written(Tree.put(store, path, value, timeout: 500), value)
      end

    asked_to_stop(note ++ notes, fn -> write_on(store, name, n + 1, note ++ notes) end)
  end

  defp written({:ok, revision}, value), do: [{:wrote, revision, value}]
  defp written({:error, _down_or_unknown}, _value), do: []

  defp contend({store, led} = what, name, notes) do
    case Lease.acquire(store, "forks", holder: name, ttl: @ttl, timeout: 500) do
      {:ok, lease} ->
        :counters.add(led, 1, 1)
        hold(what, name, lease, [{:granted, lease.epoch} | notes])

      {:error, _held_or_down} ->
        asked_to_stop(notes, fn -> contend(what, name, notes) end)
    end
  end

  # A holder goes on whatever the answers are, as one that hears nothing would: until it is told that it holds nothing.
  defp hold({store, led} = what, name, lease, notes) do
    compare = [{:lease, "forks", :epoch, lease.epoch}]
    guarded = Tree.txn(store, compare, [{:put, [@root, "led"], {name, lease.epoch}}], [], timeout: 500)
    renewed = if :rand.uniform(3) == 1, do: Lease.renew(lease, timeout: 500)
    notes = guarded(guarded, lease, led) ++ notes

    cond do
      match?({:ok, %{succeeded: false}}, guarded) or renewed == {:error, :lease_ended} ->
        asked_to_stop(notes, fn -> contend(what, name, notes) end)

      :rand.uniform(50) == 1 ->
        Lease.release(lease, timeout: 500)
        asked_to_stop(notes, fn -> contend(what, name, notes) end)

      true ->
        asked_to_stop(notes, fn -> hold(what, name, lease, notes) end)
    end
  end

  defp guarded({:ok, %{succeeded: true, revision: revision}}, lease, led) do
    :counters.add(led, 2, 1)
    [{:guarded, revision, lease.epoch}]
  end

  defp guarded(_refused_or_down, _lease, _led), do: []

  # -- Mirrors

  defp mirror_since(store, kind, position, held) do
    receive do
      {:held, from} ->
        send(from, {self(), held})
        mirror_since(store, kind, position, held)
    after
      2 ->
        {position, held} = look(store, kind, position, held)
        mirror_since(store, kind, position, held)
    end
  end

  defp look(store, kind, nil, held) do
    with {:ok, history} <- Tree.history(store, timeout: 500),
         {:ok, entries, revision} <- Tree.list(store, [@root], depth: :infinity, timeout: 500) do
      {if(kind == :with_history, do: {history, revision}, else: revision), by_path(entries)}
    else
      {:error, _down} -> {nil, held}
    end
  end

  defp look(store, kind, position, held) do
    case Tree.list_since(store, [@root], position, timeout: 500) do
      :unchanged -> {position, held}
      {:ok, changes, revision} -> {moved(position, revision), Enum.reduce(changes, held, &apply_change/2)}
      {:error, {:compacted, _min}} -> look(store, kind, nil, held)
      {:error, _down} -> {position, held}
    end
  end

  defp moved({history, _before}, revision), do: {history, revision}
  defp moved(_before, revision), do: revision

  defp mirror_watch(store, position, held) do
    from = if position, do: {:after, position}, else: :snapshot

    case Watch.start(store, [@root], from: from, timeout: 500, progress_interval_ms: 20) do
      {:ok, watch} -> follow(store, watch, position, held, [])
      {:error, {:compacted, _min}} -> mirror_watch(store, nil, held)
      {:error, _down} -> mirror_later(store, position, held)
    end
  end

  defp mirror_later(store, position, held) do
    receive do
      {:held, from} -> send(from, {self(), held})
    after
      5 -> :ok
    end

    mirror_watch(store, position, held)
  end

  defp follow(store, %Watch{ref: ref, history: history} = watch, position, held, parts) do
    receive do
      {:store_watch, ^ref, {:snapshot_part, entries}} ->
        follow(store, watch, position, held, entries ++ parts)

      {:store_watch, ^ref, {:snapshot, entries, revision}} ->
        follow(store, watch, {history, revision}, by_path(entries ++ parts), [])

      {:store_watch, ^ref, {:changes, revision, changes}} ->
        follow(store, watch, {history, revision}, Enum.reduce(changes, held, &apply_change/2), [])

      {:store_watch, ^ref, {kind, revision}} when kind in [:synced, :progress] ->
        follow(store, watch, {history, revision}, held, parts)

      {:store_watch, ^ref, {:cancelled, {:compacted, _min}}} ->
        mirror_watch(store, nil, held)

      {:store_watch, ^ref, {:cancelled, _stopped}} ->
        mirror_later(store, position, held)

      {:held, from} ->
        send(from, {self(), held})
        follow(store, watch, position, held, parts)
    end
  end

  defp apply_change(%{path: [@root, key]} = change, held) do
    if Map.get(held, key) != change.previous, do: raise("#{inspect(change)}, and the mirror has #{inspect(held[key])}")
    if change.type in [:deleted, :expired], do: Map.delete(held, key), else: Map.put(held, key, change.value)
  end

  defp by_path(entries), do: for(%{path: [@root, key], value: value} <- entries, into: %{}, do: {key, value})
end
