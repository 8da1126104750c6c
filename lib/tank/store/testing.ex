defmodule Tank.Store.Testing do
  @moduledoc """
  For tests of code that uses a store: gives each test its own store, also with `async: true`, and injects faults.

      defmodule MyApp.DeployTest do
        use ExUnit.Case, async: true
        use Tank.Store.Testing

        test "a deployment is listed" do
          :ok = MyApp.deploy("web")

          assert [%{name: "web"}] = Tank.Store.list_pods()
        end

        test "a full disk is reported", %{store: store} do
          with_fault(store, :full, fn ->
            assert MyApp.deploy("web") == {:error, :disk_full}
          end)
        end
      end

  The code under test does not change: it calls `Tank.Store`, or the store `:app`, as in production. In a test, and in the
  processes that the test starts, these names stand for the test's own store. It is a real store on disk, below
  `System.tmp_dir!/0`. Starting and stopping it takes about 30 ms. Tests share nothing, so they may run at the same time.

  ## Options of `use`

    * `:as` - the store ids that the code under test uses. The default is `[:tank]`, the default store, which `Tank.Store` uses.
      With `as: [:tank, :app]`, `Tank.Store.Tree.put(:app, ...)` also goes to the test's store
    * options of a store, such as `value_bytes_max: 1_024` (`Tank.Store.Cluster`)

  The store's own id is in the context, as `store`. `@tag tank_store: [value_bytes_max: 10]` gives options for one test, and
  `@tag tank_store: false` is a test without a store.

  ## Which process

  A name is looked up for the calling process: for itself, for the processes for which it works (`$callers`, as set by `Task`),
  and for the processes that started it (`$ancestors`, as set by `GenServer` and `start_supervised/1`). A process that the test
  did not start, such as a process of your application, needs `allow/2`:

      allow(MyApp.Worker)

  For all other processes, the name means the same as without tests.

  Functions on values and leases, watches, projections, syncers and backups look names up. Functions of `Tank.Store.Cluster` and
  `Tank.Store.Registry` take the id of the test's store.

  ## Faults

  With `with_fault/3` and `fault/2`, a store returns what its callers would get. Use them to test how your code handles that.

  | fault | reads | writes | local reads (`list_pods/0`, `favor: :low_latency`) |
  |---|---|---|---|
  | `:no_quorum` | `{:error, :no_quorum}` | `{:error, :no_quorum}` | work |
  | `:full` | work | `{:error, :disk_full}` | work |
  | `{:slow, ms}` | take `ms` longer | take `ms` longer | work |
  | `:stopped` | `{:error, :noproc}` | `{:error, :noproc}` | `{:error, :noproc}` |

  `:stopped` really stops the store, and starts it again: watches end, projections and syncers catch up.

  ## Time

  `advance_leases/2` lets leases end without waiting for their `ttl`.
  """

  alias Tank.Store.{Cluster, Native, Running}
  alias Tank.Store.Testing.Sandbox

  @compile {:no_warn_undefined, [ExUnit.Assertions, ExUnit.Callbacks]}

  @start_timeout 60_000
  # Between two looks of `eventually/3`.
  @pause_ms 5

  @type fault :: :no_quorum | :full | {:slow, pos_integer} | :stopped

  @doc false
  defmacro __using__(opts) do
    quote do
      import Tank.Store.Testing,
        only: [advance_leases: 2, allow: 1, allow: 2, eventually: 2, eventually: 3, fault: 2, heal: 1, with_fault: 3]

      setup context do
        case Tank.Store.Testing.start_for(context, unquote(opts)) do
          nil -> :ok
          store -> {:ok, store: store}
        end
      end
    end
  end

  @doc false
  @spec start_for(map, keyword) :: atom | nil
  def start_for(context, opts) do
    case context[:tank_store] do
      false -> nil
      more -> opts |> Keyword.merge(more || []) |> start_supervised()
    end
  end

  @doc """
  Starts a store for the calling process, and returns its id. `use Tank.Store.Testing` does this before each test. Call it for a
  second store, with other names. Options are those of `use`.

  In a test, the store is stopped at the end of the test. Elsewhere, call `stop/1`.
  """
  @spec start_supervised(keyword) :: atom
  def start_supervised(opts \\ []) do
    store = start(opts)
    ExUnit.Callbacks.on_exit({__MODULE__, store}, fn -> stop(store) end)
    store
  end

  @doc """
  Does the same without ExUnit. The store runs until `stop/1`, or until a minute after the calling process has ended.

      iex> store = Tank.Store.Testing.start(as: [:inventory])
      iex> Tank.Store.Tree.put!(:inventory, [:wood], 100)
      iex> Tank.Store.Tree.get(store, [:wood])
      {:ok, 100}
      iex> Task.await(Task.async(fn -> Tank.Store.Tree.get(:inventory, [:wood]) end))
      {:ok, 100}
      iex> Tank.Store.Testing.stop(store)
      :ok
      iex> Tank.Store.Tree.get(:inventory, [:wood])
      {:error, :noproc}
  """
  @spec start(keyword) :: atom
  def start(opts \\ []) do
    {names, opts} = Keyword.pop_lazy(opts, :as, fn -> [Cluster.get_default_store_id()] end)
    store = :"tank_test_#{System.unique_integer([:positive])}"
    dir = Path.join(System.tmp_dir!(), "#{store}_#{System.pid()}")
    # Before it is started: whatever happens then, nothing stays.
    :ok = Sandbox.own(self(), store, List.wrap(names), dir)
    {:ok, ^store} = Cluster.start(dir, Map.new([{:store_id, store} | opts]), @start_timeout)
    store
  end

  @doc "Stops a store that `start/1` started, and removes its directory."
  @spec stop(atom) :: :ok
  def stop(store), do: Sandbox.stop(store)

  @doc """
  Lets another process, which the calling test did not start, use the test's store under its names.

      iex> store = Tank.Store.Testing.start(as: [:allowed])
      iex> me = self()
      iex> pid = spawn(fn -> receive do: (:read -> send(me, Tank.Store.Tree.get(:allowed, [:a]))) end)
      iex> Tank.Store.Testing.allow(pid)
      :ok
      iex> send(pid, :read)
      iex> receive do: (answer -> answer)
      {:error, :not_found}
      iex> Tank.Store.Testing.stop(store)
      :ok
  """
  @spec allow(pid | GenServer.name(), pid) :: :ok
  def allow(process, owner \\ self()) do
    case GenServer.whereis(process) do
      pid when is_pid(pid) -> Sandbox.allow(owner, pid)
      _none -> raise ArgumentError, "no process #{inspect(process)} runs on this node"
    end
  end

  @doc """
  Calls `fun` while a store has a fault.

      iex> store = Tank.Store.Testing.start()
      iex> Tank.Store.put_at([:a], 1)
      :ok
      iex> Tank.Store.Testing.with_fault(store, :no_quorum, fn ->
      ...>   {Tank.Store.put_at([:a], 2), Tank.Store.Tree.get(:tank, [:a], favor: :low_latency)}
      ...> end)
      {{:error, :no_quorum}, {:ok, 1}}
      iex> Tank.Store.Testing.with_fault(store, :stopped, fn -> Tank.Store.put_at([:a], 2) end)
      {:error, :noproc}
      iex> Tank.Store.get_at([:a])
      {:ok, 1}
      iex> Tank.Store.Testing.stop(store)
      :ok
  """
  @spec with_fault(atom, fault, (() -> result)) :: result when result: term
  def with_fault(store, fault, fun) do
    :ok = fault(store, fault)
    fun.()
  after
    heal(store)
  end

  @doc "Injects a fault into a store, until `heal/1` or the end of the test."
  @spec fault(atom, fault) :: :ok
  def fault(store, :stopped) do
    {:ok, %{data_dir: dir}} = Cluster.status(store)
    true = :ets.insert(Sandbox, {{:stopped, store}, dir})
    :ok = Cluster.stop(store)
  end

  def fault(store, fault) when fault in [:no_quorum, :full], do: Sandbox.fault(store, fault)
  def fault(store, {:slow, ms} = fault) when is_integer(ms) and ms > 0, do: Sandbox.fault(store, fault)

  @doc "Ends a fault. After `:stopped`, the store runs again when this returns."
  @spec heal(atom) :: :ok
  def heal(store) do
    for {_key, dir} <- :ets.take(Sandbox, {:stopped, store}),
        do: {:ok, ^store} = Cluster.start(dir, store, @start_timeout)

    Sandbox.fault(store, nil)
  end

  @doc """
  Advances the clock of a store's leases by `ms` milliseconds. Leases that were not renewed for their `ttl` end within a moment,
  and their entries are deleted. The holder's own clock (`Tank.Store.Lease.remaining/1`) does not change.

      iex> store = Tank.Store.Testing.start()
      iex> {:ok, lease} = Tank.Store.Lease.acquire(:tank, "leader", holder: 1, ttl: 60_000)
      iex> Tank.Store.Testing.advance_leases(store, 59_000)
      :ok
      iex> {:ok, _safe_ms} = Tank.Store.Lease.renew(lease)
      iex> Tank.Store.Testing.advance_leases(store, 61_000)
      :ok
      iex> Tank.Store.Testing.eventually("its end", fn -> Tank.Store.Lease.renew(lease) == {:error, :lease_ended} end)
      true
      iex> Tank.Store.Testing.stop(store)
      :ok
  """
  @spec advance_leases(atom, non_neg_integer) :: :ok
  def advance_leases(store, ms) when is_integer(ms) and ms >= 0 do
    {:ok, native} = Running.fetch(store)
    Native.skip_lease_time(native, ms)
  end

  @doc """
  Calls `fun` until it returns something other than nil, false or `{:not_yet, seen}`, and returns that.

  Fails after `timeout` milliseconds, 10,000 by default. The failure says `what` it waited for and what it last saw.

      iex> table = :ets.new(:written, [:public])
      iex> spawn(fn -> :ets.insert(table, {:a, 1}) end)
      iex> Tank.Store.Testing.eventually("the row of a", fn -> List.first(:ets.lookup(table, :a)) end)
      {:a, 1}
  """
  @spec eventually(String.t(), (() -> term), timeout) :: term
  def eventually(what, fun, timeout \\ 10_000), do: look(what, fun, System.monotonic_time(:millisecond) + timeout)

  defp look(what, fun, deadline) do
    case fun.() do
      seen when seen in [nil, false] -> look_again(what, fun, deadline, seen)
      {:not_yet, seen} -> look_again(what, fun, deadline, seen)
      done -> done
    end
  end

  defp look_again(what, fun, deadline, seen) do
    if System.monotonic_time(:millisecond) > deadline,
      do: ExUnit.Assertions.flunk("waited for #{what}; last saw #{inspect(seen)}")

    receive after: (@pause_ms -> look(what, fun, deadline))
  end
end
