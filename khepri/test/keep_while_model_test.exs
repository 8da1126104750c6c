defmodule Khepri.KeepWhileModelTest do
  # Random graphs of conditions, and random writes, against a model.
  use Khepri.StoreCase, async: true

  alias Khepri.KeepWhileModel, as: Model

  @moduletag timeout: 300_000
  @histories 25
  @commands 60
  @names [:a, :b, "c"]
  @operators %{==: :eq, !=: :ne, <: :lt, <=: :le, >: :gt, >=: :ge}

  test "the tree, the answers and the refusals are those of the model", %{store: s} do
    for n <- 1..@histories do
      seed = :erlang.unique_integer([:positive]) + n
      :rand.seed(:exsss, {seed, 1, 2})
      Process.put(:story, [])
      Enum.reduce(1..@commands, Model.new(), fn _, tree -> step(s, tree, seed) end)
      :ok = :khepri.delete(s, [])
    end
  end

  # Most of what is written is refused or goes at once: the tree stays small, and full of conditions.
  defp step(s, tree, seed) do
    command = command()
    Process.put(:story, [command | Process.get(:story)])
    {expected, tree} = expected(command, tree)
    context = "seed #{seed}, after #{inspect(Enum.reverse(Process.get(:story)), limit: :infinity)}"
    answered = run(s, command)
    assert answered == expected, "#{inspect(answered)}, and not #{inspect(expected)}: #{context}"
    {:ok, found} = :khepri.get_many(s, "**")
    nodes = Map.new(Map.delete(tree, []), fn {path, node} -> {path, node.data || :undefined} end)
    assert found == nodes, "#{inspect(found)}, and not #{inspect(nodes)}: #{context}"
    tree
  end

  defp command do
    case :rand.uniform(10) do
      n when n <= 2 -> {:delete, path()}
      n when n <= 4 -> {:put, path(), data(), nil}
      _more -> {:put, path(), data(), Map.new(1..:rand.uniform(2), fn _ -> {pattern(), condition()} end)}
    end
  end

  defp path, do: for(_ <- 1..:rand.uniform(3), do: Enum.random(@names))
  defp data, do: Enum.random([nil, 1, 2])

  defp pattern do
    path = path()
    if :rand.uniform(4) == 1, do: List.replace_at(path, :rand.uniform(length(path)) - 1, :*), else: path
  end

  defp condition do
    case :rand.uniform(7) do
      1 -> {:exists, false}
      2 -> {:has_data, Enum.random([true, false])}
      3 -> {:children, Enum.random(Map.keys(@operators)), :rand.uniform(3) - 1}
      4 -> {:version, Enum.random(Map.keys(@operators)), :rand.uniform(3)}
      5 -> {:not, Enum.random([{:has_data, true}, {:children, :>, 0}])}
      6 -> {:any, [{:has_data, true}, {:children, :>, 1}]}
      7 -> {:exists, true}
    end
  end

  defp expected({:delete, path}, tree) do
    {tree, gone} = Model.delete(tree, path)
    {{:ok, gone}, tree}
  end

  defp expected({:put, path, data, keep}, tree) do
    case Model.put(tree, path, data, keep) do
      {:error, _why} -> {:refused, tree}
      {tree, gone} -> {{:ok, gone}, tree}
    end
  end

  defp run(s, {:delete, path}), do: s |> :khepri_adv.delete(path) |> answer()

  defp run(s, {:put, path, data, keep}) do
    options =
      if keep,
        do: %{keep_while: Map.new(keep, fn {on, condition} -> {native(on), translated(condition)} end)},
        else: %{}

    payload = if data, do: :khepri_payload.data(data), else: :khepri_payload.none()
    s |> :khepri_adv.put(path, payload, options) |> answer()
  end

  defp answer({:ok, nodes}) do
    {:ok, for({path, %{delete_reason: reason} = props} <- nodes, into: %{}, do: {path, {reason, props[:data]}})}
  end

  defp answer({:error, {:khepri, :keep_while_conditions_not_met, _info}}), do: :refused

  defp native(path), do: Enum.map(path, &if(&1 == :*, do: if_name_matches(), else: &1))

  defp translated({:exists, exists?}), do: if_node_exists(exists: exists?)
  defp translated({:has_data, wanted}), do: if_has_data(has_data: wanted)
  defp translated({:children, operator, n}), do: if_child_list_length(count: {@operators[operator], n})
  defp translated({:version, operator, n}), do: if_payload_version(version: {@operators[operator], n})
  defp translated({:not, condition}), do: if_not(condition: translated(condition))
  defp translated({:any, conditions}), do: if_any(conditions: Enum.map(conditions, &translated/1))
end
