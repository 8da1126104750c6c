defmodule Tank.Store.Cluster.TransportTest do
  # What comes from other nodes may be anything.
  use Tank.Store.ClusterCase, async: false

  @moduletag :tmp_dir

  test "frames that are garbage, another cluster's or a former member's are dropped and counted", %{tmp_dir: dir} do
    [a, b] = start_cluster(dir, 2)
    {:ok, _revision} = put(a, "k", 1)
    {before, _foreign} = dropped(a)

    # Nothing, a version of the future, a cut-off head, heads without a body that could be decoded, and a part of a
    # message that cannot be.
    {:ok, %{cluster_id: cluster_id, member_id: member_id}} = cluster(a, :status, [store()])
    head = head(cluster_id, member_id)
    garbage = :binary.copy(<<0xC1>>, 100)
    part = <<1::64, 0::64, 1, 0::64, 90::32, 100::32>>

    frames = [
      <<>>,
      <<3>> <> binary_part(head.(0), 1, 73),
      binary_part(head.(0), 0, 20),
      head.(0) <> garbage,
      head.(2) <> garbage,
      head.(3) <> part <> garbage,
      head.(99)
    ]

    for frame <- frames, do: :ok = send_frame(b, a, {:tank_frame, b.node, frame})

    eventually("the garbage to be counted", fn ->
      {malformed, _foreign} = dropped(a)
      malformed == before + length(frames) or {:not_yet, malformed}
    end)

    {_malformed, foreign} = dropped(a)

    for {to_cluster, to_member} <- [{cluster_id + 1, member_id}, {cluster_id, member_id + 1}] do
      :ok = send_frame(b, a, {:tank_frame, b.node, head(to_cluster, to_member).(0) <> "body"})
    end

    eventually("the foreign frames to be counted", fn -> elem(dropped(a), 1) >= foreign + 2 end)

    # No frames at all.
    for message <- [
          :hello,
          {:tank_frame, b.node, :no_binary},
          {:tank_frame, "b", <<>>},
          {:tank_frame, b.node, :control, <<>>}
        ] do
      :ok = send_frame(b, a, message)
    end

    assert {:ok, _revision} = put(b, "k", 2)
    assert get(a, "k") == {:ok, 2}
  end

  test "all stop, and a majority that is back is enough; those who wait for a leader hear of it", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    {:ok, _revision} = put(hd(peers), "k", 1)
    for peer <- peers, do: :ok = cluster(peer, :stop, [store()])
    [a, b, c] = peers
    assert cluster(a, :wait_for_leader, [store(), 200]) == {:error, :noproc}

    # It may wait before the store is started.
    waiting = Task.async(fn -> cluster(a, :wait_for_leader, [store(), 30_000]) end)
    assert cluster(a, :start, [a.dir, store()]) == {:ok, store()}
    assert cluster(b, :start, [b.dir, store()]) == {:ok, store()}
    assert Task.await(waiting, 60_000) == :ok
    assert {:ok, _revision} = put(b, "k", 2, 20_000)
    assert get(a, "k") == {:ok, 2}
    assert cluster(c, :start, [c.dir, store()]) == {:ok, store()}
    await_agreement(peers)
  end

  test "a counter goes up by one each time while members come and go", %{tmp_dir: dir} do
    [a, b, c] = start_nodes(dir, 3)
    {:ok, first} = put(a, "counter", 0)
    counting = Task.async(fn -> call(a, Tank.Store.ClusterCase, :local_count, ["counter", first, 300], 240_000) end)
    assert cluster(b, :join, [store(), a.node, 60_000]) == :ok
    assert cluster(c, :join, [store(), b.node, 60_000]) == :ok
    assert cluster(a, :transfer_leader, [store(), b.node, 20_000]) == :ok
    # The one that leads.
    assert cluster(b, :reset, [store(), 60_000]) == :ok
    assert Task.await(counting, 240_000) == 300
    assert get(c, "counter", 20_000) == {:ok, 300}
  end

  defp dropped(peer) do
    {:ok, status} = cluster(peer, :status, [store()])
    {status.malformed_frames, status.foreign_frames}
  end

  # The head of a frame of a kind from a member that nobody knows, as the engine writes it (peers/frame.rs).
  defp head(cluster_id, member_id) do
    fn kind ->
      <<2, kind, cluster_id::64, 7::64, member_id::64, 3::64, 1::64, 0::64, 0::64, 0::32, 0::64, 0::32>>
    end
  end

  defp send_frame(from, to, message) do
    ^message = call(from, :erlang, :send, [{:tank_store_inbox_cluster_test, to.node}, message])
    :ok
  end
end
