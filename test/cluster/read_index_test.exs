defmodule Tank.Store.Cluster.ReadIndexTest do
  # A follower's readers have the leader asked, past the engine. Reads while leaders are killed and cut off are in linearizable_test.exs.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ReadIndexProbe

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    {:ok, _revision} = put(leader, "k", 1)
    await_agreement(peers)
    {:ok, peers: peers, leader: leader, follower: Enum.find(peers, &(&1 != leader))}
  end

  test "the leader answers followers, and has nobody to ask", %{peers: peers, leader: leader} do
    {:ok, %{applied_index: applied}} = cluster(leader, :status, [store()])
    assert ask(leader) == {:unknown, []}

    for follower <- peers -- [leader] do
      assert eventually("an answer", fn -> with {:unknown, []} <- ask(follower), do: {:not_yet, :unknown} end) ==
               {{:ok, applied}, []}
    end
  end

  test "a view that lacks what the leader has is waited for", %{peers: peers} do
    for value <- 2..6 do
      leader = await_leader(peers)
      follower = Enum.find(peers, &(&1 != leader))
      # Nothing comes in there but the answer, which goes to the reader.
      inbox(follower, :suspend)
      {:ok, _revision} = put(leader, "k", value)
      reading = Task.async(fn -> get(follower, "k", 20_000) end)
      assert Task.yield(reading, 100) == nil, "it cannot know what it reads"
      inbox(follower, :resume)
      assert Task.await(reading, 30_000) == {:ok, value}
    end
  end

  test "a view that does not come to it is an error in time", %{leader: leader, follower: follower} do
    inbox(follower, :suspend)
    {:ok, _revision} = put(leader, "k", 2)
    {microseconds, answer} = :timer.tc(fn -> get(follower, "k", 500) end)
    assert answer in [{:error, :timeout}, {:error, :no_quorum}]
    assert microseconds < 2_000_000
    inbox(follower, :resume)
    assert get(follower, "k", 20_000) == {:ok, 2}
  end

  test "no answer at once leaves it to the engine, and nothing in the mailbox", %{leader: leader, follower: follower} do
    inbox(leader, :suspend)
    # The leader's inbox answers when nobody waits any more.
    assert ask(follower, {ReadIndexProbe, :catch_up, [leader.node]}) == {:unknown, []}
    inbox(leader, :suspend)
    reading = Task.async(fn -> get(follower, "k", 20_000) end)
    assert Task.yield(reading, 100) == nil, "nobody can confirm it"
    inbox(leader, :resume)
    assert Task.await(reading, 30_000) == {:ok, 1}
  end

  test "readers share questions", %{leader: leader, follower: follower} do
    inbox(leader, :suspend)
    {answers, questions, ms} = call(follower, ReadIndexProbe, :ask_together, [100, leader.node])
    # Three at a time, and three more each time that those were waited for in vain.
    assert questions in 1..(3 * (1 + div(ms, 50)))
    assert Enum.all?(answers, &(match?({:ok, _index}, &1) or &1 == :unknown))
    inbox(leader, :resume)
    assert eventually("an answer", fn -> with {:unknown, []} <- ask(follower), do: {:not_yet, :unknown} end)
    {answers, _questions, _ms} = call(follower, ReadIndexProbe, :ask_together, [100, leader.node])
    assert [{:ok, _index}] = Enum.uniq(answers)
  end

  test "readers that are killed while they ask leave nothing behind", %{leader: leader, follower: follower} do
    inbox(leader, :suspend)
    assert call(follower, ReadIndexProbe, :kill_askers, [50]) > 20
    inbox(leader, :resume)
    assert eventually("an answer", fn -> with {:unknown, []} <- ask(follower), do: {:not_yet, :unknown} end)

    eventually("no question to be left", fn ->
      state = call(follower, ReadIndexProbe, :state, [])
      (state.waiting == [] and state.asked == %{}) or {:not_yet, state}
    end)
  end

  test "one whose process is gone is answered all the same", %{follower: follower} do
    pid = call(follower, :erlang, :whereis, [:tank_store_read_index_cluster_test])
    reading = Task.async(fn -> for _read <- 1..200, do: get(follower, "k", 20_000) end)
    call(follower, Process, :exit, [pid, :kill])
    assert Enum.uniq(Task.await(reading, 60_000)) == [{:ok, 1}]
    again = call(follower, :erlang, :whereis, [:tank_store_read_index_cluster_test])
    assert again not in [pid, :undefined]
    assert elem(cluster(follower, :status, [store()]), 0) == :ok
  end

  test "messages that are none of its own do not disturb it", %{follower: follower} do
    name = :tank_store_read_index_cluster_test
    pid = call(follower, :erlang, :whereis, [name])
    for message <- [:any, {make_ref(), 7}, {:late, make_ref()}], do: call(follower, Kernel, :send, [name, message])
    assert eventually("an answer", fn -> with {:unknown, []} <- ask(follower), do: {:not_yet, :unknown} end)
    assert call(follower, :erlang, :whereis, [name]) == pid
  end

  test "questions for others are answered with nil, and what is none not at all", %{leader: leader, follower: follower} do
    {:ok, %{cluster_id: cluster_id, member_id: member_id}} = cluster(leader, :status, [store()])
    question = fn cluster, member -> call(follower, ReadIndexProbe, :question, [leader.node, cluster, member]) end
    assert is_integer(question.(cluster_id, member_id))
    assert question.(cluster_id + 1, member_id) == nil
    assert question.(cluster_id, member_id + 1) == nil
    pid = call(leader, :erlang, :whereis, [:tank_store_inbox_cluster_test])
    for id <- [-1, 0x1_0000_0000_0000_0000, :id], do: assert(question.(cluster_id, id) == :none)
    assert call(leader, :erlang, :whereis, [:tank_store_inbox_cluster_test]) == pid
  end

  defp ask(peer), do: call(peer, ReadIndexProbe, :ask, [])
  defp ask(peer, meanwhile), do: call(peer, ReadIndexProbe, :ask, [meanwhile])
  defp inbox(peer, function), do: call(peer, ReadIndexProbe, :inbox, [peer.node, function])
end
