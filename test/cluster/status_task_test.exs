defmodule Tank.Store.Cluster.StatusTaskTest do
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  test "mix tank.status shows a running cluster, and says when it cannot", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    {output, 0} = status(leader.node)
    assert output =~ "store :cluster_test: quorum ok, leader #{leader.node}"
    for peer <- peers, do: assert(output =~ ~r/#{peer.node} +(leader|voter) +\d+/)

    for peer <- peers -- [leader], do: kill_node(peer)
    eventually("the quorum to be lost", fn -> match?({:ok, %{quorum: false}}, cluster(leader, :status, [store()])) end)
    assert {output, 1} = status(leader.node)
    assert output =~ "NO QUORUM"

    assert {output, 1} = status(:"nobody@127.0.0.1")
    assert output =~ "cannot be reached"
  end

  # In a VM of its own: this one stays undistributed. The library is compiled already.
  defp status(node) do
    arguments = ["tank.status", "--node", Atom.to_string(node)]
    name = ["--name", "status_#{System.unique_integer([:positive])}@127.0.0.1"]
    paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])
    code = "Mix.start(); Mix.Task.run(hd(System.argv()), tl(System.argv()))"

    System.cmd("elixir", paths ++ ["-e", code, "--"] ++ arguments ++ name,
      stderr_to_stdout: true,
      env: [{"TANK_COOKIE", "tank_cluster_test"}]
    )
  end
end
