# What bin/demo shows: a supervision tree with a store and a reconciler, pods that change, and a `kill -9` in the middle
# of writes. Ends with exit code 0 if no acknowledged write was lost, else 1.

Code.require_file("reconciler.exs", __DIR__)

# Of what the store logs (guides/logs.md), only warnings and errors.
Application.put_env(:logger, :level, :warning)
:ok = :logger.set_primary_config(:level, :warning)

defmodule Demo do
  @writers 8
  @acknowledgements 400
  @timeout 30_000

  def main do
    dir = Path.join(System.tmp_dir!(), "tank_store_demo_#{System.pid()}")
    {:ok, _apps} = Application.ensure_all_started(:tank_store)
    IO.puts("\nTank.Store keeps what a machine should run. This is one at work, in #{dir}.")

    tree = start_tree(dir)
    pods = seed()
    pods = change(pods)
    Supervisor.stop(tree)
    acknowledged = write_and_kill(dir)
    tree = reopen(dir)
    verdict = verdict(pods, acknowledged)
    Supervisor.stop(tree)

    if verdict == 0, do: File.rm_rf!(dir), else: IO.puts("The store is still in #{dir}.")
    System.halt(verdict)
  end

  defp start_tree(dir) do
    headline(1, "A supervision tree: the store, and a reconciler that looks at it five times a second")
    {:ok, tree} = Supervisor.start_link(children(dir), strategy: :rest_for_one)
    say("{Tank.Store, data_dir: ...} and Reconciler are up: nothing to run yet.")
    tree
  end

  defp children(dir), do: [{Tank.Store, data_dir: dir}, Reconciler]

  defp seed do
    headline(2, "The pods of examples/pods.exs are put; the reconciler starts them")
    {pods, _bindings} = Code.eval_file(Path.join(__DIR__, "pods.exs"))
    Enum.each(pods, &(:ok = Tank.Store.put_pod(&1)))
    Reconciler.sync()
    Map.new(pods, &{&1.name, &1})
  end

  defp change(pods) do
    headline(3, "What should run changes; the reconciler follows")
    {:ok, web} = Tank.Store.get_pod("web")
    newer = update_in(web.containers, fn [nginx] -> [%{nginx | image: "nginx:1.28"}] end)
    worker = Tank.Pod.new!(name: "batch-worker-2", containers: [[name: "worker", image: "python:3.12-slim"]])

    call("put_pod(web with nginx:1.28)", Tank.Store.put_pod(newer))
    call("delete_pod(\"cache\")", Tank.Store.delete_pod("cache"))
    call("create_pod(batch-worker-2)", Tank.Store.create_pod(worker))
    call("create_pod(batch-worker-2) again", Tank.Store.create_pod(worker))
    Reconciler.sync()
    pods |> Map.delete("cache") |> Map.merge(%{"web" => newer, "batch-worker-2" => worker})
  end

  # The names of the pods that another process wrote and the store acknowledged before the process was killed.
  defp write_and_kill(dir) do
    headline(4, "Another process writes to the same directory, and is killed in the middle")
    ebin = Application.app_dir(:tank_store, "ebin")
    args = ["-pa", ebin, Path.join(__DIR__, "writers.exs"), dir, "#{@writers}"]
    elixir = System.find_executable("elixir") || fail("elixir is not on the path")
    port = Port.open({:spawn_executable, elixir}, [:binary, :exit_status, {:line, 1000}, args: args])
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    say("Process #{os_pid}: #{@writers} writers put pods; each acknowledgement is written down here.")

    acknowledged = acknowledgements(port, @acknowledgements, [])
    {_output, 0} = System.cmd("sh", ["-c", "kill -9 #{os_pid}"])
    acknowledged = acknowledgements(port, :all, acknowledged)
    say("kill -9 #{os_pid}, after #{length(acknowledged)} acknowledgements.")
    acknowledged
  end

  defp acknowledgements(_port, 0, names), do: names

  defp acknowledgements(port, left, names) do
    receive do
      {^port, {:data, {:eol, "job-" <> _rest = name}}} -> acknowledgements(port, less(left), [name | names])
      {^port, {:data, {_eol, other}}} -> fail("the writing process said #{inspect(other)}")
      {^port, {:exit_status, _killed}} when left == :all -> names
      {^port, {:exit_status, status}} -> fail("the writing process ended by itself, with status #{status}")
    after
      @timeout -> fail("no acknowledgement for #{div(@timeout, 1000)} s, after #{length(names)} of them")
    end
  end

  defp less(:all), do: :all
  defp less(left), do: left - 1

  defp reopen(dir) do
    headline(5, "The store is opened again, as after a crash; the reconciler starts all there is")

    # From its second start on a machine is told that the store must be there. Without, a mount that is missing would look
    # like a new machine: an empty store would be made below it.
    children = [{Tank.Store, data_dir: dir, create: false}, Reconciler]
    {microseconds, {:ok, tree}} = :timer.tc(fn -> Supervisor.start_link(children, strategy: :rest_for_one) end)
    say("With create: false it must find its directory, or say that the mount is missing.")
    say("All of this took #{div(microseconds, 1000)} ms.")
    tree
  end

  defp verdict(pods, acknowledged) do
    headline(6, "What was acknowledged, and what is there")
    there = Map.new(Tank.Store.list_pods(), &{&1.name, &1})
    rows = for writer <- 1..@writers, do: row("writer #{writer}", names(acknowledged, writer), there)
    total = row("all writers", acknowledged, there)
    rows = [row("before", Map.keys(pods), there) | rows] ++ [total]
    say(cells(["", "acknowledged", "there", "lost"]))
    Enum.each(rows, &say(cells(&1)))

    [_label, acknowledged_count, there_count, lost] = total
    unchanged? = Enum.all?(pods, fn {name, pod} -> there[name] == pod end)
    unanswered = map_size(there) - map_size(pods) - there_count
    if unanswered > 0, do: say("Besides, #{unanswered} more are there: the kill cut off their answers.")
    result = "#{acknowledged_count} writes acknowledged, #{there_count} there, #{lost} lost"
    conclude(lost == 0 and unchanged? and unanswered >= 0, result, unchanged?)
  end

  defp conclude(true, result, _unchanged?) do
    IO.puts(IO.ANSI.format(["\n", :green, :bright, result, :reset, ", and the pods from before are as they were.\n"]))
    0
  end

  defp conclude(false, result, unchanged?) do
    IO.puts(IO.ANSI.format(["\n", :red, :bright, "FAILED: ", result, :reset]))
    unless unchanged?, do: IO.puts("The pods from before are not as they were.")
    1
  end

  defp names(acknowledged, writer), do: Enum.filter(acknowledged, &String.starts_with?(&1, "job-#{writer}-"))

  defp row(label, names, there) do
    found = Enum.count(names, &intact?(&1, there[&1]))
    [label, length(names), found, length(names) - found]
  end

  # The image of a writer's pod repeats its name: so each has a content of its own.
  defp intact?("job-" <> rest, pod), do: pod != nil and images(pod) == ["job:" <> String.replace(rest, "-", ".")]
  defp intact?(_name, pod), do: pod != nil

  defp images(pod), do: Enum.map(pod.containers, & &1.image)

  defp cells([label | numbers]) do
    String.pad_trailing(label, 12) <> Enum.map_join(numbers, &String.pad_leading("#{&1}", 14))
  end

  defp headline(number, text), do: IO.puts(IO.ANSI.format(["\n", :bright, "#{number}. ", text]))
  defp say(text), do: IO.puts("   " <> text)
  defp call(text, result), do: say("#{String.pad_trailing(text, 34)} #{inspect(result)}")

  defp fail(why) do
    IO.puts(:stderr, "\nThe demo failed: #{why}.")
    System.halt(1)
  end
end

Demo.main()
