defmodule Tank.Store.Faults.KillTest do
  # `kill -9` of the VM in the middle of 16 writers, or of a single one, over and over on one directory. This shows that
  # the store recovers, and in order; not that it syncs, since the operating system keeps what was written (see
  # power_cut_test.exs).
  use ExUnit.Case, async: false

  alias Tank.Store.Faults.{Child, Ledger}

  @moduletag :tmp_dir

  @tag timeout: 300_000
  test "5 times kill -9: every acknowledged write is there, and nothing that was not asked for", %{tmp_dir: dir} do
    kill_over_and_over(dir, 5)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "100 times kill -9", %{tmp_dir: dir} do
    kill_over_and_over(dir, 100)
  end

  @tag :long
  @tag timeout: 600_000
  test "20 times kill -9 while the store opens", %{tmp_dir: dir} do
    {ledger, problems} = Enum.reduce(1..20, {Ledger.new(), []}, &kill_while_opening(dir, &1, &2))
    IO.puts("\n20 kills while opening, #{ledger.acknowledged} writes acknowledged, #{Ledger.lost(problems)} lost")
    assert problems == []
  end

  defp kill_over_and_over(dir, kills) do
    {ledger, problems} = Enum.reduce(1..kills, {Ledger.new(), []}, &run_and_kill(dir, &1, &2))
    child = start(dir, ledger, [])
    problems = problems ++ Child.judge(child)
    Child.kill(child, nil)

    IO.puts("\n#{kills} kills, #{ledger.acknowledged} writes acknowledged, #{Ledger.lost(problems)} lost")
    assert problems == []
    assert ledger.acknowledged >= 100 * kills, "too few writes for the kills to mean anything"
  end

  # Checks what the last kill left, and kills in the middle of the next writes.
  defp run_and_kill(dir, run, {ledger, problems}) do
    child = start(dir, ledger, Child.store_options(run))
    found = Child.judge(child)
    Child.write_until(child, run, 100 + :rand.uniform(1500))
    {Child.kill(child, run), problems ++ found}
  end

  # A store that is new half of the time, since making one is in steps too.
  defp kill_while_opening(dir, run, {ledger, problems}) do
    if rem(run, 2) == 0, do: File.rm_rf!(Path.join(dir, "store"))
    ledger = if rem(run, 2) == 0, do: %{Ledger.new() | acknowledged: ledger.acknowledged}, else: ledger
    child = Child.start(ledger: ledger, log_file: Path.join(dir, "vm.log"))
    Child.open_for(child, [data_dir: Path.join(dir, "store")], :rand.uniform(60))
    ledger = Child.kill(child, nil)

    {ledger, found} = run_and_kill(dir, run, {ledger, []})
    {ledger, problems ++ found}
  end

  defp start(dir, ledger, store) do
    Child.start_tank(Path.join(dir, "store"), store: store, ledger: ledger, log_file: Path.join(dir, "vm.log"))
  end
end
