Code.require_file("property.exs", __DIR__)

defmodule Tank.Store.TreeModelTest do
  # Random commands and transactions on a tree and on a Map, all queries compared after each run; with restarts in
  # between.
  use Tank.Store.TankCase, async: false

  import :proper_types, only: [binary: 0, frequency: 1, integer: 2, list: 1, oneof: 1]
  import Tank.Store.Property

  alias Tank.Store.{Cluster, Path, Tree}

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  # Few and similar, so that commands meet: kinds, prefixes, and the bytes that the encoding of paths escapes.
  @components [:a, "a", "", "a\0", "ab", :b]

  test "any path comes back from its string" do
    component = oneof([binary(), oneof(@components), oneof([:"", :*, :"a/b%", :日本語, nil, Tank.Store])])

    check(list(component), 1_000, [max_size: 42], fn path ->
      Path.from_string(Path.to_string(path)) == {:ok, path}
    end)
  end

  test "the tree is a map: 100 runs", %{tmp_dir: dir} do
    store = start_store(dir)
    check(commands(1), 100, [max_size: 40], &agree?(store, fn -> restart(store, dir, []) end, &1))
  end

  @tag :long
  @tag timeout: :infinity
  test "the tree is a map: 1,000 runs, with many restarts and a log that is purged", %{tmp_dir: dir} do
    opts = [snapshot_interval_entries: 20, log_retention_entries: 2, purge_batch: 1]
    store = start_store(dir, opts)
    check(commands(5), 1_000, [max_size: 60], &agree?(store, fn -> restart(store, dir, opts) end, &1))
  end

  # A restart takes as long as some hundred commands.
  defp commands(weight) do
    list(
      frequency([
        {80, write()},
        {20, {:transaction, list(write()), oneof([:commit, :roll_back])}},
        {10, {:txn, path(), value(), list(write())}},
        {60, query()},
        {weight, :restart}
      ])
    )
  end

  defp write do
    frequency([
      {10, {:put, path(), value()}},
      {4, {:create, path(), value()}},
      {4, {:update, path(), value()}},
      {4, {:compare_and_swap, path(), value(), value()}},
      {2, {:delete, path()}},
      {2, {:delete_many, pattern()}},
      {2, {:put_many, pattern(), value()}},
      {2, {:clear, pattern()}}
    ])
  end

  defp query, do: oneof([{:get, path()}, {:node, path()}, {:select, pattern()}, {:list, path(), integer(1, 3), bool()}])
  defp bool, do: oneof([true, false])
  defp path, do: frequency([{1, []}, {4, [component()]}, {6, [component(), component()]}, {3, [component(), :b, "a"]}])
  defp component, do: oneof(@components)
  defp value, do: oneof([integer(0, 2), nil, %{a: 1}])

  defp pattern, do: frequency([{1, []}, {4, [part()]}, {4, [part(), part()]}, {2, [part(), part(), part()]}])

  defp part do
    oneof(
      [:*, :**, component(), :has_data, {:data, value()}, {:name_matches, "^a"}, {:not, component()}]
      |> Enum.concat([{:all, [:**, :has_data]}, {:any, [component(), component()]}])
    )
  end

  defp restart(store, dir, opts) do
    :ok = Cluster.stop(store)
    {:ok, ^store} = Cluster.start(dir, Map.new([{:cluster_name, store} | opts]), 60_000)
  end

  defp agree?(store, restart, commands) do
    {:ok, _revision} = Tree.delete(store, [])

    model =
      Enum.reduce(commands, %{}, fn
        :restart, model ->
          restart.()
          model

        command, model ->
          step(command, model, store)
      end)

    expect(elem(Tree.get_many!(store, [:**]), 0), Map.delete(model, []))
    expect(Map.new(Tree.stream(store, [:**], page: 3), &{&1.path, &1.value}), Map.delete(model, []))
    expect(Tree.get(store, []), find(model, []))
    true
  end

  defp step({:transaction, writes, ending}, model, store) do
    result =
      Tree.transaction(store, fn tx ->
        after_writes = Enum.reduce(writes, model, &write(&1, &2, tx))
        expect(elem(Tree.get_many!(tx, [:**]), 0), Map.delete(after_writes, []))
        if ending == :roll_back, do: Tree.rollback(:no), else: after_writes
      end)

    case {ending, result} do
      {:commit, {:ok, after_writes}} -> after_writes
      {:roll_back, {:error, :no}} -> model
    end
  end

  defp step({:txn, path, value, writes}, model, store) do
    ops = for {:put, path, value} <- writes, do: {:put, path, value}
    result = Tree.txn!(store, [{:value, path, :==, value}], ops, [{:delete, path}])
    expect(result.succeeded, Map.fetch(model, path) == {:ok, value})

    if result.succeeded,
      do: Enum.reduce(ops, model, fn {:put, path, value}, model -> Map.put(model, path, value) end),
      else: delete(model, path)
  end

  defp step({:get, path}, model, store), do: same(Tree.get(store, path), find(model, path), model)

  defp step({:node, path}, model, store) do
    expect(Tree.exists(store, path), path in nodes(model))
    same(Tree.has_data(store, path), Map.has_key?(model, path), model)
  end

  defp step({:select, pattern}, model, store) do
    expect(Tree.count!(store, pattern), length(matches(model, pattern)))
    same(elem(Tree.get_many!(store, pattern), 0), Map.take(model, matches(model, pattern)), model)
  end

  defp step({:list, prefix, depth, reverse?}, model, store) do
    {entries, _revision} = Tree.list!(store, prefix, depth: depth, reverse: reverse?)

    below =
      for {path, value} <- model, List.starts_with?(path, prefix), (length(path) - length(prefix)) in 1..depth do
        {path, value}
      end

    sorted = Enum.sort_by(below, fn {path, _value} -> elem(Path.to_key(path), 1) end)
    expected = if reverse?, do: Enum.reverse(sorted), else: sorted
    same(Enum.map(entries, &{&1.path, &1.value}), expected, model)
  end

  defp step(write, model, store), do: write(write, model, store)

  # A write on the store or in a transaction, and on the model.
  defp write({:put, path, value}, model, store) do
    {:ok, _revision} = Tree.put(store, path, value)
    Map.put(model, path, value)
  end

  defp write({:create, path, value}, model, store) do
    case {Tree.create(store, path, value), Map.fetch(model, path)} do
      {{:ok, _revision}, :error} -> Map.put(model, path, value)
      {{:error, {:exists, %{value: present}}}, {:ok, present}} -> model
    end
  end

  defp write({:update, path, value}, model, store) do
    case {Tree.update(store, path, value), Map.fetch(model, path)} do
      {{:ok, _revision}, {:ok, _present}} -> Map.put(model, path, value)
      {{:error, :not_found}, :error} -> model
    end
  end

  defp write({:compare_and_swap, path, expected, value}, model, store) do
    case {Tree.compare_and_swap(store, path, expected, value), Map.fetch(model, path)} do
      {{:ok, _revision}, {:ok, ^expected}} -> Map.put(model, path, value)
      {{:error, {:conflict, nil}}, :error} -> model
      {{:error, {:conflict, %{value: present}}}, {:ok, present}} when present !== expected -> model
    end
  end

  defp write({:delete, path}, model, store) do
    {:ok, _revision} = Tree.delete(store, path)
    delete(model, path)
  end

  defp write({:delete_many, pattern}, model, store) do
    {:ok, _revision} = Tree.delete_many(store, pattern)
    Enum.reduce(matches(model, pattern), model, &delete(&2, &1))
  end

  defp write({:put_many, pattern, value}, model, store) do
    {:ok, _revision} = Tree.put_many(store, pattern, value)
    Enum.reduce(matches(model, pattern), model, &Map.put(&2, &1, value))
  end

  defp write({:clear, pattern}, model, store) do
    {:ok, _revision} = Tree.clear(store, pattern)
    Map.drop(model, matches(model, pattern))
  end

  # What a pattern means, in the simplest form.
  defp matches(model, pattern), do: Enum.filter(nodes(model), &matches?(model, pattern, [], &1))

  defp matches?(_model, [], _above, rest), do: rest == []
  defp matches?(_model, _pattern, _above, []), do: false

  defp matches?(model, [part | parts], above, [name | rest]) do
    path = above ++ [name]
    many? = part == :** or match?({:all, [:** | _]}, part)
    condition = if many? and part != :**, do: {:all, tl(elem(part, 1))}, else: part
    here? = part == :** or holds?(model, condition, path)
    (here? and matches?(model, parts, path, rest)) or (many? and matches?(model, [part | parts], path, rest))
  end

  defp holds?(_model, :*, _path), do: true
  defp holds?(model, :has_data, path), do: Map.has_key?(model, path)
  defp holds?(model, {:data, value}, path), do: Map.fetch(model, path) == {:ok, value}
  defp holds?(_model, {:name_matches, "^a"}, path), do: path |> List.last() |> to_string() |> String.starts_with?("a")
  defp holds?(model, {:not, condition}, path), do: not holds?(model, condition, path)
  defp holds?(model, {:all, all}, path), do: Enum.all?(all, &holds?(model, &1, path))
  defp holds?(model, {:any, any}, path), do: Enum.any?(any, &holds?(model, &1, path))
  defp holds?(_model, name, path), do: List.last(path) === name

  defp nodes(model) do
    for(path <- Map.keys(model), n <- 0..length(path), do: Enum.take(path, n)) |> Enum.uniq()
  end

  defp find(model, path), do: with(:error <- Map.fetch(model, path), do: {:error, :not_found})
  defp delete(model, path), do: Map.reject(model, fn {key, _value} -> List.starts_with?(key, path) end)

  defp same(got, expected, model) do
    expect(got, expected)
    model
  end

  defp expect(same, same), do: :ok
  defp expect(got, expected), do: raise("got #{inspect(got)}, and the model has #{inspect(expected)}")
end
