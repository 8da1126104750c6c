Code.require_file("property.exs", __DIR__)

defmodule Tank.Store.ModelTest do
  # Random commands on the store and on a Map, which must agree; with restarts of all kinds in between.
  use Tank.Store.TankCase, async: false

  import :proper_types, only: [frequency: 1, integer: 2, list: 1, oneof: 1]
  import Tank.Store.Property

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @pods [:tank, :pods]

  # Few and similar, so that commands meet: kinds, prefixes, and the bytes that the encoding of paths escapes.
  @components [:a, "a", "", "a\0", "ab", <<1>>, :tank, :pods]
  @names ["web", "db", :web, ""]

  @restarts [:restart, :kill_owner, :kill_server]

  test "the store is a map: 500 runs of random commands, some with restarts", %{tmp_dir: dir} do
    start_tank(dir)
    check(commands(1), 500, [max_size: 40], &agree?(dir, &1))
  end

  @tag :long
  @tag timeout: :infinity
  test "the store is a map: 5,000 runs of random commands, with many restarts, and a log that is purged", %{
    tmp_dir: dir
  } do
    start_tank(dir, purging())
    check(commands(5), 5_000, [max_size: 60], &agree?(dir, purging(), &1))
  end

  defp purging, do: [snapshot_interval_entries: 20, log_retention_entries: 2, purge_batch: 1]

  # A restart takes as long as three hundred commands: `weight` in about 400 commands is one.
  defp commands(weight) do
    list(
      frequency([
        {100, {:put, path(), value()}},
        {60, {:get, path()}},
        {60, {:children, path()}},
        {20, {:delete, path()}},
        {40, {:put_pod, name(), value()}},
        {30, {:create_pod, name(), value()}},
        {30, {:get_pod, name()}},
        {20, {:delete_pod, name()}},
        {30, :list_pods},
        {weight, oneof(@restarts)}
      ])
    )
  end

  defp path, do: frequency([{5, short_path()}, {1, map({short_path(), short_path()}, fn {a, b} -> a ++ b end)}])
  defp short_path, do: oneof([[], @pods, [component()], [component(), component()], [:tank, :pods, name()]])
  defp component, do: oneof(@components)
  defp name, do: oneof(@names)
  defp value, do: oneof([integer(0, 9), nil, oneof(["", [], :a])])

  defp agree?(dir, opts \\ [], commands) do
    :ok = Tank.Store.delete_at([])
    model = Enum.reduce(commands, %{}, &step(&1, &2, {dir, opts}))
    same_tree?(model)
  end

  # Runs a command on both, compares what it returns, and gives the model after it.
  defp step({:put, path, value}, model, _) do
    :ok = Tank.Store.put_at(path, value)
    Map.put(model, path, value)
  end

  defp step({:get, path}, model, _) do
    expect(Tank.Store.get_at(path), find(model, path))
    model
  end

  defp step({:children, path}, model, _) do
    {:ok, children} = Tank.Store.children_at(path)
    expect(Enum.sort(children), children(model, path))
    model
  end

  defp step({:delete, path}, model, _) do
    :ok = Tank.Store.delete_at(path)
    delete(model, path)
  end

  defp step({:put_pod, name, value}, model, _) do
    :ok = Tank.Store.put_pod(pod(name, volumes: value))
    Map.put(model, @pods ++ [name], pod(name, volumes: value))
  end

  defp step({:create_pod, name, value}, model, _) do
    exists? = Map.has_key?(model, @pods ++ [name])
    expect(Tank.Store.create_pod(pod(name, volumes: value)), if(exists?, do: {:error, :exists}, else: :ok))
    Map.put_new(model, @pods ++ [name], pod(name, volumes: value))
  end

  defp step({:get_pod, name}, model, _) do
    expect(Tank.Store.get_pod(name), find(model, @pods ++ [name]))
    model
  end

  defp step({:delete_pod, name}, model, _) do
    :ok = Tank.Store.delete_pod(name)
    delete(model, @pods ++ [name])
  end

  defp step(:list_pods, model, _) do
    expect(Enum.sort(Tank.Store.list_pods()), Enum.sort(for {_name, pod} <- children(model, @pods), do: pod))
    model
  end

  defp step(:restart, model, {dir, opts}) do
    stop_tank()
    start_tank(dir, opts)
    model
  end

  defp step(:kill_owner, model, _) do
    kill_tank()
    model
  end

  # More than three in ten seconds end the store, which Tank.Store's supervisor then starts again.
  defp step(:kill_server, model, _) do
    kill_server(:tank)
    await_tank(nil)
    model
  end

  defp expect(same, same), do: :ok
  defp expect(got, expected), do: raise("got #{inspect(got)}, and the model has #{inspect(expected)}")

  defp same_tree?(model) do
    for path <- all_paths(model), do: expect({path, Tank.Store.get_at(path)}, {path, find(model, path)})
    {:ok, status} = Tank.Store.Cluster.status(:tank)
    expect({:entries, status.entries}, {:entries, map_size(model)})
    true
  end

  defp all_paths(model), do: Enum.uniq([[], @pods] ++ Map.keys(model) ++ for(c <- @components, do: [c]))

  defp find(model, path) do
    with :error <- Map.fetch(model, path), do: {:error, :not_found}
  end

  defp children(model, path) do
    Enum.sort(for {key, value} <- model, key != [], Enum.drop(key, -1) == path, do: {List.last(key), value})
  end

  defp delete(model, path), do: Map.reject(model, fn {key, _value} -> List.starts_with?(key, path) end)
end
