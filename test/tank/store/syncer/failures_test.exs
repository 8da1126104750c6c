defmodule Tank.Store.Syncer.FailuresTest do
  # A syncer whose lists and watches fail where a test says: what its status is then, and that its consumer misses
  # nothing.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Backend, KVPair, Mirror, ScriptedSource}

  @moduletag :tmp_dir
  @first_sync [:in_sync, :resync_in_progress, :wait_for_datastore]

  setup %{tmp_dir: dir} do
    {:ok, client} = dir |> start_store() |> Backend.new([:policy])
    ScriptedSource.start()
    %{client: client}
  end

  test "three types, all empty: resync with the first list, in sync with the last", %{client: client} do
    ScriptedSource.fail_lists([["a"], ["b"], ["c"]])
    mirror = start_mirror(client, types: [[root: ["a"]], [root: ["b"]], [root: ["c"]]])
    await_tries(6)
    assert statuses(mirror) == [:wait_for_datastore]
    ScriptedSource.fail_lists([["b"], ["c"]])
    eventually("the first list", fn -> length(statuses(mirror)) > 1 end)
    assert statuses(mirror) == [:resync_in_progress, :wait_for_datastore]
    ScriptedSource.fail_lists([["c"]])
    await_tries(6)
    assert statuses(mirror) == [:resync_in_progress, :wait_for_datastore]
    ScriptedSource.fail_lists([])
    eventually("in sync", fn -> statuses(mirror) == @first_sync end)
  end

  test "a type that cannot be listed holds up no other", %{client: client} do
    ScriptedSource.fail_lists([["c"]])
    mirror = start_mirror(client, types: [[root: ["a"]], [root: ["b"]], [root: ["c"]]])
    one = create!(client, ["a", "1"], 1)
    await_entries(mirror, [one])
    two = create!(client, ["b", "1"], 2)
    three = create!(client, ["c", "1"], 3)
    await_entries(mirror, [one, two])
    {:ok, one} = Backend.update(client, %{one | value: 4})
    await_entries(mirror, [one, two])
    assert statuses(mirror) == [:resync_in_progress, :wait_for_datastore]
    ScriptedSource.fail_lists([])
    await_entries(mirror, [one, two, three])
    eventually("in sync", fn -> statuses(mirror) == @first_sync end)
  end

  test "a watch that breaks off, and then fails to start five times, is no loss of sync", %{client: client} do
    mirror = start_mirror(client, [])
    eventually("in sync", fn -> statuses(mirror) == @first_sync end)
    ScriptedSource.fail_watches(5)
    ScriptedSource.say({:ended, :injected})
    # The watch ends in the place of telling of this.
    one = create!(client, ["1"], 1)
    await_entries(mirror, [one])
    eventually("a watch that starts", fn -> ScriptedSource.counts().watch == 7 end)
    two = create!(client, ["2"], 2)
    await_entries(mirror, [one, two])
    assert statuses(mirror) == @first_sync
    # Each failure was followed by a list, which makes up for what no watch told.
    assert ScriptedSource.counts().list == 7
  end

  test "a list that fails is one: back to resync, and in sync with the next", %{client: client} do
    mirror = start_mirror(client, [])
    eventually("in sync", fn -> statuses(mirror) == @first_sync end)
    ScriptedSource.fail_lists([[]])
    ScriptedSource.say({:ended, :injected})
    one = create!(client, ["1"], 1)
    eventually("the loss", fn -> hd(statuses(mirror)) == :resync_in_progress end)
    assert Mirror.state(mirror).entries == %{}
    ScriptedSource.fail_lists([])
    await_entries(mirror, [one])
    eventually("in sync again", fn -> statuses(mirror) == [:in_sync, :resync_in_progress | @first_sync] end)
  end

  test "a quorum that is lost is one too, until a list says that it is back", %{client: client} do
    mirror = start_mirror(client, [])
    eventually("in sync", fn -> statuses(mirror) == @first_sync end)
    ScriptedSource.fail_lists([[]])
    ScriptedSource.say(:lost)
    one = create!(client, ["1"], 1)
    eventually("the loss", fn -> hd(statuses(mirror)) == :resync_in_progress end)
    await_tries(3)
    assert statuses(mirror) == [:resync_in_progress | @first_sync]
    ScriptedSource.fail_lists([])
    await_entries(mirror, [one])
    eventually("in sync again", fn -> statuses(mirror) == [:in_sync, :resync_in_progress | @first_sync] end)
  end

  test "a syncer that comes later, while all is written, has what the older one has", %{client: client} do
    older = start_mirror(client, [])
    for n <- 1..500, do: create!(client, ["#{n}"], n)
    writers = for n <- 1..4, do: Task.async(fn -> write_on(client, n, 0) end)
    later = for _n <- 1..5, do: start_mirror(client, [])
    eventually("the first syncs, under writers", fn -> Enum.all?(later, &(hd(statuses(&1)) == :in_sync)) end)
    for task <- writers, do: send(task.pid, :stop)
    written = writers |> Task.await_many() |> Enum.sum()
    {:ok, pairs, _revision} = Backend.list(client, [])
    assert length(pairs) > 400 and written > 0
    for mirror <- [older | later], do: await_entries(mirror, pairs)
    for mirror <- later, do: assert(statuses(mirror) == @first_sync)
  end

  defp write_on(client, seed, count) do
    receive do
      :stop -> count
    after
      0 ->
        key = ["#{:rand.uniform(600)}"]

        if rem(count, 5) == 0,
          do: Backend.delete(client, key),
          else: {:ok, _kv} = Backend.apply(client, %KVPair{key: key, value: {seed, count}})

        write_on(client, seed, count + 1)
    end
  end

  defp start_mirror(client, opts) do
    {mirror, _syncer} = Mirror.start_link(client, opts ++ [source: ScriptedSource, retry_ms: 5])
    eventually("a first status", fn -> statuses(mirror) != [] end)
    mirror
  end

  defp statuses(mirror), do: Mirror.state(mirror).statuses

  defp await_entries(mirror, pairs) do
    expected = Map.new(pairs, &{&1.key, {&1.value, &1.revision}})

    eventually("the mirror to be the store", fn ->
      entries = Mirror.state(mirror).entries
      entries == expected || {:not_yet, {map_size(entries), Map.drop(expected, Map.keys(entries))}}
    end)
  end

  # So many more lists are tried.
  defp await_tries(more) do
    before = Map.get(ScriptedSource.counts(), :list, 0)
    eventually("#{more} more lists", fn -> Map.get(ScriptedSource.counts(), :list, 0) >= before + more end)
  end

  defp create!(client, key, value) do
    {:ok, kv} = Backend.create(client, %KVPair{key: key, value: value})
    kv
  end
end
