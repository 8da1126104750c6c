defmodule Tank.Store.Release.FleetTest do
  # The application in examples/fleet as a release on three nodes, with its own commands only.
  use ExUnit.Case, async: false

  import Bitwise
  import Tank.Store.ReleaseNode

  alias Tank.Store.ReleaseNode

  @moduletag :release
  @moduletag :tmp_dir
  @moduletag timeout: :timer.minutes(30)

  if missing = Enum.find(~w(readelf strip objcopy), &(System.find_executable(&1) == nil)) do
    why = "#{missing} is not installed: apt-get install -y --no-install-recommends binutils"
    @moduletag skip: why
    if :release in ExUnit.configuration()[:include],
      do: IO.puts(:stderr, "The sample application is not tested: #{why}")
  end

  test "is killed, upgraded, backed up and restored by its own commands", %{tmp_dir: tmp_dir} do
    dir = Path.expand(tmp_dir)
    app = Path.join(dir, "app")
    copy_app!("examples/fleet", app)
    assert mix!(app, ["release", "--path", Path.join(dir, "v1/fleet")]) =~ "* stripped libtank_nif.so"

    cookie = "cookie#{System.os_time()}"
    home = Path.join(dir, "home")
    write_cookie(home, cookie)
    nodes = Enum.map(1..3, &node(dir, &1, home)) |> Enum.map(&start/1)
    on_exit(fn -> for node <- nodes, do: System.cmd("sh", ["-c", "kill -9 $(cat #{pid_file(node)}) 2>/dev/null"]) end)
    Enum.each(nodes, &File.write!(pid_file(&1), Integer.to_string(&1.os_pid)))
    watcher = Task.async(fn -> watch_command_lines(cookie, 0, 0) end)

    assert_library_is_stripped(dir)
    Enum.each(nodes, &await_healthy/1)
    [one, two, three] = nodes

    rpc!(one, ~s|:ok = Fleet.put_job("web", %{copies: 2})|)
    rpc!(two, ~s|:ok = Fleet.put_limit("cpu", 4)|)
    for node <- nodes, do: await_state(node, ~s|[{"web", %{copies: 2}}]|, ~s|%{"cpu" => 4}|)
    assert length(planners(nodes)) == 1
    assert length(String.split(rpc!(three, "Tank.Store.Ops.members(:fleet)"))) == 3

    # Kill the one that plans: another one does, and it comes back with all that was written meanwhile.
    [killed] = planners(nodes)
    [survivor | _rest] = survivors = nodes -- [killed]
    kill(killed)
    await(survivor, ~s|:ok = Fleet.put_job("db", %{copies: 1})|)
    await_planner(survivors)
    nodes = survivors ++ [restart(killed)]
    Enum.each(nodes, &await_healthy/1)
    jobs = ~s|[{"db", %{copies: 1}}, {"web", %{copies: 2}}]|
    for node <- nodes, do: await_state(node, jobs, ~s|%{"cpu" => 4}|)

    # Upgrade one: stop, replace the release, start.
    mix_exs = Path.join(app, "mix.exs")
    File.write!(mix_exs, String.replace(File.read!(mix_exs), ~s(version: "0.1.0"), ~s(version: "0.1.1")))
    mix!(app, ["release", "--path", Path.join(dir, "v2/fleet")])
    [upgraded | others] = nodes
    stop(upgraded)
    File.rm_rf!(upgraded.dir)
    File.cp_r!(Path.join(dir, "v2/fleet"), upgraded.dir)
    upgraded = restart(upgraded)
    await_healthy(upgraded)
    assert rpc!(upgraded, "IO.puts(Application.spec(:fleet, :vsn))") == "0.1.1"
    await_state(upgraded, jobs, ~s|%{"cpu" => 4}|)

    # Back up while it runs, and lose something.
    nodes = [upgraded | others]
    backups = Path.join(dir, "backups")
    File.mkdir_p!(backups)

    for store <- ["fleet", "limits"] do
      assert rpc!(upgraded, ~s|Tank.Store.Ops.backup(:#{store}, "#{backups}/#{store}")|) =~ "entries 1" or
               store == "fleet"

      assert File.regular?(Path.join(backups, store))
    end

    rpc!(upgraded, "{:ok, _} = Tank.Store.Tree.delete(:fleet, [:jobs, \"web\"])")
    assert {output, 1} = command(upgraded, "rpc", ~s|Tank.Store.Ops.backup(:fleet, "#{dir}/missing/file")|)
    assert output =~ "Tank.Store.Error"
    assert {_output, 1} = command(upgraded, "rpc", "Tank.Store.Ops.status(:unknown)")

    # Restore as the guide says: all stopped, all directories away, the backups on one, the others join it.
    Enum.each(nodes, &stop/1)
    for node <- nodes, do: File.rename!(data(node), data(node) <> ".old")
    [first | _joiners] = nodes

    for store <- ["fleet", "limits"] do
      restore = ~s|Tank.Store.Ops.restore("#{backups}/#{store}", "#{data(first)}/#{store}", store_id: :#{store})|
      assert {output, 0} = command(first, "eval", restore)
      assert output =~ "restore: "
      assert {_output, 1} = command(first, "eval", restore), "there is a store now"
    end

    nodes = Enum.map(nodes, &restart/1)
    Enum.each(nodes, &await_healthy/1)
    for node <- nodes, do: await_state(node, jobs, ~s|%{"cpu" => 4}|)
    Enum.each(nodes, &stop/1)

    send(watcher.pid, :stop)
    {looks, releases} = Task.await(watcher)
    assert looks > 100 and releases > 100, "saw #{releases} command lines of the release in #{looks} looks"
  end

  test "of an umbrella finds the library", %{tmp_dir: tmp_dir} do
    dir = Path.expand(tmp_dir)
    child = Path.join(dir, "apps/one")
    File.mkdir_p!(child)

    File.write!(Path.join(dir, "mix.exs"), """
    defmodule Umbrella.MixProject do
      use Mix.Project
      def project do
        [apps_path: "apps", version: "0.1.0", deps: [],
         releases: [fleet: [applications: [one: :permanent], steps: [:assemble, &Tank.Store.Release.strip/1]]]]
      end
    end
    """)

    File.write!(Path.join(child, "mix.exs"), """
    defmodule One.MixProject do
      use Mix.Project
      def project do
        [app: :one, version: "0.1.0", build_path: "../../_build", deps_path: "../../deps", lockfile: "../../mix.lock",
         deps: [{:tank_store, path: #{inspect(File.cwd!())}}]]
      end
    end
    """)

    mix!(dir, ["release", "--path", Path.join(dir, "fleet")])
    node = %ReleaseNode{dir: Path.join(dir, "fleet"), name: "umbrella", env: []}
    assert {output, 0} = command(node, "eval", "IO.puts(Tank.Store.Native.version())")
    assert String.trim(output) == Mix.Project.config()[:version]
  end

  defp node(dir, number, home) do
    release = Path.join(dir, "node#{number}/fleet")
    File.mkdir_p!(Path.dirname(release))
    File.cp_r!(Path.join(dir, "v1/fleet"), release)
    name = &"fleet#{&1}-#{System.pid()}@127.0.0.1"

    env = [
      {"HOME", home},
      {"FLEET_NODE", name.(number)},
      {"FLEET_NODES", Enum.map_join(1..3, ",", name)},
      {"FLEET_DATA", Path.join(dir, "node#{number}/data")},
      {"FLEET_DASHBOARD_PORT", "0"},
      {"RELEASE_COOKIE", nil}
    ]

    %ReleaseNode{dir: release, name: name.(number), env: Enum.reject(env, &match?({_name, nil}, &1))}
  end

  defp write_cookie(home, cookie) do
    File.mkdir_p!(home)
    File.write!(Path.join(home, ".erlang.cookie"), cookie)
    File.chmod!(Path.join(home, ".erlang.cookie"), 0o400)
  end

  defp restart(node) do
    node = start(node)
    File.write!(pid_file(node), Integer.to_string(node.os_pid))
    node
  end

  defp pid_file(node), do: node.dir <> ".pid"
  defp data(node), do: Path.join(Path.dirname(node.dir), "data")

  defp await_healthy(node) do
    await(node, "Tank.Store.Ops.status()", &(length(Regex.scan(~r/quorum ok/, &1)) == 2))
    await(node, "Tank.Store.Ops.members(:fleet)", &(length(String.split(&1)) == 3))
  end

  defp await_state(node, jobs, limits),
    do: await(node, "IO.inspect({Fleet.jobs(), Fleet.limits()})", &(&1 == "{#{jobs}, #{limits}}"))

  defp planners(nodes), do: Enum.filter(nodes, &(rpc!(&1, "IO.inspect(Fleet.planner_epoch())") != "nil"))

  defp await_planner(nodes, tries \\ 60) do
    planners = planners(nodes)

    cond do
      length(planners) == 1 -> planners
      tries > 0 -> await_planner(nodes, tries - 1)
      true -> flunk("nobody plans")
    end
  end

  defp assert_library_is_stripped(dir) do
    [library] = Path.wildcard(Path.join(dir, "v1/fleet/lib/tank_store-*/priv/native/*.so"))
    assert {sections, 0} = System.cmd("readelf", ["--sections", "--wide", library])
    refute sections =~ ".symtab" or sections =~ ".debug_line"
    assert sections =~ ".gnu_debuglink"
    symbols = Path.join(dir, "v1/fleet-0.1.0.symbols/libtank_nif.so.debug")
    assert {sections, 0} = System.cmd("readelf", ["--sections", "--wide", symbols])
    assert sections =~ ".symtab"
    assert band(File.stat!(library).mode, 0o444) == 0o444
  end

  # Looks at all command lines of the machine, again and again, as any of its users could.
  defp watch_command_lines(cookie, looks, releases) do
    lines = for file <- Path.wildcard("/proc/[0-9]*/cmdline"), {:ok, line} <- [File.read(file)], do: line
    for line <- lines, do: refute(line =~ cookie, "the cookie is on a command line: #{inspect(line)}")
    releases = releases + Enum.count(lines, &(&1 =~ "/fleet/releases/"))

    receive do
      :stop -> {looks + 1, releases}
    after
      20 -> watch_command_lines(cookie, looks + 1, releases)
    end
  end
end
