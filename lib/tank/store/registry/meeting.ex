defmodule Tank.Store.Registry.Meeting do
  @moduledoc false
  # Where registries find each other: a group in a `:pg` scope of this library.
  #
  # `:pg` only tells who comes. Who goes is told by a monitor of the process itself: a registry leaves the group also
  # when the scope of its node is started anew, and then nothing has happened to its stores.

  @scope Tank.Store.Registry.Scope
  @group :registries

  @type t :: %{scope: reference, group: reference}

  @doc "The child specification of the scope."
  @spec child_spec(term) :: Supervisor.child_spec()
  def child_spec(_options), do: %{id: @scope, start: {:pg, :start_link, [@scope]}}

  @doc "Joins the group, and gives who is in it. `:error` when the scope does not run now."
  @spec enter :: {:ok, t, [pid]} | :error
  def enter do
    scope = Process.monitor(@scope)

    try do
      :ok = :pg.join(@scope, @group, self())
      {group, pids} = :pg.monitor(@scope, @group)
      {:ok, %{scope: scope, group: group}, pids}
    catch
      :exit, _gone ->
        Process.demonitor(scope, [:flush])
        :error
    end
  end
end
