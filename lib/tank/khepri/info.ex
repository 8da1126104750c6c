defmodule Tank.Khepri.Info do
  @moduledoc false
  # Prints what there is, for people.

  import Tank.Khepri.Records, only: [if_path_matches: 1]

  alias Tank.Khepri.{Access, Cluster, Engine, Projections, Verbs}

  @spec stores :: :ok
  def stores do
    case Cluster.get_store_ids() do
      [] -> :io.format("No stores running~n")
      ids -> :io.format("Running stores:~n~ts", [Enum.map(ids, &["  ", Atom.to_string(&1), "\n"])])
    end

    :ok
  end

  @spec store(atom, map) :: :ok
  def store(store, opts) do
    members(store)

    with {:ok, view} <- Access.view_to_read(store, opts) do
      view |> Engine.all_keep_while() |> Enum.sort() |> conditions()
      view |> Projections.all() |> projections()
    end

    with {:ok, nodes} <- Verbs.adv_get_many(store, [if_path_matches(regex: :any)], opts), do: tree(nodes)
    :ok
  end

  defp members(store) do
    title("CLUSTER MEMBERS")
    :io.format("~n")

    case Cluster.nodes(store) do
      {:ok, nodes} -> for node <- nodes, do: :io.format("~ts~n", [node])
      error -> :io.format("Failed to query cluster members: ~p~n", [error])
    end
  end

  defp conditions([]), do: :ok

  defp conditions(kept) do
    title("LIFETIME DEPS")

    for {path, conditions} <- kept do
      :io.format("~n\e[1m~p depends on:\e[0m~n", [path])
      for {on, condition} <- Enum.sort(conditions), do: :io.format("    ~p:~n        ~p~n", [on, condition])
    end
  end

  defp projections([]), do: :ok

  defp projections(all) do
    title("PROJECTIONS")
    for {name, {pattern, _projection}} <- all, do: :io.format("~n~p:~n    ~p~n", [name, pattern])
  end

  defp title(text), do: :io.format("~n\e[1;32m== ~ts ==\e[0m~n", [text])

  # -- The tree

  defp tree(nodes) do
    title("TREE")
    :io.format("~n~ts~n", ["●"])
    nodes |> Map.delete([]) |> nested() |> branches("")
  end

  # `%{name => {props, children}}`
  defp nested(nodes) do
    nodes
    |> Enum.group_by(fn {path, _props} -> hd(path) end, fn {[_name | rest], props} -> {rest, props} end)
    |> Map.new(fn {name, below} ->
      below = Map.new(below)
      {name, {Map.get(below, [], %{}), below |> Map.delete([]) |> nested()}}
    end)
  end

  defp branches(children, prefix) do
    sorted = Enum.sort_by(children, fn {name, _node} -> {to_string(name), name} end)
    last = length(sorted)
    for {{name, node}, n} <- Enum.with_index(sorted, 1), do: branch(name, node, prefix, n == last)
    :ok
  end

  defp branch(name, {props, children}, prefix, last?) do
    {corner, below} = if last?, do: {"╰── ", "    "}, else: {"├── ", "│   "}
    :io.format("~ts~ts~0p~n", [prefix, corner, name])
    prefix = prefix <> below
    payload(props, prefix <> if(children == %{}, do: "  ", else: "│ "))
    branches(children, prefix)
  end

  defp payload(%{data: data}, prefix), do: data(data, prefix)
  defp payload(%{sproc: fun}, prefix), do: data(fun, prefix)
  defp payload(_props, _prefix), do: :ok

  defp data(data, prefix) do
    lines = "Data: ~tp" |> :io_lib.format([data]) |> IO.chardata_to_string() |> String.split("\n")
    for line <- lines, do: :io.format("~ts\e[38;5;246m~ts\e[0m~n", [prefix, line])
    :io.format("~ts~n", [String.trim_trailing(prefix)])
  end
end
