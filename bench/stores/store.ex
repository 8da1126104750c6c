defmodule Tank.Bench.Store do
  @moduledoc """
  A store to measure: ours in `stores/tank.ex`, ETS for reads in `stores/ets.ex`, and peers, each a module more, which
  `bench/compare` measures beside ours.
  """

  @type read :: {label :: String.t(), (name :: String.t() -> term)}
  @type listing :: {label :: String.t(), (() -> [term])}

  @doc "Name and version."
  @callback version :: String.t()

  @doc "Starts it in `dir`; returns when it answers."
  @callback start(dir :: Path.t()) :: :ok

  @doc "Stops it; the data stays."
  @callback stop :: :ok

  @doc "Writes a pod; returns when it is durable, if it ever is."
  @callback put(map) :: :ok

  @doc "The ways to read one pod."
  @callback reads :: [read]

  @doc "The ways to list all pods."
  @callback lists :: [listing]

  @doc "Syncs of its log so far; nil when it does not tell."
  @callback syncs :: non_neg_integer | nil

  @doc "Makes this member, which is alone, one of the cluster that `node` is in."
  @callback join(node) :: :ok

  @doc "The node of the leader, as this member knows it."
  @callback leader :: node | nil

  @doc "Makes this member, which is one of several, one that is alone and empty."
  @callback leave :: :ok

  @doc "Whether this member holds the pod of a name: it asks nobody."
  @callback holds?(name :: String.t()) :: boolean

  @doc "Takes over what a file of `khepri:export/3` holds."
  @callback import(Path.t()) :: :ok

  @optional_callbacks join: 1, leader: 0, leave: 0, holds?: 1, import: 1

  @doc "Ends a process of this name that ends when it is sent `:stop`; returns when it is gone."
  @spec stop_process(atom) :: :ok
  def stop_process(name) do
    monitor = Process.monitor(name)
    send(name, :stop)
    receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
  end

  # Enough to keep every store's batches full.
  @fillers 256

  @doc "Writes the pods 1 to `n`, made of their names by `make`."
  @spec fill(module, pos_integer, (String.t() -> map)) :: :ok
  def fill(store, n, make \\ &Tank.Bench.Pods.pod/1) do
    1..n
    |> Enum.chunk_every(max(div(n, @fillers), 1))
    |> Enum.map(&Task.async(fn -> fill_chunk(store, &1, make) end))
    |> Task.await_many(:infinity)

    :ok
  end

  defp fill_chunk(store, chunk, make) do
    for i <- chunk, do: :ok = store.put(make.(Tank.Bench.Pods.name(i)))
  end
end
