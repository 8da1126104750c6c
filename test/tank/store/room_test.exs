defmodule Tank.Store.RoomTest do
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Call, Native, Path, Room, Running}

  @moduletag :tmp_dir

  @values [
    numbers: Enum.to_list(1..200),
    large_numbers: for(i <- 1..100, do: i * 0xFFFF_FFFF_FFFF),
    floats: for(i <- 1..100, do: i / 3),
    charlist: String.to_charlist(String.duplicate("abc", 100)),
    tuples: for(i <- 1..60, do: {i, {:ok, nil}}),
    maps: for(i <- 1..40, do: %{name: i, other: :x, third: []}),
    large_map: Map.new(1..300, &{&1, &1}),
    short_binaries: for(i <- 1..60, do: String.duplicate("x", rem(i, 64))),
    long_binaries: for(i <- 1..40, do: String.duplicate("x", 65 + i)),
    structs: for(i <- 1..20, do: %Tank.Pod{name: "pod-#{i}"})
  ]

  @copies 50

  for {kind, value} <- @values do
    test "the library tells how much room a list takes up: #{kind}", %{tmp_dir: dir} do
      value = unquote(Macro.escape(value))
      {_store_id, store, parent} = filled(dir, value)
      {:room, heap, binaries} = room_once_decoded(store, parent, value)
      assert_in_delta heap / :erts_debug.flat_size(List.duplicate(value, @copies)), 1.0, 0.25
      assert_in_delta binaries, @copies * long_binary_words(value), @copies
    end
  end

  test "a list goes right to the heap, and the caller's flags are as before", %{tmp_dir: dir} do
    {store_id, store, parent} = filled(dir, @values[:structs])
    {:room, _heap, _binaries} = room_once_decoded(store, parent, @values[:structs])

    for ballast <- [[], Enum.to_list(1..10_000)] do
      before = flags()
      {list, collections} = collections(fn -> Call.values(store_id, parent) end)
      assert list == {:ok, List.duplicate(@values[:structs], @copies)}
      assert [_one | _more] = collections
      # A few words are there always; the list would be 20,000.
      assert Enum.all?(collections, &(&1[:mbuf_size] < 1_000)), inspect(collections)
      assert flags() == before
      # Alive until here.
      assert is_list(ballast)
    end
  end

  test "the flags are set back when the function raises" do
    before = flags()
    assert_raise RuntimeError, fn -> Room.with(100_000, 0, fn -> raise "no" end) end
    assert flags() == before
  end

  test "a caller with a bounded heap is left alone" do
    task =
      Task.async(fn ->
        Process.flag(:max_heap_size, 100_000)
        Room.with(1_000_000, 0, fn -> Process.info(self(), :min_heap_size) end)
      end)

    assert {:min_heap_size, words} = Task.await(task)
    assert words < 100_000
  end

  # Decoding a large map on a thread that is not the BEAM's own ends the VM.
  test "values with large maps are read again and again", %{tmp_dir: dir} do
    maps = [Map.new(1..300, &{&1, &1}), %{nested: [Map.new(1..5_000, &{"key #{&1}", &1})]}]

    for {value, i} <- Enum.with_index(maps ++ [{fn -> :ok end, Map.new(1..300, &{&1, &1})}]) do
      {store_id, _store, parent} = filled(Elixir.Path.join(dir, "#{i}"), value)

      for _pass <- 1..3 do
        assert Call.values(store_id, parent) == {:ok, List.duplicate(value, @copies)}
        assert Call.get(store_id, Path.child_key(parent, "1"), &{:ok, &1}, 5_000) == {:ok, value}
        Process.sleep(20)
      end
    end
  end

  defp filled(dir, value) do
    store_id = start_store(dir)
    {:ok, parent} = Path.to_key([:list])

    for i <- 1..@copies do
      {:ok, _revision} = Call.write(store_id, :put, Path.child_key(parent, "#{i}"), value, nil, 5_000)
    end

    {:ok, store} = Running.fetch(store_id)
    {store_id, store, parent}
  end

  # A value's room is known once it is decoded for all readers, a moment after its first read. Before, its binaries are
  # taken to be as long as its encoding, which is more than they are by far.
  defp room_once_decoded(store, parent, value) do
    [_one | _others] = Native.values(store, parent, true)
    exact = @copies * long_binary_words(value)

    eventually("all values to be decoded, their binaries #{exact} words", fn ->
      case Native.values(store, parent, false) do
        {:room, _heap, binaries} = room when abs(binaries - exact) <= @copies -> room
        other -> {:not_yet, other}
      end
    end)
  end

  defp long_binary_words(value) do
    for binary when is_binary(binary) and byte_size(binary) > 64 <- List.wrap(value), reduce: 0 do
      words -> words + div(byte_size(binary) + 7, 8)
    end
  end

  # What `fun` gives in this process, and what each garbage collection meanwhile found.
  defp collections(fun) do
    caller = self()
    tracer = spawn_link(fn -> trace(caller, []) end)
    :erlang.trace(caller, true, [:garbage_collection, {:tracer, tracer}])
    result = fun.()
    :erlang.trace(caller, false, [:garbage_collection])
    delivered = :erlang.trace_delivered(caller)
    receive do: ({:trace_delivered, ^caller, ^delivered} -> send(tracer, :done))
    receive do: ({:collections, collections} -> {result, collections})
  end

  defp trace(caller, collections) do
    receive do
      {:trace, ^caller, kind, info} when kind in [:gc_minor_start, :gc_major_start] ->
        trace(caller, [info | collections])

      {:trace, ^caller, _end, _info} ->
        trace(caller, collections)

      :done ->
        send(caller, {:collections, collections})
    end
  end

  defp flags, do: {Process.info(self(), :min_heap_size), Process.info(self(), :min_bin_vheap_size)}
end
