defmodule Tank.Store.WatchCollector do
  @moduledoc """
  Watches that start, resume and end at random, on whatever node they are started, and note what they are told.

  A part is `{first, upto, seen}`: all revisions behind `first` and up to `upto`, as `Tank.Store.Watched.plain/1` has them.
  A collector with a file adds each part to it, so that they outlive its node.
  """

  alias Tank.Store.{Projection, Watch, Watched}

  @doc "Starts a collector of a prefix or a pattern, registered as `name`."
  def start(name, store, about, after_revision, file \\ nil) do
    spawn(fn ->
      Process.register(self(), name)
      collect(%{store: store, about: about, file: file, parts: []}, after_revision)
    end)

    :ok
  end

  @doc "The parts that a collector has seen once it has come to `revision`; those without a file."
  def stop(name, revision) do
    ref = make_ref()
    send(name, {:stop, self(), ref, revision})
    receive do: ({^ref, parts} -> parts)
  end

  @doc "The parts in a file. A node that was killed may have left half of the last one."
  def parts(file) do
    for line <- File.read!(file) |> String.split("\n") |> Enum.drop(-1), do: decode(line)
  end

  @doc "Starts one watch of everything that is not resumed, and a projection of it as the table `name`."
  def follow(name, store, after_revision) do
    test = self()

    spawn(fn ->
      {:ok, _projection} = Projection.start_link(store: store, table: name)
      Process.register(self(), name)
      {:ok, watch} = Watch.start(store, [], from: {:after, after_revision}, lag_timeout_ms: :infinity)
      send(test, {name, :follows})
      follow_on(watch, [])
    end)

    receive do: ({^name, :follows} -> :ok)
  end

  @doc "What that watch was told so far, and how it ended; nil while it goes on."
  def followed(name) do
    ref = make_ref()
    send(name, {:followed, self(), ref})
    receive do: ({^ref, seen, ended} -> {seen, ended})
  end

  defp follow_on(%Watch{ref: watch_ref} = watch, seen, ended \\ nil) do
    receive do
      {:store_watch, ^watch_ref, {:changes, _revision, _changes} = message} ->
        follow_on(watch, [Watched.plain(message) | seen], ended)

      {:store_watch, ^watch_ref, {:cancelled, reason}} ->
        follow_on(watch, seen, reason)

      {:store_watch, ^watch_ref, _place} ->
        follow_on(watch, seen, ended)

      {:followed, pid, ref} ->
        send(pid, {ref, Enum.reverse(seen), ended})
        follow_on(watch, seen, ended)
    end
  end

  @doc "The whole history behind a revision, as a watch tells it."
  def history(store, revision, upto) do
    store
    |> Watch.stream([], from: {:after, revision})
    |> Enum.reduce_while([], fn
      {:changes, at, _changes} = message, log when at < upto -> {:cont, [Watched.plain(message) | log]}
      {:changes, _at, _changes} = message, log -> {:halt, [Watched.plain(message) | log]}
      {:synced, at}, log when at >= upto -> {:halt, log}
      {kind, _at}, log when kind in [:synced, :progress] -> {:cont, log}
    end)
    |> Enum.reverse()
  end

  @doc "What of a log a prefix or a pattern of names is about, in the revisions behind `first` up to `upto`."
  def filtered(log, about, first, upto) do
    for {revision, changes} <- log,
        revision > first,
        revision <= upto,
        below = Enum.filter(changes, fn {_type, path, _v, _p} -> about?(path, about) end),
        below != [],
        do: {revision, below}
  end

  defp about?(path, about) do
    if :* in about,
      do: length(path) == length(about) and Enum.all?(Enum.zip(path, about), fn {name, part} -> part in [:*, name] end),
      else: List.starts_with?(path, about)
  end

  defp collect(%{store: store, about: about} = state, first) do
    case Watch.start(store, about, from: {:after, first}, progress_interval_ms: 20) do
      {:ok, watch} ->
        {upto, seen, stop} = listen(watch, :rand.uniform(200), first, [], nil)
        Watch.cancel(watch)
        go_on(stop, keep(state, {first, upto, Enum.reverse(seen)}), max(upto - :rand.uniform(20), 0), upto)

      # It was away for too long.
      {:error, {:compacted, min}} ->
        collect(state, min)

      {:error, _reason} ->
        Process.sleep(10)
        collect(state, first)
    end
  end

  defp go_on({pid, ref, revision}, state, _first, upto) when upto >= revision, do: send(pid, {ref, state.parts})

  defp go_on(stop, state, first, _upto) do
    # Asked to stop, and not there yet.
    with {pid, ref, revision} <- stop, do: send(self(), {:stop, pid, ref, revision})
    collect(state, first)
  end

  defp keep(%{file: nil} = state, part), do: %{state | parts: [part | state.parts]}

  defp keep(state, part) do
    # In one write: what is killed meanwhile leaves half a line at most.
    File.write!(state.file, [part |> :erlang.term_to_binary() |> Base.encode64(), "\n"], [:append])
    state
  end

  defp decode(line), do: line |> Base.decode64!() |> :erlang.binary_to_term()

  defp listen(_watch, 0, upto, seen, stop), do: {upto, seen, stop}

  defp listen(%Watch{ref: ref} = watch, left, upto, seen, stop) do
    receive do
      {:store_watch, ^ref, {:changes, revision, _changes} = message} ->
        listen(watch, left - 1, revision, [Watched.plain(message) | seen], stop)

      {:store_watch, ^ref, {:cancelled, _reason}} ->
        {upto, seen, stop}

      {:store_watch, ^ref, {_kind, revision}} ->
        upto = max(upto, revision)
        if reached?(stop, upto), do: {upto, seen, stop}, else: listen(watch, left, upto, seen, stop)

      {:stop, pid, stop_ref, revision} ->
        stop = {pid, stop_ref, revision}
        if reached?(stop, upto), do: {upto, seen, stop}, else: listen(watch, left, upto, seen, stop)
    end
  end

  defp reached?(nil, _upto), do: false
  defp reached?({_pid, _ref, revision}, upto), do: upto >= revision
end
