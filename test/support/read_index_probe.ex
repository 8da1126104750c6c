defmodule Tank.Store.ReadIndexProbe do
  @moduledoc "What the test of read indexes has its nodes do."

  alias Tank.Store.{ClusterCase, Inbox, ReadIndex, Running}

  @doc "Asks as a reader does, and gives the answer with what is in the reader's mailbox after `meanwhile`."
  def ask(meanwhile \\ {Function, :identity, [nil]}) do
    {:ok, native} = Running.fetch(ClusterCase.store())
    answer = ReadIndex.ask(native, 5_000)
    {module, function, arguments} = meanwhile
    apply(module, function, arguments)
    {:messages, messages} = Process.info(self(), :messages)
    {answer, messages}
  end

  @doc "Asks by so many processes at once: their answers, the questions that `leader` had not taken then, and the time."
  def ask_together(count, leader) do
    {:ok, native} = Running.fetch(ClusterCase.store())
    begin = System.monotonic_time(:millisecond)
    readers = for _reader <- 1..count, do: Task.async(fn -> ReadIndex.ask(native, 5_000) end)
    answers = Task.await_many(readers)
    inbox = :erpc.call(leader, Process, :whereis, [Inbox.name(ClusterCase.store())])
    {:messages, messages} = :erpc.call(leader, Process, :info, [inbox, :messages])
    questions = Enum.count(messages, &match?({:tank_read_index, _, _, _, _}, &1))
    {answers, questions, System.monotonic_time(:millisecond) - begin}
  end

  @doc "What the process knows that asks the leader."
  def state, do: :sys.get_state(:"tank_store_read_index_#{ClusterCase.store()}")

  @doc "Kills processes while they wait for an answer; gives how many were killed so."
  def kill_askers(count) do
    {:ok, native} = Running.fetch(ClusterCase.store())

    Enum.count(1..count, fn _asker ->
      {pid, monitor} = spawn_monitor(fn -> ReadIndex.ask(native, 5_000) end)
      await_waiting(pid)
      Process.exit(pid, :kill)
      receive do: ({:DOWN, ^monitor, :process, ^pid, reason} -> reason == :killed)
    end)
  end

  defp await_waiting(pid) do
    case Process.info(pid, :status) do
      {:status, status} when status != :waiting -> await_waiting(pid)
      _waiting_or_over -> :ok
    end
  end

  @doc "Sends any question to the inbox of a node; `:none` when it does not answer."
  def question(node, cluster_id, member_id) do
    ref = make_ref()

    send(
      {Inbox.name(ClusterCase.store()), node},
      {:tank_read_index, :erlang.alias([:reply]), ref, cluster_id, member_id}
    )

    receive do: ({^ref, answer} -> answer), after: (1_000 -> :none)
  end

  @doc "Suspends or resumes the inbox of a node, or just waits for it."
  def inbox(node, function), do: apply(:sys, function, [{Inbox.name(ClusterCase.store()), node}])

  @doc "Lets the suspended inbox of a node answer what was asked, and waits until it has."
  def catch_up(node) do
    :ok = inbox(node, :resume)
    inbox(node, :get_state)
  end
end
