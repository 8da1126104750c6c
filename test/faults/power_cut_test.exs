defmodule Tank.Store.Faults.PowerCutTest do
  # Power cuts: the file system that holds the store stops at once, without flushing anything, in the middle of 16
  # writers, or of a single one. What is there after mounting it again is what had really reached the disk.
  #
  # Acknowledgements count if they were seen before the cut. Runs whose log is not synced show that a cut does lose what
  # was not: without a loss there, the result of the others would mean nothing.
  use ExUnit.Case, async: false

  alias Tank.Store.{Error, Native}
  alias Tank.Store.Faults.{Child, Command, Image, Ledger, Strace, Subject}

  @moduletag :tmp_dir

  @void "nothing was lost without syncs: the cuts of these tests cut nothing"

  describe "in short" do
    if why = Image.lacks() do
      IO.puts("power cuts are skipped: #{why}")
      @describetag skip: why
    end

    @tag timeout: 300_000
    test("3 power cuts lose nothing", %{tmp_dir: dir}, do: lose_nothing(dir, 3))

    @tag timeout: 300_000
    test "a power cut without syncs loses acknowledged writes", %{tmp_dir: dir} do
      # The operating system may just have written everything by itself.
      assert Enum.any?(1..3, fn _try -> cut_without_syncs(dir, 1) != ["0 lost"] end), @void
    end
  end

  describe "at length" do
    @describetag :faults

    @tag timeout: 3_600_000
    test("40 power cuts lose nothing", %{tmp_dir: dir}, do: lose_nothing(dir, 40))

    @tag timeout: 3_600_000
    test "20 power cuts while the store opens lose nothing", %{tmp_dir: dir} do
      # The history keeps every version, and a compaction for a moment twice.
      image = Image.create(dir, 1_200)
      {ledger, problems} = Enum.reduce(1..20, {Ledger.new(), []}, &cut_while_opening(image, dir, &1, &2))

      IO.puts(
        "\n20 power cuts while opening, #{ledger.acknowledged} writes acknowledged, #{Ledger.lost(problems)} lost"
      )

      assert problems == []
    end

    @tag timeout: 3_600_000
    test "power cuts without syncs lose acknowledged writes", %{tmp_dir: dir} do
      assert Enum.any?(cut_without_syncs(dir, 5), &(&1 != "0 lost")), @void
    end

    @tag timeout: 3_600_000
    test "power cuts of a disk that lies about syncs lose acknowledged writes", %{tmp_dir: dir} do
      assert Enum.any?(cut_with_lying_syncs(dir, 5), &(&1 != "0 lost")), @void
    end
  end

  defp lose_nothing(dir, cuts) do
    # The history keeps every version, and a compaction for a moment twice.
    image = Image.create(dir, 1_200)
    {ledger, problems} = Enum.reduce(1..cuts, {Ledger.new(), []}, &run_and_cut(image, dir, &1, &2))
    child = start(image, dir, ledger)
    problems = problems ++ Child.judge(child)
    Child.kill(child, nil)

    IO.puts("\n#{cuts} power cuts, #{ledger.acknowledged} writes acknowledged, #{Ledger.lost(problems)} lost")
    assert problems == []
    assert ledger.acknowledged >= 100 * cuts, "too few writes for the cuts to mean anything"
  end

  # Checks what the last cut left, and cuts the power in the middle of the next writes.
  defp run_and_cut(image, dir, run, {ledger, problems}) do
    child = start(image, dir, ledger, Child.store_options(run))
    found = Child.judge(child)
    {write_and_cut(child, image, run), problems ++ found}
  end

  # A store that is new half of the time, since making one is in steps too.
  defp cut_while_opening(image, dir, run, {ledger, problems}) do
    ledger = if rem(run, 2) == 0, do: begin_anew(image, ledger), else: ledger
    child = Child.start(ledger: ledger, log_file: log_file(dir))
    switch = Image.power_switch(image)
    Child.open_for(child, [data_dir: store_dir(image)], :rand.uniform(60))
    switch.()
    ledger = Child.kill(child, nil)
    Image.remount(image)

    {ledger, found} = run_and_cut(image, dir, run, {ledger, []})
    {ledger, problems ++ found}
  end

  defp begin_anew(image, ledger) do
    File.rm_rf!(store_dir(image))
    # Or a power cut brings some of it back.
    Command.run!("sync", ["-f", image.mount])
    %{Ledger.new() | acknowledged: ledger.acknowledged}
  end

  defp write_and_cut(child, image, run) do
    switch = Image.power_switch(image)

    # The store notes in its marker how far it has synced, and does not sync the note: it may be old after a cut, and may
    # be new. Here it is new, every second time.
    if rem(run, 2) == 0, do: Image.keep_syncing(Path.join(store_dir(image), "SYNCED"))
    Child.write_until(child, run, 100 + :rand.uniform(3000))
    Child.seal(child)
    switch.()
    ledger = Child.kill(child, run)
    Image.remount(image)
    ledger
  end

  defp cut_without_syncs(dir, cuts) do
    cut_spoilt(dir, cuts, "without syncs", fn child ->
      :ok = Child.call(child, Native, :arm_fault, ["log_sync", "return"])
    end)
  end

  # The system calls succeed, and do nothing.
  defp cut_with_lying_syncs(dir, cuts) do
    cut_spoilt(dir, cuts, "with lying syncs", &Strace.attach(Child.os_pid(&1), "retval=0", dir))
  end

  defp cut_spoilt(dir, cuts, how, spoil) do
    image = Image.create(dir, 400)
    losses = Enum.map(1..cuts, &spoil_and_cut(image, dir, &1, spoil))
    IO.puts("\n#{cuts} power cuts #{how}: #{Enum.join(losses, ", ")}")
    losses
  end

  defp spoil_and_cut(image, dir, run, spoil) do
    child = start(image, dir, Ledger.new())
    spoil.(child)
    ledger = write_and_cut(child, image, run)
    loss = loss(image, dir, ledger)
    begin_anew(image, ledger)
    loss
  end

  # A store whose marker says more than its log holds refuses to start: that is a loss which is noticed.
  defp loss(image, dir, ledger) do
    child = Child.start(ledger: ledger, log_file: log_file(dir))

    loss =
      case Child.call(child, Subject, :start_tank, [[data_dir: store_dir(image)]]) do
        :ok -> "#{Ledger.lost(Child.judge(child))} lost"
        {:error, {:store_init_failed, %Error{reason: {:corrupt, what}}}} -> "refused, damaged #{what}"
      end

    Child.kill(child, nil)
    loss
  end

  defp start(image, dir, ledger, store \\ []) do
    Child.start_tank(store_dir(image), store: store, ledger: ledger, log_file: log_file(dir))
  end

  defp store_dir(image), do: Path.join(image.mount, "store")
  defp log_file(dir), do: Path.join(dir, "vm.log")
end
