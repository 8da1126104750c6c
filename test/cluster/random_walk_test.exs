defmodule Tank.Store.Cluster.RandomWalkTest do
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.ClusterModel, as: Model

  @moduletag :tmp_dir

  # What succeeds has plenty of time; what cannot is to fail in time.
  @enough_ms 15_000
  @short_ms 1_200
  # How much later than its timeout a call may end on a machine that has other things to do.
  @late_ms 2_000

  # TANK_SEED repeats a walk.
  test "start, restart, stop, join, reset, remove and force in any order: thirty steps", %{tmp_dir: dir} do
    walk(dir, 30)
  end

  @tag :long
  @tag timeout: 3_600_000
  test "start, restart, stop, join, reset, remove and force in any order: three hundred steps", %{tmp_dir: dir} do
    walk(dir, 300)
  end

  defp walk(dir, steps) do
    seed = String.to_integer(System.get_env("TANK_SEED", "#{:rand.uniform(1_000_000)}"))
    IO.puts("random walk of #{steps} steps: TANK_SEED=#{seed}")
    :rand.seed(:exsss, seed)
    peers = dir |> start_nodes(3) |> Enum.with_index() |> Map.new(fn {peer, node} -> {node, peer} end)
    state = %{peers: peers, model: Model.new(Map.keys(peers)), walked: []}

    state =
      Enum.reduce(1..steps, state, fn _number, state -> state |> perform(random_operation(state.model)) |> look() end)

    state = gather(state)
    agree(state)
    # A walk on which nothing came about shows nothing.
    came_about = for {operation, result, _took} <- state.walked, fits?(:ok, result), do: elem(operation, 0)
    counts = Enum.frequencies(came_about)
    IO.puts("came about: #{inspect(counts)}")
    assert length(came_about) * 2 > steps and is_map_key(counts, :join)
    # Of few steps chance may make less.
    assert steps < 300 or counts[:join] * 10 > steps
  end

  # Rather a store that runs: of the others there is little to see.
  defp random_operation(model) do
    [node, other | _] = Enum.shuffle([0, 1, 2])
    {node, other} = if Model.up?(model, node) or :rand.uniform(3) == 1, do: {node, other}, else: {other, node}

    case :rand.uniform(100) do
      dice when dice <= 35 -> {:join, node, other}
      dice when dice <= 60 -> {:start, Enum.find([0, 1, 2], node, &(not Model.up?(model, &1)))}
      dice when dice <= 67 -> {:restart, node}
      dice when dice <= 74 -> {:stop, node}
      dice when dice <= 82 -> {:reset, node}
      dice when dice <= 93 -> {:remove, node, other}
      dice when dice <= 97 -> {:force, node}
      _dice -> {:put, node}
    end
  end

  # -- One step

  defp perform(state, operation) do
    {expected, model} = Model.step(state.model, operation)
    if expected == :no_answer, do: settle(state, operation)
    timeout = if expected == :no_answer, do: @short_ms, else: @enough_ms
    began = System.monotonic_time(:millisecond)
    {result, peers} = run(state.peers, operation, timeout)
    took = System.monotonic_time(:millisecond) - began
    state = %{state | peers: peers, walked: [{operation, result, took} | state.walked]}

    told = fn ->
      "expected #{inspect(expected)}; the last steps were #{inspect(Enum.take(state.walked, 12), pretty: true)}"
    end

    assert fits?(expected, result), told.()
    # Booting a VM is no call of ours.
    assert elem(operation, 0) == :restart or took < timeout + @late_ms, told.()
    if expected == :no_answer or (expected == :either and result != :ok), do: state, else: %{state | model: model}
  end

  defp run(peers, {:restart, node}, _timeout) do
    kill_node(peers[node])
    {{:ok, store()}, Map.put(peers, node, restart_node(peers[node]))}
  end

  defp run(peers, operation, timeout), do: {run_on(peers, operation, timeout), peers}

  defp run_on(peers, {:start, node}, timeout), do: cluster(peers[node], :start, [peers[node].dir, store(), timeout])
  defp run_on(peers, {:stop, node}, _timeout), do: cluster(peers[node], :stop, [store()])
  defp run_on(peers, {:reset, node}, timeout), do: cluster(peers[node], :reset, [store(), timeout])
  defp run_on(peers, {:force, node}, _), do: cluster(peers[node], :force_new_cluster, [store(), [timeout: 4_000]])
  defp run_on(peers, {:put, node}, timeout), do: put(peers[node], "k", node, timeout)

  defp run_on(peers, {:join, node, to}, timeout),
    do: cluster(peers[node], :join, [store(), peers[to].node, timeout])

  defp run_on(peers, {:remove, by, node}, timeout),
    do: cluster(peers[by], :remove_member, [store(), peers[node].node, timeout])

  defp fits?(:ok, result), do: result == :ok or match?({:ok, _}, result)

  defp fits?(:no_answer, {:error, {:tank, name, %{}}}) when name in [:members_in_another_cluster, :members_missing],
    do: true

  defp fits?(:no_answer, result), do: result in [{:error, :timeout}, {:error, :no_quorum}]
  defp fits?(:either, result), do: fits?(:ok, result) or fits?(:no_answer, result)
  defp fits?({:error, :noproc}, result), do: result == {:error, :noproc}
  defp fits?({:error, name}, result), do: match?({:error, {:tank, ^name, %{store_id: _}}}, result)

  # A change that the rest could not agree to is refused once the leader has noticed who is gone; before that, it would
  # be in the log, and come about when they are back.
  defp settle(%{model: model} = state, operation) do
    node = if elem(operation, 0) in [:join, :reset, :remove], do: elem(operation, 1)

    if node && Model.answers?(model, node) do
      running = for {node, _life} <- Model.running(model, node), do: node

      eventually("the leader to notice who is there", fn ->
        Enum.any?(running, fn node ->
          {:ok, status} = cluster(state.peers[node], :status, [store()])
          there = for %{reachable: true, node: node} <- status.members, do: node
          Enum.sort(there) == Enum.sort(for node <- running, do: state.peers[node].node)
        end)
      end)
    end
  end

  # -- What all see

  defp look(%{model: model, peers: peers} = state) do
    for {node, peer} <- peers do
      assert cluster(peer, :is_store_running, [store()]) == Model.up?(model, node)

      cond do
        not Model.up?(model, node) ->
          assert cluster(peer, :members, [store()]) == {:error, :noproc}

        Model.answers?(model, node) ->
          expected = {:ok, for(other <- Model.members(model, node), do: peers[other].node) |> Enum.sort()}
          seen = cluster(peer, :nodes, [store(), @enough_ms])
          assert seen == expected, "node #{node} sees #{inspect(seen)}, the model #{inspect(model)}"

        true ->
          assert {:ok, [_one | _more]} = cluster(peer, :locally_known_nodes, [store()])
      end
    end

    state
  end

  # -- The end: all in one cluster

  defp gather(state) do
    state = Enum.reduce([0, 1, 2], state, &perform(&2, {:start, &1}))

    state =
      for node <- [0, 1, 2], not Model.answers?(state.model, node), reduce: state do
        state -> if Model.answers?(state.model, node), do: state, else: perform(state, {:force, node})
      end

    for node <- [1, 2], reduce: state do
      state ->
        if length(Model.members(state.model, node)) == 3 and Model.answers?(state.model, node),
          do: state,
          else: perform(state, {:join, node, 0})
    end
  end

  defp agree(%{peers: peers} = state) do
    {:ok, _revision} = put(peers[0], "end", 1)
    look(state)
    peers |> Map.values() |> await_agreement()
    assert state.model |> Model.members(0) |> Enum.sort() == [0, 1, 2]
  end
end
