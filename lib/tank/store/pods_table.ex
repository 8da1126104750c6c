defmodule Tank.Store.PodsTable do
  @moduledoc false
  # The table `:tank_pods` of `Tank.Store`'s option `:pods_table`: a projection of the pods, as `{name, pod}`.
  #
  # It belongs to the process `Tank.Store`, which starts it and ends with it. A write waits for its own row. A write that
  # is acknowledged does not fail when the table is late or gone.

  alias Tank.Store.{Error, Projection}

  @table :tank_pods
  @row_timeout 5_000
  # `Tank.Store` has five seconds to stop, and closes the store in them, too.
  @stop_timeout 1_000

  @doc "Starts the table's process, under a supervisor that is linked to the caller. The table is filled when it returns."
  @spec start_link(atom) :: {:ok, pid} | {:error, term}
  def start_link(store_id) do
    :ok = await_end(Process.whereis(__MODULE__))

    if :ets.whereis(@table) == :undefined,
      do: start_supervised(store_id),
      else: {:error, Error.from_native({:invalid_option, :pods_table, "there is another table :tank_pods"})}
  end

  defp start_supervised(store_id) do
    projection =
      {Projection,
       name: __MODULE__,
       store_id: store_id,
       table: @table,
       pattern: [:tank, :pods, :*],
       key: &List.last(&1.path),
       favor: :low_latency}

    with {:ok, supervisor} <- Supervisor.start_link([projection], strategy: :one_for_one) do
      :persistent_term.put(__MODULE__, true)
      {:ok, supervisor}
    end
  end

  # That of an owner that was killed ends a moment later.
  defp await_end(nil), do: :ok

  defp await_end(pid) do
    monitor = Process.monitor(pid)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      @row_timeout -> Process.demonitor(monitor, [:flush]) && :ok
    end
  end

  @doc "Ends the table and the supervisor that `start_link/1` gave, which may be gone already. Writes wait for no row any more."
  @spec stop(pid) :: :ok
  def stop(supervisor) do
    :persistent_term.erase(__MODULE__)
    Supervisor.stop(supervisor, :shutdown, @stop_timeout)
  catch
    :exit, _gone_or_late -> :ok
  end

  @doc "Waits until the table, if there is one, holds what was written up to a revision."
  @spec await(non_neg_integer) :: :ok
  def await(revision) do
    if :persistent_term.get(__MODULE__, false), do: Projection.await(__MODULE__, revision, @row_timeout)
    :ok
  end
end
