defmodule Tank.Khepri.Projections do
  @moduledoc false
  # Which projections a store has: they are in the tree, below a node that is not shown. `Tank.Khepri.Projector` keeps
  # their tables.

  alias Tank.Khepri.{Access, Engine, Options, Projection, Projector}

  @at :projections

  @spec register(atom, term, Projection.t(), map) :: :ok | {:error, term}
  def register(store, path, projection, opts) do
    pattern = Access.pattern(path)
    name = Projection.name(projection)

    changed(store, opts, fn tx ->
      if Engine.own(tx, [@at, name]),
        do: Access.error(:projection_already_exists, %{name: name}),
        else: Engine.own_put(tx, [@at, name], {pattern, projection})
    end)
  end

  @doc "Gives the patterns of those that were there, by their names."
  @spec unregister(atom, :all | [atom], map) :: {:ok, map} | {:error, term}
  def unregister(store, names, opts) do
    changed(store, opts, fn tx ->
      gone = for {name, {pattern, _projection}} <- all(tx), names == :all or name in names, do: {name, pattern}
      for {name, _pattern} <- gone, do: Engine.own_delete(tx, [@at, name])
      {:ok, Map.new(gone)}
    end)
  end

  defp changed(store, opts, fun) do
    result = Access.write(store, opts, &Options.command/1, fn tx, _opts -> fun.(tx) end)
    if opts[:async] in [nil, false], do: Projector.await_registered(store)
    result
  end

  @spec has?(atom, atom, map) :: boolean | {:error, term}
  def has?(store, name, opts),
    do: Access.read(store, opts, fn view, _opts -> Engine.own(view, [@at, name]) != nil end)

  @doc "All, by their names, as `{pattern, projection}`."
  @spec all(Engine.source()) :: [{atom, {list, Projection.t()}}]
  def all(source), do: Engine.own_list(source, [@at])

  @doc "Waits until this member's tables hold what was written."
  @spec await(atom, non_neg_integer) :: :ok
  defdelegate await(store, revision), to: Projector

  @doc "Whether a path is that of a registration."
  @spec registration?(list) :: boolean
  def registration?([top, @at | _name]), do: top == Engine.hidden()
  def registration?(_path), do: false
end
