defmodule Tank.Store.Faults.LedgerTest do
  # The judge of the fault tests has to see what it is for: each kind of wrong that a store could do, done here by hand.
  use ExUnit.Case, async: true

  alias Tank.Store.Faults.{Child, Ledger, Workload}

  @run 1
  @writer 3

  setup do
    answers = for n <- 0..39, id = {@run, @writer, n}, do: {id, answer(id, n)}
    ledger = Enum.reduce(answers, Ledger.new(), fn {id, answer}, ledger -> Ledger.note(ledger, id, answer) end)
    %{ledger: ledger, pods: pods(answers)}
  end

  test "what was acknowledged is fine", %{ledger: ledger, pods: pods} do
    assert {_ledger, []} = Ledger.judge(ledger, pods)
    assert map_size(pods) >= 10
  end

  test "a lost pod", %{ledger: ledger, pods: pods} do
    for {name, _pod} <- pods do
      assert {_ledger, [{:lost, ^name, %{found: nil}}] = problems} = Ledger.judge(ledger, Map.delete(pods, name))
      assert Ledger.lost(problems) >= 1
    end
  end

  test "a lost end: every operation of it counts", %{ledger: ledger} do
    {_ledger, problems} = Ledger.judge(ledger, %{})
    assert Ledger.lost(problems) > 10
  end

  test "a lost overwrite", %{ledger: ledger, pods: pods} do
    older = Workload.pod({@run, @writer, 3})
    assert {:put, name} = Workload.op({@run, @writer, 3})
    assert {_ledger, [{:lost, ^name, _details}]} = Ledger.judge(ledger, Map.put(pods, name, older))
  end

  test "a lost delete", %{ledger: ledger, pods: pods} do
    assert {:delete, name} = Workload.op({@run, @writer, 2})
    assert {:put, ^name} = Workload.op({@run, @writer, 0})
    revived = Map.put(pods, name, Workload.pod({@run, @writer, 0}))
    assert {_ledger, [{:lost, ^name, %{operations: 1}}]} = Ledger.judge(ledger, revived)
  end

  test "a pod that nobody wrote", %{ledger: ledger, pods: pods} do
    pod = Workload.pod({@run, @writer, 1000})
    assert {_ledger, [{:never_written, _name, _details}]} = Ledger.judge(ledger, Map.put(pods, pod.name, pod))
  end

  test "a pod under another's name", %{ledger: ledger, pods: pods} do
    [{name, _pod}, {_other, pod} | _rest] = Enum.to_list(pods)
    assert {_ledger, [{:never_written, ^name, _details}]} = Ledger.judge(ledger, Map.put(pods, name, pod))
  end

  test "a pod that differs in one byte", %{ledger: ledger, pods: pods} do
    [{name, pod} | _rest] = Enum.to_list(pods)
    [container] = pod.containers
    pod = %{pod | containers: [%{container | image: container.image <> "1"}]}
    assert {_ledger, [{:damaged, ^name, _details}]} = Ledger.judge(ledger, Map.put(pods, name, pod))
  end

  test "an operation under way at a crash may have been done, or not", %{ledger: ledger, pods: pods} do
    crashed = Ledger.note_crash(ledger, @run)
    pod = Workload.pod({@run, @writer, 40})
    assert {_ledger, []} = Ledger.judge(crashed, pods)
    assert {ledger, []} = Ledger.judge(crashed, Map.put(pods, pod.name, pod))
    # From then on it has to stay.
    assert {_ledger, [{:lost, _name, _details}]} = Ledger.judge(ledger, pods)
  end

  test "an operation that was refused must not be done after all", %{ledger: ledger, pods: pods} do
    id = {@run, @writer, 40}
    pod = Workload.pod(id)
    ledger = Ledger.note(ledger, id, :not_written)
    assert {_ledger, [{:never_written, _name, _details}]} = Ledger.judge(ledger, Map.put(pods, pod.name, pod))
  end

  test "a create that succeeds twice, or finds what is not there" do
    put = Ledger.note(Ledger.new(), {@run, @writer, 3}, {:ok, nil})
    assert {:create, name} = Workload.op({@run, @writer, 5})
    again = Ledger.note(put, {@run, @writer, 5}, {:ok, nil})
    assert {_ledger, [{:created_twice, ^name, _details}]} = Ledger.judge(again, %{name => Workload.pod({1, 3, 5})})
    refused = Ledger.note(Ledger.new(), {@run, @writer, 5}, :exists)
    assert {_ledger, [{:absent_pod_exists, ^name, _details}]} = Ledger.judge(refused, %{})
  end

  test "revisions that go back after a restart", %{ledger: ledger, pods: pods} do
    {ledger, []} = Ledger.judge(ledger, pods)
    id = {2, @writer, 4}
    assert {_kind, "shared-" <> _rest = name} = Workload.op(id)
    ledger = Ledger.note(ledger, id, {:ok, 20})
    assert {_ledger, problems} = Ledger.judge(ledger, Map.put(pods, name, Workload.pod(id)))
    assert {:revision_went_back, name, %{floor: ledger.revision_floor, revision: 20}} in problems
  end

  @tag :tmp_dir
  test "a store that was put back in time", %{tmp_dir: dir} do
    [store, copy, log_file] = for name <- ~w(store copy vm.log), do: Path.join(dir, name)
    ledger = write_and_kill(store, 1, log_file, Ledger.new())
    File.cp_r!(store, copy)
    ledger = write_and_kill(store, 2, log_file, ledger)

    child = Child.start_tank(copy, ledger: ledger, log_file: log_file)
    assert Ledger.lost(Child.judge(child)) > 0
  end

  defp write_and_kill(store, run, log_file, ledger) do
    child = Child.start_tank(store, ledger: ledger, log_file: log_file)
    Child.judge(child)
    Child.write_until(child, run, 200)
    Child.kill(child, run)
  end

  # What a store would answer a single writer: its operations on shared pods get rising revisions.
  defp answer(id, n) do
    case Workload.op(id) do
      {:create, "own-" <> _rest} -> :exists
      {_kind, name} -> {:ok, if(Workload.shared?(name), do: 100 + n)}
    end
  end

  defp pods(answers) do
    Enum.reduce(answers, %{}, fn
      {id, {:ok, _revision}}, pods -> apply_op(pods, Workload.op(id), id)
      {_id, _refused}, pods -> pods
    end)
  end

  defp apply_op(pods, {:delete, name}, _id), do: Map.delete(pods, name)
  defp apply_op(pods, {_kind, name}, id), do: Map.put(pods, name, Workload.pod(id))
end
