defmodule Tank.Store.NetworkPolicyExampleTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  test "the agent follows its endpoints while the store stops and starts" do
    lines = fn -> Code.eval_file("examples/network_policy.exs") end |> capture_io() |> String.split("\n", trim: true)
    phases = Enum.chunk_while(lines, [], &chunk/2, &{:cont, Enum.reverse(&1), []}) |> Enum.reject(&(&1 == []))
    assert [first, changes, stopped, back, last] = Enum.map(phases, &tl/1)

    assert first == [
             "  status     wait_for_datastore",
             "  status     resync_in_progress",
             "  new        eth1 {10, 0, 0, 1}",
             "  new        eth2 {10, 0, 0, 2}",
             "  new        eth3 {10, 0, 0, 3}",
             "  status     in_sync"
           ]

    assert changes == [
             "  updated    eth1 {10, 0, 0, 9}",
             "  deleted    eth2 nil",
             "  unreadable /endpoints/host-1/eth4: \"not an address\"",
             "  new        eth4 :deny"
           ]

    assert stopped == ["  status     resync_in_progress"]
    # Whether the list or the watch told of them is a matter of time; that each came once is not.
    assert Enum.sort(back) == ["  deleted    eth4 nil", "  new        eth5 {10, 0, 0, 5}", "  status     in_sync"]
    assert Enum.sort(last) == ["  deleted    eth1 nil", "  deleted    eth3 nil", "  deleted    eth5 nil"]
  end

  defp chunk("  " <> _rest = line, lines), do: {:cont, [line | lines]}
  defp chunk(heading, lines), do: {:cont, Enum.reverse(lines), [heading]}
end
