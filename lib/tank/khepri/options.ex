defmodule Tank.Khepri.Options do
  @moduledoc false
  # The options of Khepri's functions: maps. A key that a function does not have raises `function_clause`.

  alias Tank.Khepri.{App, Condition, Props}

  @tree [:expect_specific_node, :props_to_return, :include_root_props, :return_indirect_deletes]
  @query [:condition, :timeout, :favor]
  # `silent`: the answer is not looked at; ours.
  @command [:reply_from, :timeout, :async, :silent]

  @type t :: map

  @doc "Those of a function that reads."
  @spec query(map) :: t
  def query(opts), do: checked(opts, @query ++ @tree)

  @doc "Those of a function that deletes or runs a transaction."
  @spec command(map) :: t
  def command(opts), do: checked(opts, @command ++ @tree)

  @doc "Those of a function that puts."
  @spec put(map) :: t
  def put(opts) do
    opts = checked(opts, [:keep_while | @command ++ @tree])
    if opts[:keep_while], do: Map.update!(opts, :keep_while, &Condition.ensure_native_keep_while/1), else: opts
  end

  @doc "Those of a transaction that reads: it takes the others, too."
  @spec ro(map) :: t
  def ro(opts), do: opts |> Map.drop([:async, :reply_from, :protect_against_dups, :keep_while]) |> query()

  @doc "Those of a transaction that writes."
  @spec rw(map) :: t
  def rw(opts), do: opts |> Map.drop([:condition, :favor, :protect_against_dups]) |> put()

  @doc "Those of a function within a transaction."
  @spec within(map) :: t
  def within(opts) do
    opts = checked(opts, [:keep_while, :protect_against_dups] ++ @query ++ @command ++ @tree)
    if opts[:keep_while], do: Map.update!(opts, :keep_while, &Condition.ensure_native_keep_while/1), else: opts
  end

  defp checked(opts, known) do
    for key <- Map.keys(opts), key not in known, do: :erlang.error(:function_clause)
    Map.put_new(opts, :props_to_return, Props.default())
  end

  @doc "How long a call may take."
  @spec timeout(t) :: timeout
  def timeout(opts), do: Map.get_lazy(opts, :timeout, &App.get_default_timeout/0)
end
