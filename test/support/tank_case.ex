defmodule Tank.Store.TankCase do
  @moduledoc """
  For tests that need a store: a directory of its own for each test, ways to make it fail, and waiting for things.

  `@tag :tmp_dir` gives the directory as `tmp_dir`. `start_store/2` starts a store that ends with the test, and
  `start_tank/2` starts `Tank.Store`, of which there is one in a VM: tests that use it are not `async`.
  """

  use ExUnit.CaseTemplate

  alias Tank.Store.{Cluster, Instance, Native, Server}

  using do
    quote do
      import Tank.Store.TankCase
    end
  end

  @doc "Starts a store in `dir` that is stopped when the test ends; returns its id, which is unique unless given."
  def start_store(dir, opts \\ []) do
    {store_id, options} = Keyword.pop_lazy(opts, :store_id, &unique_id/0)
    {:ok, ^store_id} = Cluster.start(dir, Map.new([{:cluster_name, store_id} | options]), 60_000)
    ExUnit.Callbacks.on_exit(fn -> Cluster.stop(store_id) end)
    store_id
  end

  @doc "Starts `Tank.Store` on `dir` under the test's supervisor."
  def start_tank(dir, opts \\ []) do
    ExUnit.Callbacks.start_supervised!({Tank.Store, [data_dir: dir] ++ opts})
  end

  @doc "Stops what `start_tank/2` started."
  def stop_tank, do: :ok = ExUnit.Callbacks.stop_supervised(Tank.Store)

  @doc "For `setup_all`, which has no `tmp_dir`: an empty directory named after the module."
  def module_dir(module) do
    dir = Path.expand(Path.join("tmp", inspect(module)))
    File.rm_rf!(dir)
    dir
  end

  @doc "Removes the directory of a store that runs, and may make files in it meanwhile."
  def remove_dir(dir) do
    eventually("#{dir} to be removed", fn ->
      with {:error, reason, file} <- File.rm_rf(dir), do: {:not_yet, {reason, file}}
    end)
  end

  @doc "A store id that no other test has."
  def unique_id, do: :"store_#{System.unique_integer([:positive])}"

  @doc "A pod of that name."
  def pod(name, fields \\ []), do: struct!(%Tank.Pod{name: name}, fields)

  @doc "The names that `Tank.Store.list_pods/0` gives, sorted."
  def listed_names, do: Tank.Store.list_pods() |> Enum.map(& &1.name) |> Enum.sort()

  @doc "The process that owns the open store."
  def server(store_id), do: Server.whereis(store_id)

  @doc "The supervisor of that process."
  def instance(store_id), do: Instance.whereis(store_id)

  @doc "Kills a process brutally, and returns when it is dead."
  def kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
  end

  @doc "Kills `Tank.Store`, and waits until its supervisor has started it anew."
  def kill_tank do
    old = Process.whereis(Tank.Store)
    kill(old)
    await_tank(old)
  end

  @doc "Waits until `Tank.Store` is another process than `old`, and answers."
  def await_tank(old) do
    eventually("Tank.Store to be started anew", fn ->
      new = Process.whereis(Tank.Store)
      if new not in [nil, old] and started?(new), do: new, else: {:not_yet, new}
    end)
  end

  @doc "Kills the process that owns the open store, and waits until its supervisor has opened the store anew."
  def kill_server(store_id) do
    old = server(store_id)
    kill(old)
    await_server(store_id, old)
  end

  @doc "Waits until the store is owned by another process than `old`, and is open."
  def await_server(store_id, old) do
    eventually("the store #{inspect(store_id)} to be opened anew", fn ->
      new = server(store_id)
      if new not in [nil, old] and match?({:ok, _}, Cluster.status(store_id)), do: new, else: {:not_yet, new}
    end)
  end

  @doc """
  Arms a fault point (native/tank_engine/src/faults.rs) for this test. Points are the whole VM's: such tests are not
  `async`. `"pause"` holds up whoever passes the point until it is disarmed, `"1*panic"` makes the next one panic.
  """
  def arm(point, action) do
    ExUnit.Callbacks.on_exit({:disarm, point}, fn -> disarm(point) end)
    :ok = Native.arm_fault(point, action)
  end

  @doc "Disarms a fault point; whoever it held up goes on."
  def disarm(point), do: :ok = Native.arm_fault(point, "off")

  @doc "See `Tank.Store.Testing.eventually/3`."
  defdelegate eventually(what, fun, timeout \\ 10_000), to: Tank.Store.Testing

  # The name is taken before `init` has ended.
  defp started?(pid) do
    is_map(:sys.get_state(pid, 60_000))
  catch
    :exit, _died_meanwhile -> false
  end
end
