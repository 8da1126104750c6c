defmodule Tank.Store.Cluster.FilesTasksTest do
  # The mix tasks about backups and exports, against a node that runs.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  test "a backup, an export and an import of a running node, and a restore", %{tmp_dir: dir} do
    [peer] = start_nodes(dir, 1)
    for n <- 1..20, do: {:ok, _} = put(peer, "k#{n}", n)
    file = &Path.join(dir, &1)

    assert {output, 0} = task("tank.backup", [file.("backup")], peer.node)
    assert output =~ "entries 20"
    assert output =~ "revision 20"
    assert {output, 0} = task("tank.export", [file.("export")], peer.node)
    assert output =~ "entries 20, revision 20, skipped 0"

    {:ok, _} = put(peer, "k1", :changed)
    assert {output, 0} = task("tank.import", [file.("export")], peer.node)
    assert output =~ "entries 20"
    assert get(peer, "k1") == {:ok, 1}
    khepri = Path.expand("../fixtures/khepri_text.export", __DIR__)
    assert {output, 0} = task("tank.import", [khepri, "--khepri"], peer.node)
    assert output =~ "entries 15, functions 1, without value 8"

    assert {output, 0} = task("tank.restore", [file.("backup"), file.("restored"), "--store", "restored"], nil)
    assert output =~ "entries 20"
    restored = start_store(file.("restored"), store_id: :restored)
    # Another history begins above all that was seen of the former one.
    assert {:ok, %{entries: 20, revision: revision}} = Tank.Store.Cluster.status(restored)
    assert revision > 1_000_000_000_000

    assert {output, 1} = task("tank.restore", [file.("backup"), file.("restored")], nil)
    assert output =~ "is in use by another store: stop that one"
    assert {output, 1} = task("tank.backup", [file.("none/backup")], peer.node)
    assert output =~ "cannot be read or written"
    assert {output, 1} = task("tank.backup", [file.("backup")], :"nobody@127.0.0.1")
    assert output =~ "cannot be reached"
    assert {output, 1} = task("tank.backup", [], peer.node)
    assert output =~ "usage: mix tank.backup"
  end

  # In a VM of its own: this one stays undistributed. The library is compiled already.
  defp task(name, arguments, node) do
    asks = fn node ->
      me = ["--name", "files_#{System.unique_integer([:positive])}@127.0.0.1"]
      ["--node", Atom.to_string(node), "--store", "cluster_test"] ++ me
    end

    arguments = [name | arguments] ++ if(node, do: asks.(node), else: [])
    paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])
    code = "Mix.start(); Mix.Task.run(hd(System.argv()), tl(System.argv()))"
    env = [{"TANK_COOKIE", "tank_cluster_test"}]
    System.cmd("elixir", paths ++ ["-e", code, "--"] ++ arguments, stderr_to_stdout: true, env: env)
  end
end
