defmodule Tank.Khepri.Triggers do
  @moduledoc false
  # Which triggers a store has: they are in the tree, below a node that is not shown. `Tank.Khepri.TriggerRunner` runs
  # them, and notes there how far it has come.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Access, Engine, Evf, Options, Path, TriggerRunner}

  @at :triggers
  @cursor :trigger_cursor

  @type t :: %{
          filter: Evf.t(),
          sproc: Path.native_path(),
          pattern: list,
          actions: [atom],
          priority: integer,
          id: atom
        }

  @spec register(atom, atom, Evf.t() | Path.pattern(), Path.pattern(), map) :: :ok | {:error, term}
  def register(store, id, filter, sproc, opts) when is_atom(id) do
    evf_tree(path: path) = filter = Evf.wrap(filter)
    {_checked, sproc} = {Path.ensure_is_valid(path), sproc |> Access.pattern() |> Path.realpath()}

    registered =
      Access.write(store, opts, &Options.command/1, fn tx, _opts ->
        # What changed before there was any trigger is no event.
        if Engine.own(tx, [@cursor]) == nil, do: Engine.own_put(tx, [@cursor], Engine.revision(tx))
        Engine.own_put(tx, [@at, id], {filter, sproc})
      end)

    TriggerRunner.look_now(store)
    registered
  end

  @doc "All, in the order in which they run."
  @spec all(Engine.source()) :: [t]
  def all(source) do
    for({id, {filter, sproc}} <- Engine.own_list(source, [@at]), do: trigger(id, filter, sproc))
    |> Enum.sort_by(&{-&1.priority, &1.id})
  end

  defp trigger(id, evf_tree(path: path, props: props) = filter, sproc) do
    %{
      id: id,
      filter: filter,
      sproc: sproc,
      pattern: path |> Path.realpath() |> Path.compile(),
      actions: Map.get(props, :on_actions, [:create, :update, :delete]),
      priority: Evf.get_priority(filter)
    }
  end

  @doc "The revision up to which all has been run, or nil without triggers."
  @spec cursor(Engine.source()) :: non_neg_integer | nil
  def cursor(source), do: Engine.own(source, [@cursor])

  @doc "Notes how far all has been run."
  @spec put_cursor(atom, non_neg_integer, timeout) :: :ok | {:error, term}
  def put_cursor(store, revision, timeout) do
    Access.run(store, %{timeout: timeout}, fn tx ->
      if (Engine.own(tx, [@cursor]) || 0) < revision, do: Engine.own_put(tx, [@cursor], revision), else: :ok
    end)
  end
end
