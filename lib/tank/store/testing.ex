defmodule Tank.Store.Testing do
  @moduledoc """
  Tests of code that uses a store: a store of its own for each test, also with `async: true`, and faults on demand.

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

  The code under test changes nothing: it calls `Tank.Store`, or the store `:app`, as it does in production. In a test, and in
  the processes that the test starts, these names stand for the test's own store. It is a real one, on the disk, below
  `System.tmp_dir!/0`; starting and stopping it takes some 30 ms. Nothing is shared, so tests may run at the same time.

  ## Options of `use`

    * `:as` - the ids that the code under test uses, `[:tank]` unless given: the default store, which is what `Tank.Store` is
      about. With `as: [:tank, :app]`, `Tank.Store.Tree.put(:app, ...)` goes to the test's store, too
    * those of a store, such as `value_bytes_max: 1_024` (`Tank.Store.Cluster`)

  The store's own id is in the context, as `store`. `@tag tank_store: [value_bytes_max: 10]` gives options for one test, and
  `@tag tank_store: false` is a test without a store.

  ## Which process

  A name is looked up for the process that calls: for itself, for those that it works for (`$callers`, as of `Task`), and for
  those that started it (`$ancestors`, as of a `GenServer`, and all that `start_supervised/1` starts). A process that the test
  did not start, such as one of your application's, needs `allow/2`:

      allow(MyApp.Worker)

  All others get what the name stands for without tests.

  Names are looked up by functions on values and leases, by watches, projections, syncers and backups. Those of
  `Tank.Store.Cluster` and `Tank.Store.Registry`, which are about stores, take the store's own id.

  ## Faults

  `with_fault/3` and `fault/2` give a store what its callers would see. What a store really does in such a case is tested
  elsewhere; here you test what your code makes of it.

  | fault | reads | writes | local reads (`list_pods/0`, `favor: :low_latency`) |
  |---|---|---|---|
  | `:no_quorum` | `{:error, :no_quorum}` | `{:error, :no_quorum}` | go on |
  | `:full` | go on | `{:error, :disk_full}` | go on |
  | `{:slow, ms}` | that much later | that much later | go on |
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
  Starts a store for the calling process, and gives its id. `use Tank.Store.Testing` does so before each test; call it for a
  second store, with other names. Options are those of `use`.

  Within a test it is stopped at its end; elsewhere call `stop/1`.
  """
  @spec start_supervised(keyword) :: atom
  def start_supervised(opts \\ []) do
    store = start(opts)
    ExUnit.Callbacks.on_exit({__MODULE__, store}, fn -> stop(store) end)
    store
  end

  @doc """
  The same without ExUnit: `stop/1` ends it, or a minute after the calling process has ended.

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
  Has the names of the calling test stand for its store in another process, too: one that it did not start.

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

  @doc "Gives a store a fault, until `heal/1` or the end of the test."
  @spec fault(atom, fault) :: :ok
  def fault(store, :stopped) do
    {:ok, %{data_dir: dir}} = Cluster.status(store)
    true = :ets.insert(Sandbox, {{:stopped, store}, dir})
    :ok = Cluster.stop(store)
  end

  def fault(store, fault) when fault in [:no_quorum, :full], do: Sandbox.fault(store, fault)
  def fault(store, {:slow, ms} = fault) when is_integer(ms) and ms > 0, do: Sandbox.fault(store, fault)

  @doc "Ends a fault. A store that was stopped runs again when this returns."
  @spec heal(atom) :: :ok
  def heal(store) do
    for {_key, dir} <- :ets.take(Sandbox, {:stopped, store}),
        do: {:ok, ^store} = Cluster.start(dir, store, @start_timeout)

    Sandbox.fault(store, nil)
  end

  @doc """
  Lets `ms` milliseconds pass for the leases of a store: those that were not renewed for their `ttl`, with this time, end within
  a moment, and what was put with them goes. A holder's own clock (`Tank.Store.Lease.remaining/1`) is not changed.

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
  Calls `fun` until it gives something else than nil, false or `{:not_yet, seen}`, and gives that.

  Fails after `timeout` milliseconds, 10,000 unless given, with `what` it waited for and what it last saw.

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
