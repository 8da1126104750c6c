defmodule Tank.Store.Cluster.DegradeTest do
  # The disk of one member of three fails: the others serve within a second, and it comes back by itself.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Native, Server}

  @moduletag :tmp_dir

  @served_ms_max 1_000

  for which <- [:leader, :follower], {what, point} <- [{"is full", "log_full"}, {"fails", "log_error"}] do
    @point point
    test "the disk of the #{which} #{what}: the others serve within a second, and it heals", %{tmp_dir: dir} do
      peers = start_cluster(dir, 3)
      leader = await_leader(peers)
      failing = if unquote(which) == :leader, do: leader, else: hd(peers -- [leader])
      others = [other | _] = peers -- [failing]
      {:ok, _} = put(failing, "before", 1)
      # A busy machine takes its time for each of the steps: two votes, the entry of the new leader, and the write.
      usual_ms = for(n <- 1..5, do: timed_ms(fn -> {:ok, _} = put(other, "usual", n) end)) |> Enum.max()

      :ok = call(failing, Native, :arm_fault, [@point, "return"])
      failed_at = System.monotonic_time(:millisecond)
      # Whoever writes makes its log be written.
      _unknown = put(other, "trigger", 1, 300)

      eventually("a write at another member", fn -> match?({:ok, _}, put(other, "during", 1, 300)) end)
      took_ms = System.monotonic_time(:millisecond) - failed_at

      IO.puts(
        "\ndisk of the #{unquote(which)} #{unquote(what)}: another member serves after #{took_ms} ms (a write takes #{usual_ms} ms)"
      )

      assert took_ms < @served_ms_max + 4 * usual_ms
      for peer <- others, do: assert({:ok, 1} = get(peer, "during"))

      failure =
        eventually("the failing member to say so", fn ->
          with {:ok, status} <- cluster(failing, :status, [store()]), do: status.failure
        end)

      if @point == "log_full",
        do: assert(failure == :disk_full),
        else: assert({:storage, "Input/output error" <> _more} = failure)

      # It reads from memory, and answers no more than that.
      assert list(failing)["before"] == 1
      assert put(failing, "refused", 1) == {:error, failure}
      assert get(failing, "before") == {:error, failure}

      :ok = call(failing, Native, :arm_fault, [@point, "off"])
      eventually("it to take writes again", fn -> match?({:ok, _}, put(failing, "after", 1, 1_000)) end)
      await_agreement(peers)
      assert list(failing)["during"] == 1
    end
  end

  defp timed_ms(fun) do
    {microseconds, _result} = :timer.tc(fun)
    div(microseconds, 1_000)
  end

  test "reads never show less than before, though the engine that is open again knows less", %{tmp_dir: dir} do
    peers = start_cluster(dir, 3)
    leader = await_leader(peers)
    [failing, other] = peers -- [leader]
    # It will have the state of now, and not know what was committed since.
    [db, former_db] = [Path.join(failing.dir, "db"), Path.join(dir, "former_db")]
    :ok = cluster(failing, :stop, [store()])
    File.cp_r!(db, former_db)
    {:ok, _store} = cluster(failing, :start, [failing.dir, store(), 30_000])
    :ok = call(failing, Native, :arm_fault, ["log_committed", "return"])
    for n <- 1..20, do: {:ok, _} = put(failing, "k#{n}", n)
    seen = list(failing)
    assert map_size(seen) == 20
    :ok = call(failing, Native, :arm_fault, ["log_full", "return"])
    _unknown = put(leader, "trigger", 1, 300)
    failure = fn -> with {:ok, status} <- cluster(failing, :status, [store()]), do: status.failure end
    eventually("it to be degraded", fn -> failure.() == :disk_full end)
    for peer <- [leader, other], do: kill_node(peer)
    server = call(failing, Server, :whereis, [store()])
    :ok = call(failing, :sys, :suspend, [server])
    File.rm_rf!(db)
    File.cp_r!(former_db, db)
    :ok = call(failing, :sys, :resume, [server])
    :ok = call(failing, Native, :arm_fault, ["log_committed", "off"])
    :ok = call(failing, Native, :arm_fault, ["log_full", "off"])
    until = System.monotonic_time(:millisecond) + 4_000

    looks =
      fn -> Map.equal?(Map.take(list(failing), Map.keys(seen)), seen) end
      |> Stream.repeatedly()
      |> Enum.take_while(fn complete? -> complete? and System.monotonic_time(:millisecond) < until end)

    assert System.monotonic_time(:millisecond) >= until, "after #{length(looks)} looks, reads show less than before"

    eventually("the alarm", fn ->
      {:ok, %{alarms: alarms}} = cluster(failing, :status, [store()])
      match?(%{behind: %{message: "its disk works again" <> _more}}, Map.new(alarms)) || {:not_yet, alarms}
    end)

    assert Map.take(list(failing), Map.keys(seen)) == seen
    # With a majority it catches up, and serves.
    peers = [failing | Enum.map([leader, other], &restart_node/1)]
    eventually("it to take writes again", fn -> match?({:ok, _}, put(failing, "after", 1, 1_000)) end)
    await_agreement(peers)
    assert Map.take(list(failing), Map.keys(seen)) == seen
    assert {:ok, %{failure: nil, alarms: []}} = cluster(failing, :status, [store()])
  end
end
