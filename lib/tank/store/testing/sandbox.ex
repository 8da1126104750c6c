defmodule Tank.Store.Testing.Sandbox do
  @moduledoc false
  # Which store a name stands for in which process, and which fault a store has.
  #
  #     a call --id--> Tank.Store.Running --is noted as {:resolve, ...}--> resolve/2 in the calling process --> the test's store
  #
  # This process owns the table, and the stores: it stops and removes those whose test has ended without doing so.

  use GenServer

  alias Tank.Store.{Cluster, Owner, ProcessCall, Running}

  @type fault :: :no_quorum | :full | {:slow, pos_integer}

  # Rows: {{pid, name}, store_id}; {{:store, store_id}, fault | nil}.
  @table __MODULE__
  @timeout 60_000

  @doc "The process, which is started once in a VM."
  @spec ensure_started :: pid
  def ensure_started do
    case GenServer.start(__MODULE__, nil, name: __MODULE__) do
      {:ok, pid} -> pid
      {:error, {:already_started, pid}} -> pid
    end
  end

  @doc "Has the names stand for a store, in `owner` and the processes that it starts."
  @spec own(pid, atom, [atom], String.t() | nil) :: :ok
  def own(owner, store_id, names, dir) do
    holder = ensure_started()
    :ok = GenServer.call(holder, {:own, owner, store_id, dir}, @timeout)
    true = :ets.insert(@table, [{{:store, store_id}, nil} | for(name <- names, do: {{owner, name}, store_id})])
    for id <- [store_id | names], do: :ok = Running.resolve_by(id, __MODULE__)
    Owner.stand_in(holder)
  end

  @doc "Has all names that stand for a store in `owner` stand for it in `pid`, too."
  @spec allow(pid, pid) :: :ok
  def allow(owner, pid) do
    rows = for [name, store_id] <- :ets.match(@table, {{owner, :"$1"}, :"$2"}), do: {{pid, name}, store_id}
    true = :ets.insert(@table, rows)
    :ok
  end

  @doc "Stops a store, and removes what is left of it."
  @spec stop(atom) :: :ok
  def stop(store_id) do
    case ProcessCall.call(__MODULE__, {:disown, store_id}, @timeout) do
      dir when is_binary(dir) or is_nil(dir) -> remove(store_id, dir)
      {:error, _never_started} -> :ok
    end
  end

  @doc "Gives a store a fault, or none."
  @spec fault(atom, fault | nil) :: :ok
  def fault(store_id, fault) do
    true = :ets.update_element(@table, {:store, store_id}, {2, fault})
    :ok
  end

  @doc "The store that a name stands for in this process, or nil."
  @spec store(atom) :: atom | nil
  def store(name), do: Enum.find_value(relatives(), &lookup({&1, name}))

  @doc "See `Tank.Store.Running.resolve_by/2`."
  @spec resolve(atom, :read | :write | :local) :: :itself | {:ok, atom} | {:error, atom}
  def resolve(id, kind) do
    case :ets.lookup(@table, {:store, id}) do
      [{_key, fault}] -> strike(fault, kind)
      [] -> if store = store(id), do: {:ok, store}, else: :itself
    end
  rescue
    # The table is gone: the process was killed.
    ArgumentError -> :itself
  end

  defp strike(nil, _kind), do: :itself
  defp strike(_fault, :local), do: :itself
  defp strike(:no_quorum, _kind), do: {:error, :no_quorum}
  defp strike(:full, :write), do: {:error, :disk_full}
  defp strike(:full, :read), do: :itself
  defp strike({:slow, ms}, _kind), do: receive(after: (ms -> :itself))

  # This process, those that it works for, and those that started it.
  defp relatives do
    ancestors = for name <- Process.get(:"$ancestors", []), do: if(is_atom(name), do: Process.whereis(name), else: name)
    [self() | Process.get(:"$callers", [])] ++ ancestors
  end

  defp lookup(key) do
    case :ets.lookup(@table, key) do
      [{_key, store_id}] -> store_id
      [] -> nil
    end
  end

  defp remove(store_id, dir) do
    :ok = Cluster.stop(store_id)
    if dir, do: File.rm_rf(dir)
    :ok
  end

  @impl true
  def init(nil) do
    @table = :ets.new(@table, [:named_table, :public, read_concurrency: true])
    {:ok, %{}}
  end

  @impl true
  def handle_call({:own, owner, store_id, dir}, _from, stores),
    do: {:reply, :ok, Map.put(stores, store_id, {Process.monitor(owner), dir})}

  def handle_call({:disown, store_id}, _from, stores) do
    case Map.pop(stores, store_id) do
      {nil, stores} ->
        {:reply, {:error, :noproc}, stores}

      {{monitor, dir}, stores} ->
        Process.demonitor(monitor, [:flush])
        forget(store_id)
        {:reply, dir, stores}
    end
  end

  # The test has ended: its `on_exit` is about to stop the store, if there is one.
  @impl true
  def handle_info({:DOWN, monitor, :process, _owner, _reason}, stores) do
    for {store_id, {^monitor, _dir}} <- stores, do: Process.send_after(self(), {:ended, store_id}, @timeout)
    {:noreply, stores}
  end

  def handle_info({:ended, store_id}, stores) do
    with {{_monitor, dir}, stores} <- Map.pop(stores, store_id) do
      forget(store_id)
      spawn(fn -> remove(store_id, dir) end)
      {:noreply, stores}
    else
      {nil, stores} -> {:noreply, stores}
    end
  end

  defp forget(store_id) do
    :ets.match_delete(@table, {:_, store_id})
    :ets.delete(@table, {:store, store_id})
  end
end
