defmodule Tank.Bench.Workload.Large do
  @moduledoc """
  More values than may be in memory: entries of 1 KB that do not compress, a million unless `--entries` says otherwise,
  in groups of 1,000, with the store's `memory_bytes_max` at `--memory-mb` (a tenth of the values unless given).

  One VM writes them all, each with a put of its own by 256 processes, and reads them; a second one starts on what that
  left behind, and reads; a third one does so after a `kill -9`. "Hit" reads a thousand entries again and again, "miss" any
  of all. Booting a VM is not in the time; the files are in the page cache as far as that reaches.
  """

  alias Tank.Bench.{FreshVm, Load, Machine, Report}
  alias Tank.Store.{Cluster, Tree}

  @group 1_000
  @value_bytes 1_000
  @writers 256
  @readers 4
  @hits 1_000
  # The rate of puts is told for each of so many parts: it must not fall as the store grows.
  @parts 10

  @doc "Runs it."
  @spec run(Tank.Bench.settings()) :: Report.t()
  def run(settings) do
    entries = settings.entries || if(settings.quick?, do: 2_000, else: 1_000_000)
    megabytes = settings.memory_mb || max(div(entries * @value_bytes, 10_000_000), 1)
    dir = Path.join(settings.dir, "large")
    options = %{cluster_name: :large, memory_bytes_max: megabytes * 1_048_576}
    told(fn -> "writing #{Report.number(entries)} entries, at most #{megabytes} MB of them in memory" end)
    {:ok, filled} = FreshVm.call(__MODULE__, :fill, [dir, options, entries, settings.seconds])
    told(fn -> "written at #{Report.number(filled.put)} a second; starting again" end)
    {:ok, opened} = FreshVm.call(__MODULE__, :open, [dir, options, entries, settings.seconds])
    :killed = FreshVm.call(__MODULE__, :die, [dir, options, entries, settings.seconds])
    {:ok, killed} = FreshVm.call(__MODULE__, :open, [dir, options, entries, settings.seconds])
    report(entries, megabytes, filled, opened, killed, disk_bytes(dir))
  end

  @doc false
  def fill(dir, options, entries, seconds) do
    start(dir, options)
    parts = fn -> for part <- 1..@parts, do: part(div(entries * (part - 1), @parts), div(entries * part, @parts)) end
    {rates, most_written} = most_kept(parts)
    {found, most} = most_kept(fn -> reads(entries, seconds) end)

    found =
      Map.merge(found, %{most: most, most_written: most_written, put: entries / Enum.sum(Enum.map(rates, &elem(&1, 1)))})

    found = Map.merge(found, %{parts: for({count, seconds} <- rates, do: count / seconds)})
    found = Map.merge(found, memory())
    {closing, :ok} = time(fn -> Cluster.stop(:large) end)
    Map.put(found, :closing, closing)
  end

  @doc false
  def open(dir, options, entries, seconds) do
    {opening, :ok} =
      time(fn ->
        start(dir, options)
        {:ok, _value} = Tree.get(:large, path(0))
        :ok
      end)

    {:ok, ^entries} = Tree.count(:large, [:large, :*, :*], timeout: :infinity)
    {found, most} = most_kept(fn -> reads(entries, seconds) end)
    found = found |> Map.merge(memory()) |> Map.merge(%{opening: opening, most: most})
    :ok = Cluster.stop(:large)
    found
  end

  @doc false
  # What is overwritten at that moment keeps its size.
  def die(dir, options, entries, seconds) do
    start(dir, options)
    Task.async(fn -> Load.run_forever(any(entries, fn path -> put(path) end), 16) end)
    Process.sleep(trunc(seconds * 1000))
    FreshVm.kill_self()
  end

  defp start(dir, options) do
    {:ok, _started} = Application.ensure_all_started(:tank_store)
    {:ok, :large} = Cluster.start(dir, options, :infinity)
    :ok = Tree.fence(:large, timeout: :infinity)
  end

  defp part(first, until) do
    {seconds, :ok} =
      time(fn ->
        tasks = for writer <- 1..@writers, do: Task.async(fn -> write(first + writer - 1, until) end)
        Task.await_many(tasks, :infinity)
        :ok
      end)

    {until - first, seconds}
  end

  defp write(i, until) when i >= until, do: :ok

  defp write(i, until) do
    :ok = put(path(i))
    write(i + @writers, until)
  end

  defp put(path) do
    {:ok, _revision} = Tree.put(:large, path, :crypto.strong_rand_bytes(@value_bytes), timeout: :infinity)
    :ok
  end

  defp reads(entries, seconds) do
    miss = Load.run(@readers, seconds, any(entries, &get/1))
    # Once to bring them in.
    hits = any(min(entries, @hits), &get/1)
    Load.run(@readers, seconds / 3, hits)
    hit = Load.run(@readers, seconds, hits)
    list = Load.run(1, seconds, any(entries, &list/1))
    again = Load.run(1, seconds, fn _client -> fn _count -> list(path(0)) end end)
    %{miss: miss, hit: hit, list: list, list_again: again}
  end

  # Each client has an order of its own.
  defp any(entries, call) do
    fn client ->
      Process.put(:seed, client * 7919)

      fn _count ->
        {i, seed} = Load.next(Process.get(:seed), entries)
        Process.put(:seed, seed)
        call.(path(i))
      end
    end
  end

  defp get(path) do
    {:ok, value} = Tree.get(:large, path, timeout: :infinity)
    if byte_size(value) == @value_bytes, do: :ok
  end

  defp list([:large, group, _name]) do
    {:ok, entries, _revision} = Tree.list(:large, [:large, group], timeout: :infinity)
    if entries != [], do: :ok
  end

  defp path(i), do: [:large, "group-#{div(i, @group)}", "entry-#{i}"]

  defp memory do
    {:ok, status} = Cluster.status(:large)
    %{rss: Machine.rss(), peak: Machine.rss_peak(), kept: status.memory_bytes, all: status.value_bytes}
  end

  # The most bytes of values that were in memory while `run` ran.
  defp most_kept(run) do
    watcher = Task.async(fn -> watch_kept(0) end)
    found = run.()
    send(watcher.pid, :stop)
    {found, Task.await(watcher)}
  end

  defp watch_kept(most) do
    {:ok, status} = Cluster.status(:large)

    receive do
      :stop -> max(most, status.memory_bytes)
    after
      50 -> watch_kept(max(most, status.memory_bytes))
    end
  end

  defp disk_bytes(dir) do
    for path <- Path.wildcard(Path.join(dir, "**"), match_dot: true), File.regular?(path), reduce: 0 do
      bytes -> bytes + File.stat!(path).size
    end
  end

  defp time(run) do
    {micros, result} = :timer.tc(run)
    {micros / 1.0e6, result}
  end

  defp told(text), do: IO.puts(text.())

  # -- The report

  defp report(entries, megabytes, filled, opened, killed, disk) do
    title = "#{Report.number(entries)} entries of 1 KB, at most #{Report.number(megabytes)} MB of them in memory"
    stages = [filled, opened, killed]
    head = ["", "after the puts", "after a restart", "after a kill -9"]
    row = fn label, pick -> [label | for(stage <- stages, do: shown(pick.(stage)))] end

    rows = [
      row.("puts, 256 writers, 1/s", & &1[:put]),
      row.("slowest tenth of the puts, 1/s", &(&1[:parts] && Enum.min(&1[:parts]))),
      row.("from the start to the first answer, s", & &1[:opening]),
      row.("gets of any entry, 4 readers, 1/s", & &1.miss.rate),
      row.("  p99 us", & &1.miss.p99),
      row.("gets of 1,000 entries, 4 readers, 1/s", & &1.hit.rate),
      row.("  p99 us", & &1.hit.p99),
      row.("lists of any 1,000 entries, ms", &milliseconds(&1.list.p50)),
      row.("lists of the same 1,000 entries, ms", &milliseconds(&1.list_again.p50)),
      row.("values in memory, MB", &megabytes(&1.kept)),
      ["values in memory at most, while writing, MB", shown(megabytes(filled.most_written)), "", ""],
      row.("values in memory at most, while reading, MB", &megabytes(&1.most)),
      row.("values, MB", &megabytes(&1.all)),
      row.("resident memory, MB", &megabytes(&1.rss)),
      row.("resident memory at most, MB", &megabytes(&1.peak)),
      row.("resident memory an entry, besides values, B", &((&1.rss - &1.kept) / entries)),
      ["clean stop, s", shown(filled.closing), "", ""],
      ["files, MB", "", "", shown(megabytes(disk))]
    ]

    %{tables: [%{title: title, head: head, rows: rows}], series: series(entries, megabytes, stages, disk)}
  end

  defp series(entries, megabytes, stages, disk) do
    params = %{entries: entries, memory_mb: megabytes}

    stage =
      for {name, stage} <- Enum.zip(["filled", "opened", "killed"], stages), {metric, unit, value} <- metrics(stage) do
        Report.series("large.#{metric}", Map.put(params, :stage, name), unit, [value])
      end

    parts = Report.series("large.put_parts", params, "1/s", hd(stages).parts)
    [parts, Report.series("large.files", params, "B", [disk]) | stage]
  end

  defp metrics(stage) do
    some = for {key, unit} <- [put: "1/s", opening: "s", closing: "s"], stage[key], do: {key, unit, stage[key]}
    memory = for key <- [:kept, :most, :most_written, :all, :rss, :peak], stage[key], do: {key, "B", stage[key]}

    loads =
      for key <- [:miss, :hit, :list, :list_again], {field, unit} <- [rate: "1/s", p50: "us", p99: "us"] do
        {"#{key}.#{field}", unit, stage[key][field]}
      end

    some ++ memory ++ loads
  end

  defp shown(nil), do: ""
  defp shown(number), do: Report.number(number)

  defp milliseconds(micros), do: micros / 1000
  defp megabytes(bytes), do: bytes / 1_048_576
end
