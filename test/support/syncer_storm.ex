defmodule Tank.Store.SyncerStorm do
  @moduledoc "On a node of a test: who writes below a client's prefix, at random, until told to stop."

  alias Tank.Store.{Backend, KVPair, Tree}

  @doc "Starts so many writers, and one who compacts the history now and then."
  def start(client, writers) do
    storm =
      spawn(fn ->
        Process.register(self(), __MODULE__)
        tasks = for _n <- 1..writers, do: Task.async(fn -> until_told(fn -> write(client) end, 0) end)
        compactor = Task.async(fn -> until_told(fn -> compact(client.store) end, 0) end)
        receive do: ({:stop, from} -> send(from, {self(), stop([compactor | tasks])}))
      end)

    {:ok, storm}
  end

  @doc "Stops them, and gives how often all of them succeeded."
  def stop do
    storm = Process.whereis(__MODULE__)
    send(storm, {:stop, self()})
    receive do: ({^storm, count} -> count)
  end

  defp stop(tasks) do
    for task <- tasks, do: send(task.pid, :stop)
    tasks |> Task.await_many(60_000) |> Enum.sum()
  end

  defp until_told(fun, count) do
    receive do
      :stop -> count
    after
      0 -> until_told(fun, if(fun.(), do: count + 1, else: count))
    end
  end

  # Without a leader a write fails, and what came of it is the store's to say.
  defp write(client) do
    key = [Enum.random(["a", "b", "c"]) | Enum.take_random(["x", "y", "z", "1", "2"], Enum.random(1..3))]

    result =
      case Enum.random(1..10) do
        n when n <= 6 -> Backend.apply(client, %KVPair{key: key, value: n})
        n when n <= 8 -> Backend.delete(client, key)
        9 -> Backend.delete(client, Enum.take(key, 2))
        10 -> Backend.apply(client, %KVPair{key: key, value: :short, ttl: 1})
      end

    result == :ok or match?({:ok, _kv}, result)
  end

  defp compact(store) do
    receive do
      :stop -> send(self(), :stop)
    after
      200 -> :ok
    end

    with {:ok, _entries, revision} <- Tree.list(store, [], keys_only: true), do: Tree.compact(store, revision) == :ok
  end
end
