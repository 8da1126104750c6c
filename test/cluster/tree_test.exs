defmodule Tank.Store.TreeClusterTest do
  # `Tank.Store.Tree` on three members: whatever member is asked.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Entry, Tree, TreePeer}

  @moduletag :tmp_dir

  defp tree(peer, function, args), do: call(peer, Tree, function, [store() | args])

  test "what one member writes, all read: at once, or when they have come to it", %{tmp_dir: dir} do
    [one, two, three] = peers = start_cluster(dir, 3)
    # Members that come make no revision.
    assert {:ok, 1} = tree(one, :put, [[:first], 1])

    for {writer, n} <- Enum.with_index(peers, 1) do
      {:ok, revision} = tree(writer, :put, [[:a, "#{n}"], %{n: n}])

      for reader <- peers do
        assert tree(reader, :get, [[:a, "#{n}"]]) == {:ok, %{n: n}}
        assert {:ok, %Entry{revision: ^revision, version: 1}} = tree(reader, :get_entry, [[:a, "#{n}"]])
        assert {:ok, ^n} = tree(reader, :count, [[:a, {:name_matches, "^[1-3]$"}]])
        assert tree(reader, :await_revision, [revision, [timeout: 30_000]]) == :ok
        assert tree(reader, :get, [[:a, "#{n}"], [favor: :low_latency]]) == {:ok, %{n: n}}
      end
    end

    assert {:error, {:exists, %Entry{value: %{n: 1}}}} = tree(two, :create, [[:a, "1"], 2])
    {:ok, revision} = tree(three, :put_many, [[:a, :*], 0])
    assert tree(one, :get_many, [[:a, :*]]) == {:ok, Map.new(1..3, &{[:a, "#{&1}"], 0}), revision}
    assert {:ok, %Entry{value: %{n: 2}}} = tree(one, :get_entry, [[:a, "2"], [revision: revision - 1]])
    assert {:ok, ^revision} = tree(two, :put_many, [[:none, :*], 0])
    assert {:ok, last} = tree(two, :delete_many, [[:**]])
    assert last == revision + 1
    :ok = cluster(one, :remove_member, [store(), three.node])
    assert {:ok, after_change} = tree(two, :put, [[:last], 1])
    assert after_change == last + 1
    assert {:ok, _revision} = tree(two, :delete, [[]])
    peers = [one, two]
    for peer <- peers, do: assert(tree(peer, :fence, []) == :ok)
    for peer <- peers, do: refute(tree(peer, :exists, [[], [favor: :low_latency]]))
    await_agreement(peers)
  end

  test "transactions of all members add up", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    counters = for n <- 1..3, do: [:counters, "#{n}"]
    for path <- counters, do: {:ok, _revision} = tree(hd(peers), :put, [path, 0])

    committed =
      peers
      |> Task.async_stream(&call(&1, TreePeer, :increment, [store(), counters, 20]), timeout: 120_000)
      |> Enum.map(fn {:ok, committed} -> committed end)

    assert committed == [60, 60, 60]

    for peer <- peers, path <- counters, do: assert(tree(peer, :get, [path]) == {:ok, 60})
    await_agreement(peers)
  end

  test "money is neither made nor lost while leaders die", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    accounts = for n <- 1..6, do: [:accounts, "#{n}"]
    for path <- accounts, do: {:ok, _revision} = tree(hd(peers), :put, [path, 100])
    leader = await_leader(peers)
    survivors = peers -- [leader]
    for peer <- survivors, do: :ok = call(peer, TreePeer, :start_moving, [store(), accounts])
    {:ok, start} = tree(hd(survivors), :put, [[:started], true])
    move_at_least(hd(survivors), start, 20)
    kill_node(leader)
    {:ok, failed_over} = tree(hd(survivors), :put, [[:failed_over], true, [timeout: 30_000]])
    move_at_least(hd(survivors), failed_over, 20)
    sums = for peer <- survivors, do: call(peer, TreePeer, :stop, [])
    assert length(List.flatten(sums)) >= 40
    assert Enum.uniq(List.flatten(sums)) == [600]
    {:ok, left, _revision} = tree(hd(survivors), :get_many, [[:accounts, :*]])
    assert sum(left) == 600
    await_agreement(survivors)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "money is neither made nor lost while twenty leaders die", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    accounts = for n <- 1..6, do: [:accounts, "#{n}"]
    for path <- accounts, do: {:ok, _revision} = tree(hd(peers), :put, [path, 100])
    for peer <- peers, do: :ok = call(peer, TreePeer, :start_moving, [store(), accounts])

    peers =
      for _kill <- 1..20, reduce: peers do
        peers ->
          leader = await_leader(peers)
          kill_node(leader)
          [survivor | _other] = peers -- [leader]
          {:ok, failed_over} = tree(survivor, :put, [[:failed_over], true, [timeout: 30_000]])
          move_at_least(survivor, failed_over, 20)
          back = restart_node(leader)
          :ok = call(back, TreePeer, :start_moving, [store(), accounts])
          [back | peers -- [leader]]
      end

    sums = List.flatten(for peer <- peers, do: call(peer, TreePeer, :stop, []))
    IO.puts("#{length(sums)} transfers of those who lived to the end, 20 leaders killed")
    assert Enum.uniq(sums) == [600]
    for peer <- peers, {:ok, left, _revision} = tree(peer, :get_many, [[:accounts, :*]]), do: assert(sum(left) == 600)
    await_agreement(peers)
  end

  defp sum(accounts), do: accounts |> Map.values() |> Enum.sum()

  # Each transaction makes a revision.
  defp move_at_least(peer, from, count),
    do: assert(tree(peer, :await_revision, [from + count, [timeout: 30_000]]) == :ok)
end
