defmodule Tank.Khepri.Stores do
  @moduledoc false
  # What runs next to a store that is used by Khepri's API: a process that is registered under the store's id, the one
  # that keeps its projections, and the one that runs its triggers.

  alias Tank.Khepri.{Member, Projector, TriggerRunner}

  @doc "Starts it, unless it runs."
  @spec opened(atom) :: :ok | {:error, term}
  def opened(store) do
    case DynamicSupervisor.start_child(Tank.Khepri.Processes, child_spec(store)) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Ends it."
  @spec closing(atom) :: :ok
  def closing(store) do
    with pid when is_pid(pid) <- Process.whereis(name(store)) do
      _ended_or_gone = DynamicSupervisor.terminate_child(Tank.Khepri.Processes, pid)
    end

    :ok
  end

  defp child_spec(store) do
    children = [{Member, store}, {Projector, store}, {TriggerRunner, store}]
    start = {Supervisor, :start_link, [children, [strategy: :one_for_one, name: name(store)]]}
    %{id: store, start: start, type: :supervisor, restart: :temporary}
  end

  defp name(store), do: Module.concat(Tank.Khepri.Processes, store)
end
