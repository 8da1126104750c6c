defmodule Tank.Store.ProcessCallTest do
  # A process that is called may end at any moment, in any way: the caller gets an error.
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Cluster, Deadline, Events, Instance, ProcessCall}

  # Ends, when it is called, in the way that the call says, or does what it says.
  defmodule Callee do
    use GenServer
    @impl true
    def init(nil), do: {:ok, nil}
    @impl true
    def handle_call({:end, reason}, _from, nil), do: {:stop, reason, nil}
    def handle_call(:raise, _from, nil), do: raise("a bug")
    def handle_call(:kill, _from, nil), do: Process.exit(self(), :kill)
    def handle_call(:no_reply, _from, nil), do: {:noreply, nil}

    def handle_call(:myself, _from, nil) do
      {:reply, ProcessCall.call(self(), :no_reply, 10), nil}
    catch
      :exit, reason -> {:reply, reason, nil}
    end
  end

  defp callee do
    {:ok, pid} = GenServer.start(Callee, nil)
    pid
  end

  test "a call gives :noproc however the process ends" do
    for reason <- [:normal, :shutdown, {:shutdown, :why}, :boom, {:nodedown, :there}, :noproc, {:a, :b, :c}] do
      assert ProcessCall.call(callee(), {:end, reason}, 5_000) == {:error, :noproc}
    end

    for request <- [:raise, :kill], do: assert(ProcessCall.call(callee(), request, 5_000) == {:error, :noproc})
    gone = callee()
    kill(gone)
    assert ProcessCall.call(gone, :no_reply, 5_000) == {:error, :noproc}
    assert ProcessCall.call(:nobody_has_this_name, :no_reply, 5_000) == {:error, :noproc}
  end

  test "a call gives :timeout when there is no reply, and no reply comes later" do
    assert ProcessCall.call(callee(), :no_reply, 10) == {:error, :timeout}
    refute_received _anything
  end

  test "what is no end of a process passes" do
    assert catch_exit(ProcessCall.run(fn -> exit(:of_the_caller) end)) == :of_the_caller
    assert {:calling_self, _call} = ProcessCall.call(callee(), :myself, 5_000)
  end

  test "a process that does not end when it is asked to is killed" do
    assert ProcessCall.stop(spawn(fn -> receive do: (:end -> :ok) end), :end, 5_000) == :ended
    assert ProcessCall.stop(spawn(fn -> receive do: (:something_else -> :ok) end), :end, 10) == :killed
    gone = callee()
    kill(gone)
    assert ProcessCall.stop(gone, :end, 5_000) == :ended
  end

  test "no deadline is infinitely far away" do
    day = 24 * 60 * 60 * 1000
    assert Deadline.bounded(:infinity) == day
    assert Deadline.bounded(2 * day) == day
    assert Deadline.remaining(Deadline.in_ms(:infinity)) in (day - 1_000)..day
    assert Deadline.remaining(Deadline.before(Deadline.in_ms(:infinity))) < day
    assert Deadline.remaining(Deadline.half(Deadline.in_ms(:infinity))) <= 30_000
  end

  describe "a store's processes" do
    @describetag :tmp_dir

    for reason <- [:shutdown, :kill, :boom] do
      test "a subscriber whose call meets the end of Events (#{reason}) gets an error", %{tmp_dir: dir} do
        id = start_store(dir)
        [{events, _value}] = Registry.lookup(Tank.Store.Names, {:events, id})
        :ok = :sys.suspend(events)
        caller = Task.async(fn -> Events.subscribe(id, self()) end)
        pid = caller.pid

        eventually("the call to arrive", fn ->
          {:messages, messages} = Process.info(events, :messages)
          Enum.any?(messages, &match?({:"$gen_call", {^pid, _tag}, _request}, &1)) || {:not_yet, messages}
        end)

        Process.exit(events, unquote(reason))
        assert Task.await(caller) == {:error, :noproc}
      end
    end

    test "stopping a store that does not stop in time gives :timeout, and goes on", %{tmp_dir: dir} do
      id = start_store(dir)
      {server, instance} = {server(id), instance(id)}
      # Its own supervisor waits for the server: for 30 seconds.
      test = self()

      spawn_link(fn ->
        :sys.replace_state(server, fn state ->
          send(test, :held_up)
          receive do: (:go_on -> state)
        end)
      end)

      assert_receive :held_up
      assert Instance.stop(id, instance, Deadline.in_ms(50)) == {:error, :timeout}
      send(server, :go_on)
      assert Cluster.stop(id) == :ok
      refute Process.alive?(instance)
    end
  end
end
