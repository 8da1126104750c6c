defmodule Tank.Bench.Store.Tank do
  @moduledoc "Tank.Store, one member."

  @behaviour Tank.Bench.Store

  alias Tank.Store.{Call, Native, Path, Running}

  {:ok, pods_key} = Path.to_key([:tank, :pods])
  @pods_key pods_key

  @impl true
  def version, do: "tank_store #{Native.version()}"

  @impl true
  def start(dir) do
    {:ok, _started} = Application.ensure_all_started(:tank_store)
    {:ok, pid} = Tank.Store.start_link(data_dir: dir)
    Process.unlink(pid)
    :ok
  end

  @impl true
  def stop, do: GenServer.stop(Tank.Store, :normal, :infinity)

  @impl true
  def put(pod), do: Tank.Store.put_pod(pod)

  @impl true
  def reads, do: [{"get_pod", &Tank.Store.get_pod/1}, {"local read", &local/1}]

  @impl true
  def lists, do: [{"list_pods", &Tank.Store.list_pods/0}]

  @impl true
  def syncs do
    {:ok, status} = Native.status(store())
    status.fsyncs
  end

  @impl true
  def join(node), do: Tank.Store.Cluster.join(:tank, node, 60_000)

  @impl true
  def leader do
    {:ok, leader} = Tank.Store.Cluster.leader(:tank)
    leader
  end

  @impl true
  def leave do
    # `Tank.Store` ends with the store that it started, which Erlang reports as an error.
    :logger.set_primary_config(:level, :critical)
    Tank.Store.Cluster.reset(:tank)
  end

  @impl true
  def holds?(name), do: match?({:ok, _pod}, local(name))

  @impl true
  def import(path) do
    {:ok, _counts} = Tank.Store.Backup.import_khepri(:tank, path)
    :ok
  end

  @doc "What a reconciler asks in vain most of the time: what has changed since it last looked. Takes that revision."
  @spec changed(non_neg_integer) :: :unchanged | {:ok, [Tank.Store.Change.t()], non_neg_integer}
  def changed(revision), do: Tank.Store.Tree.list_since(:tank, [:tank, :pods], revision)

  @doc "The revision of the store."
  @spec revision :: non_neg_integer
  def revision do
    {:ok, _entries, revision} = Tank.Store.Tree.list(:tank, [:tank, :pods])
    revision
  end

  # What a read that may lag behind costs: as get_pod reads, without looking whether this member still leads.
  defp local(name), do: Call.get_local(:tank, name, &{:ok, Path.child_key(@pods_key, &1)})

  defp store do
    {:ok, store} = Running.fetch(:tank)
    store
  end
end
