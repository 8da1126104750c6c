defmodule Tank.Store.Faults.ExitTest do
  # The VM ends in every way while a store does everything that takes time: the exit code is the requested one, it comes
  # promptly, and nothing acknowledged is lost.
  use ExUnit.Case, async: false

  alias Tank.Store.{Cluster, Tree}
  alias Tank.Store.Faults.Leaver

  @moduletag :tmp_dir

  # System.stop gives each supervisor its time; a store closes within milliseconds. So much longer than a VM without a store.
  @promptly_ms 5_000
  @delay_us_max 20_000

  @tag timeout: 240_000
  test "each way to end in each state of a store", %{tmp_dir: dir} do
    leave(dir, runs(1))
  end

  # The state in which most threads are in the database, and the way that waits for none of them: of 100 of these, 3 to 12
  # aborted the VM while RocksDB's static objects were destroyed at the exit.
  @tag timeout: 240_000
  test "20 halts within the milliseconds that closing takes", %{tmp_dir: dir} do
    leave(dir, for(n <- 1..20, do: {:"leaver_closing_#{n}", :closing, :halt, n * div(@delay_us_max, 20)}))
  end

  @tag :long
  @tag timeout: 3_600_000
  test "300 ends: 12 rounds through all ways and states", %{tmp_dir: dir} do
    leave(dir, runs(12))
  end

  defp runs(rounds) do
    seed = ExUnit.configuration()[:seed]
    IO.puts("\nends of the VM: seed #{seed}")
    :rand.seed(:exsss, seed)

    for round <- 1..rounds, state <- Leaver.states(), way <- Leaver.ways() do
      {:"leaver_#{state}_#{way}_#{round}", state, way, :rand.uniform(@delay_us_max)}
    end
  end

  defp leave(dir, runs) do
    results = Task.async_stream(runs, &leave_once(dir, &1), max_concurrency: 2, timeout: 120_000)
    problems = for {:ok, [_ | _] = problems} <- results, problem <- problems, do: problem
    assert problems == []
  end

  defp leave_once(parent, {store_id, state, way, delay_us}) do
    dir = Path.join(parent, Atom.to_string(store_id))
    {code, acknowledged, took_ms, output} = Leaver.run(dir, store_id, state, way, delay_us)
    expected = Leaver.exit_code(way)
    run = {state, way, delay_us}

    [
      if(code != expected, do: {:exit_code, run, code, expected, output}),
      late(parent, run, took_ms),
      if(acknowledged == [], do: {:nothing_acknowledged, run, output}),
      lost(dir, store_id, acknowledged, run)
    ]
    |> Enum.reject(&is_nil/1)
  end

  # A busy machine takes its time with any VM: then one without a store is ended in the same way, for comparison.
  defp late(_parent, _run, took_ms) when took_ms <= @promptly_ms, do: nil

  defp late(parent, {_state, way, _delay_us} = run, took_ms) do
    {_code, [], bare_ms, _output} = Leaver.run(parent, :none, :without_store, way, 0)
    if took_ms > @promptly_ms + bare_ms, do: {:took_ms, run, took_ms, without_store: bare_ms}
  end

  defp lost(dir, store_id, acknowledged, run) do
    {:ok, ^store_id} = Cluster.start(dir, store_id, 60_000)
    lost = for n <- acknowledged, Tree.get(store_id, ["k", "#{n}"]) != {:ok, n}, do: n
    :ok = Cluster.stop(store_id)
    File.rm_rf!(dir)
    if lost != [], do: {:lost, run, Enum.take(lost, 10)}
  end
end
