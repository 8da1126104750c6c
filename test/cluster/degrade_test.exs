defmodule Tank.Store.Cluster.DegradeTest do
  # The disk of one member of three fails: the others serve within a second, and it comes back by itself.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.Native

  @moduletag :tmp_dir

  @served_ms_max 1_000

  for which <- [:leader, :follower] do
    test "the disk of the #{which} is full: the others serve within a second, and it heals", %{tmp_dir: dir} do
      peers = start_cluster(dir, 3)
      leader = await_leader(peers)
      failing = if unquote(which) == :leader, do: leader, else: hd(peers -- [leader])
      others = [other | _] = peers -- [failing]
      {:ok, _} = put(failing, "before", 1)

      :ok = call(failing, Native, :arm_fault, ["log_full", "return"])
      failed_at = System.monotonic_time(:millisecond)
      # Whoever writes makes its log be written.
      _unknown = put(other, "trigger", 1, 300)

      eventually("a write at another member", fn -> match?({:ok, _}, put(other, "during", 1, 300)) end)
      took_ms = System.monotonic_time(:millisecond) - failed_at
      IO.puts("\ndisk of the #{unquote(which)} full: another member serves after #{took_ms} ms")
      assert took_ms < @served_ms_max
      for peer <- others, do: assert({:ok, 1} = get(peer, "during"))

      eventually("the failing member to say so", fn ->
        match?({:ok, %{failure: :disk_full}}, cluster(failing, :status, [store()]))
      end)

      # It reads from memory, and answers no more than that.
      assert list(failing)["before"] == 1
      assert put(failing, "refused", 1) == {:error, :disk_full}
      assert get(failing, "before") == {:error, :disk_full}

      :ok = call(failing, Native, :arm_fault, ["log_full", "off"])
      eventually("it to take writes again", fn -> match?({:ok, _}, put(failing, "after", 1, 1_000)) end)
      await_agreement(peers)
      assert list(failing)["during"] == 1
    end
  end
end
