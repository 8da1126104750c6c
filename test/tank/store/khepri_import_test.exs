defmodule Tank.Store.KhepriImportTest do
  # A large export, made by Khepri itself right now. Small ones are in test/fixtures.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backup, Call, Cluster}

  @moduletag :tmp_dir
  @moduletag :long
  @moduletag timeout: 600_000

  # A Debian root with Elixir, and with Khepri's libraries as the package rabbitmq-server has them.
  @root System.get_env("TANK_KHEPRI_ROOT") ||
          Path.join(System.get_env("XDG_CACHE_HOME") || Path.expand("~/.cache"), "tank_store/peers/sid")
  @plugins @root |> Path.join("opt/rabbitmq/usr/lib/rabbitmq/lib/*/plugins") |> Path.wildcard() |> List.first()

  if @plugins == nil do
    @moduletag skip: "no Khepri in #{@root}: set TANK_KHEPRI_ROOT to a Debian root that has it"
  end

  @count 10_000

  test "an export of 10,000 nodes is imported completely, as text and as a stream", %{tmp_dir: dir} do
    work = Path.join(@root, "srv/import_test_#{System.pid()}")
    File.mkdir_p!(work)
    on_exit(fn -> File.rm_rf!(work) end)
    File.cp!(Path.expand("../../support/khepri_export.exs", __DIR__), Path.join(work, "export.exs"))
    inside = &Path.join("/srv/#{Path.basename(work)}", &1)
    plugins = String.replace_prefix(@plugins, @root, "")
    arguments = [plugins, inside.("data"), inside.("text"), inside.("stream"), Integer.to_string(@count)]
    environment = ~w(env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8)
    command = [@root] ++ environment ++ ["elixir", inside.("export.exs")] ++ arguments
    {output, status} = System.cmd("chroot", command, stderr_to_stdout: true)
    assert status == 0, String.slice(output, -2_000, 2_000)

    for kind <- ["text", "stream"] do
      store = start_store(Path.join(dir, kind))
      {microseconds, result} = :timer.tc(fn -> Backup.import_khepri(store, Path.join(work, kind)) end)
      # The root of the pods and the hundred groups have no value.
      assert result == {:ok, %{entries: @count, without_value: 101, functions: 0}}
      assert {:ok, %{entries: @count}} = Cluster.status(store)
      IO.puts("#{@count} nodes of Khepri's #{kind} imported in #{div(microseconds, 1000)} ms")

      for n <- 1..@count do
        {:ok, key} = Tank.Store.Path.to_key([:pods, "group-#{rem(n, 100)}", "pod-#{n}"])
        value = %{name: "pod-#{n}", number: n, tags: [:a, {n, "ü"}], spec: String.duplicate("x", rem(n, 300))}
        assert Call.get(store, key, &{:ok, &1}, 5_000) == {:ok, value}
      end
    end
  end
end
