defmodule Tank.Store.WatchCollector do
  @moduledoc """
  Watches that start, resume and end at random, on whatever node they are started, and note what they are told.

  A part is `{first, upto, seen}`: all revisions behind `first` and up to `upto`, as `Tank.Store.Watched.plain/1` has them.
  """

  alias Tank.Store.{Watch, Watched}

  @doc "Starts a collector, registered as `name`."
  def start(name, store, prefix, after_revision) do
    spawn(fn ->
      Process.register(self(), name)
      collect(store, prefix, after_revision, [])
    end)

    :ok
  end

  @doc "The parts that a collector has seen once it has come to `revision`."
  def stop(name, revision) do
    ref = make_ref()
    send(name, {:stop, self(), ref, revision})
    receive do: ({^ref, parts} -> parts)
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

  @doc "What of a log is at or below `prefix`, in the revisions behind `first` up to `upto`."
  def filtered(log, prefix, first, upto) do
    for {revision, changes} <- log,
        revision > first,
        revision <= upto,
        below = Enum.filter(changes, fn {_type, path, _v, _p} -> List.starts_with?(path, prefix) end),
        below != [],
        do: {revision, below}
  end

  defp collect(store, prefix, first, parts) do
    case Watch.start(store, prefix, from: {:after, first}, interval: 20) do
      {:ok, watch} ->
        {upto, seen, stop} = listen(watch, :rand.uniform(200), first, [], nil)
        Watch.cancel(watch)
        parts = [{first, upto, Enum.reverse(seen)} | parts]
        go_on(stop, store, prefix, max(upto - :rand.uniform(20), 0), upto, parts)

      {:error, _reason} ->
        Process.sleep(10)
        collect(store, prefix, first, parts)
    end
  end

  defp go_on({pid, ref, revision}, _store, _prefix, _first, upto, parts) when upto >= revision,
    do: send(pid, {ref, parts})

  defp go_on(stop, store, prefix, first, _upto, parts) do
    # Asked to stop, and not there yet.
    with {pid, ref, revision} <- stop, do: send(self(), {:stop, pid, ref, revision})
    collect(store, prefix, first, parts)
  end

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
