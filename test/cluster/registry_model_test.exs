defmodule Tank.Store.Cluster.RegistryModelTest do
  # Five nodes, and a model of what runs on them: stores start, stop and crash, nodes are killed and start anew, are cut
  # off from each other and meet again, registries and scopes are killed, all at random. When all is quiet, every
  # registry lists exactly the stores that run, and no subscriber has heard anything that was not a change.
  use Tank.Store.RegistryCase, async: false

  alias Tank.Store.{Cluster, Server}

  @nodes 5
  @ids [:red, :green, :blue]

  # After the last action all registries agree within a second; the fast tests may run on a machine that is busy.
  for {seconds, quiet_ms, tags} <- [{3, 10_000, []}, {180, 1_000, [:long]}] do
    for tag <- tags, do: @tag(tag)
    @tag timeout: 1_200_000

    test "#{seconds} s of stores, nodes and connections that come and go", %{tmp_dir: dir} do
      # Printed at the end; timing is as it is, so a seed repeats the actions, not the run.
      seed = :erlang.phash2({node(), System.unique_integer(), System.os_time()})
      :rand.seed(:exsss, seed)
      run(dir, unquote(seconds) * 1_000, unquote(quiet_ms), seed)
    end
  end

  defp run(dir, duration_ms, quiet_ms, seed) do
    peers = dir |> start_connected(@nodes) |> Enum.with_index() |> Map.new(fn {peer, number} -> {number, peer} end)
    for {_number, peer} <- peers, do: start_listener(peer)

    model = %{
      peers: peers,
      running: MapSet.new(),
      apart: MapSet.new(),
      dir: dir,
      boots: @nodes,
      quiet_ms: quiet_ms,
      crashed: [],
      done: []
    }

    until = System.monotonic_time(:millisecond) + duration_ms
    {rounds, slowest, done} = rounds(model, until, 0, 0)
    counts = done |> Enum.frequencies() |> Enum.sort()
    IO.puts("#{rounds} quiet moments with seed #{seed}, agreed after #{slowest} ms at the latest; #{inspect(counts)}")
  end

  defp rounds(model, until, round, slowest) do
    model = Enum.reduce(1..Enum.random(3..10), model, fn _time, model -> act(random_action(), model) end)
    model = model |> mend() |> boot_missing()
    slowest = max(slowest, check(model))

    if System.monotonic_time(:millisecond) > until,
      do: {round + 1, slowest, model.done},
      else: rounds(model, until, round + 1, slowest)
  end

  defp random_action do
    Enum.random(
      List.duplicate(:start, 6) ++
        List.duplicate(:stop, 4) ++ [:crash, :crash, :split, :heal, :kill_registry, :kill_scope, :kill_node, :boot]
    )
  end

  defp act(action, model) do
    case perform(action, model) do
      nil -> model
      model -> %{model | done: [action | model.done]}
    end
  end

  defp perform(:start, model) do
    with {number, id} <-
           pick(for number <- numbers(model), id <- @ids, not running?(model, number, id), do: {number, id}) do
      start_store_on(model.peers[number], id)
      update_in(model.running, &MapSet.put(&1, {number, id}))
    end
  end

  defp perform(:stop, model) do
    with {number, id} <- pick(model.running) do
      :ok = call(model.peers[number], Cluster, :stop, [id])
      update_in(model.running, &MapSet.delete(&1, {number, id}))
    end
  end

  # It is opened anew by its supervisor, which gives up after more than three times in ten seconds.
  defp perform(:crash, model) do
    now = System.monotonic_time(:millisecond)
    crashed = for {store, at} <- model.crashed, at > now - 15_000, do: {store, at}

    with {number, id} = store <- pick(Enum.to_list(model.running) -- Enum.map(crashed, &elem(&1, 0))) do
      peer = model.peers[number]
      old = call(peer, Server, :whereis, [id])
      call(peer, Process, :exit, [old, :kill])

      eventually(
        "#{id} to be opened anew",
        fn ->
          match?(
            [{_id, pid, _dir}] when pid != old,
            for({^id, _, _} = one <- call(peer, Server, :running, []), do: one)
          )
        end,
        30_000
      )

      %{model | crashed: [{store, now} | crashed]}
    end
  end

  defp perform(:kill_node, model) do
    with number when number != nil <- if(map_size(model.peers) > 2, do: pick(numbers(model))) do
      kill_node(model.peers[number])
      running = model.running |> Enum.reject(fn {at, _id} -> at == number end) |> MapSet.new()
      apart = model.apart |> Enum.reject(fn {one, other} -> number in [one, other] end) |> MapSet.new()
      %{model | peers: Map.delete(model.peers, number), running: running, apart: apart}
    end
  end

  defp perform(:boot, model) do
    with number when number != nil <- pick(Enum.to_list(0..(@nodes - 1)) -- numbers(model)) do
      [peer] = start_nodes(Path.join(model.dir, "boot#{model.boots}"), 1, store: false)
      # Some stores run before the node meets the others.
      start_store_on(peer, hd(@ids))
      for {_number, other} <- model.peers, do: connect(peer, other)
      start_listener(peer)
      running = MapSet.put(model.running, {number, hd(@ids)})
      %{model | peers: Map.put(model.peers, number, peer), running: running, boots: model.boots + 1}
    end
  end

  defp perform(:split, model) do
    pairs = for one <- numbers(model), other <- numbers(model), one < other, do: {one, other}

    with {one, other} <- pick(pairs -- Enum.to_list(model.apart)) do
      split(model.peers[one], model.peers[other])
      update_in(model.apart, &MapSet.put(&1, {one, other}))
    end
  end

  defp perform(:heal, model) do
    with {one, other} <- pick(model.apart) do
      heal(model.peers[one], model.peers[other])
      update_in(model.apart, &MapSet.delete(&1, {one, other}))
    end
  end

  defp perform(:kill_registry, model), do: kill_at_random(model, Stores)
  defp perform(:kill_scope, model), do: kill_at_random(model, Tank.Store.Registry.Scope)

  defp kill_at_random(model, name) do
    peer = model.peers[pick(numbers(model))]
    # It may be just being started anew.
    eventually("#{inspect(name)} to run", fn -> whereis(peer, name) end)
    kill_on(peer, name)
    model
  end

  defp mend(model) do
    if MapSet.size(model.apart) > 0, do: mend(act(:heal, model)), else: model
  end

  defp boot_missing(model) do
    if map_size(model.peers) < @nodes, do: boot_missing(act(:boot, model)), else: model
  end

  defp check(model) do
    peers = Map.values(model.peers)
    took = await_listed(peers, for({number, id} <- model.running, do: {id, model.peers[number]}))
    assert took <= model.quiet_ms, "it took #{took} ms"

    # A store that crashed is registered again, perhaps between the two questions.
    for peer <- peers do
      eventually(
        "#{peer.node} to list what it tells",
        fn ->
          {:ok, rows} = call(peer, Stores, :list_stores, [])
          told = assert_consistent(heard_rows(peer))
          told == rows or {:not_yet, {told, rows}}
        end,
        model.quiet_ms
      )
    end

    took
  end

  defp numbers(model), do: Map.keys(model.peers)
  defp running?(model, number, id), do: MapSet.member?(model.running, {number, id})
  defp pick(from), do: if(Enum.empty?(from), do: nil, else: Enum.random(from))
end
