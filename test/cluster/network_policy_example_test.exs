defmodule Tank.Store.Cluster.NetworkPolicyExampleTest do
  use ExUnit.Case, async: false

  # As `mix run examples/network_policy.exs`, with the library of this build.
  @tag timeout: 180_000
  test "the agent follows its endpoints while the store loses its quorum and gets it back" do
    args = ["run", "--no-compile", "examples/network_policy.exs"]
    {output, status} = System.cmd("mix", args, stderr_to_stdout: true, env: [{"MIX_ENV", "test"}])
    assert status == 0, output

    assert [first, changes, lost, back, last] =
             output |> String.split("\n\n") |> Enum.map(&(&1 |> String.trim() |> String.split("\n   ") |> tl()))

    assert first == [
             "status     wait_for_datastore",
             "status     resync_in_progress",
             "new        eth1 {10, 0, 0, 1}",
             "new        eth2 {10, 0, 0, 2}",
             "new        eth3 {10, 0, 0, 3}",
             "status     in_sync"
           ]

    assert rules(changes) == [
             "updated    eth1 {10, 0, 0, 9}",
             "deleted    eth2 nil",
             "unreadable /endpoints/host-1/eth4: \"not an address\"",
             "new        eth4 :deny"
           ]

    assert rules(lost) == []
    assert List.last(lost) == "status     resync_in_progress"
    # Whether the list or the watch told of them is a matter of time; that each came once is not.
    assert Enum.sort(rules(back)) == ["deleted    eth4 nil", "new        eth5 {10, 0, 0, 5}"]
    assert "status     in_sync" in back
    assert Enum.sort(rules(last)) == ["deleted    eth1 nil", "deleted    eth3 nil", "deleted    eth5 nil"]
    # No noise: neither warnings nor errors.
    refute output =~ ~r/warning|error\]|\*\*/
  end

  # On a busy machine the quorum may go for a moment, and come back.
  defp rules(lines), do: Enum.reject(lines, &String.starts_with?(&1, "status"))
end
