defmodule Tank.Store.Cluster.Start do
  @moduledoc false
  # Starting a store, and waiting for one, for as long as the caller wants to.

  alias Tank.Store.Cluster
  alias Tank.Store.Cluster.Arguments
  alias Tank.Store.{Call, Deadline, Formation, Identity, Instance, Remote, Running, Server}

  # How often who waits for a store to be started looks again: there is nothing yet to be told by.
  @look_again_ms 10

  @doc """
  Starts a store and forms its cluster. After a timeout it may still come up, as one that serves nobody until it is in its
  cluster; after any other error nothing runs.
  """
  @spec within(Server.config(), timeout) :: {:ok, atom} | {:error, term}
  # Opening cannot be interrupted, so another process does it, and this one waits for as long as it may.
  def within(config, timeout) do
    deadline = Deadline.before(Deadline.in_ms(timeout))

    {pid, monitor} =
      spawn_monitor(fn ->
        with {:ok, store_id} <- start_or_compare(config, deadline),
             :ok <- await_formed(store_id, Instance.whereis(store_id), deadline) do
          exit({:started, {:ok, store_id}})
        else
          {:error, reason} -> exit({:started, {:error, reason}})
        end
      end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:started, result}} -> result
      {:DOWN, ^monitor, :process, ^pid, reason} -> {:error, reason}
    after
      Deadline.bounded(timeout) ->
        Process.demonitor(monitor, [:flush])
        {:error, :timeout}
    end
  end

  @doc "Starts a store that ends with the process `owner`."
  @spec owned(String.t(), atom, map, pid, Formation.t() | nil) :: {:ok, pid} | {:error, term}
  def owned(dir, store_id, options, owner, formation \\ nil) do
    with {:ok, dir} <- Arguments.dir(dir) do
      config = %{store_id: store_id, data_dir: dir, owner: owner, options: options}
      Instance.start(Map.put(config, :formation, formation))
    end
  end

  @doc "Waits until an instance that was started is in its cluster. It is stopped when it never will be."
  @spec await_formed(atom, pid | nil, Deadline.t()) :: :ok | {:error, term}
  def await_formed(store_id, instance, deadline) do
    with {:error, reason} when reason != :timeout <- Server.await_formed(store_id, deadline) do
      # It stops itself; when this returns, nothing is left of it.
      with :ok <- Instance.stop(store_id, instance), do: Identity.closed(store_id)
      {:error, reason}
    end
  end

  @doc "Waits until a store of this node runs, and has a leader."
  @spec await_leader(atom, Deadline.t()) :: :ok | {:error, :noproc | :timeout}
  def await_leader(store_id, deadline) do
    case Running.fetch(store_id) do
      {:ok, store} ->
        with {:error, :no_quorum} <- Call.await_readable(store, Deadline.remaining(deadline)), do: {:error, :timeout}

      # None, or one whose directory is lost.
      {:error, _reason} ->
        if Deadline.remaining(deadline) == 0 do
          {:error, :noproc}
        else
          receive after: (@look_again_ms -> await_leader(store_id, deadline))
        end
    end
  end

  @doc """
  Waits until a store of another node runs, and has a leader.

  The node is asked to wait for half of the time that is left, again and again. So its answer has as long again for its
  way, and the caller is told what the node said last, not that the very last answer was late.
  """
  @spec await_leader_on(node, atom, Deadline.t(), nil | {:error, :noproc | :timeout}) ::
          :ok | {:error, :noproc | :timeout | :nodedown}
  def await_leader_on(node, store_id, deadline, said \\ nil) do
    wait_ms = deadline |> Deadline.half() |> Deadline.remaining()
    answer = Remote.call(node, Cluster, :wait_for_leader, [store_id, wait_ms], deadline)
    left_ms = Deadline.remaining(deadline)

    case answer do
      {:error, reason} when reason in [:noproc, :timeout] and left_ms > @look_again_ms ->
        # It answers at once when it does not have this library, or is just stopping.
        receive after: (@look_again_ms -> await_leader_on(node, store_id, deadline, answer))

      {:error, :timeout} when said != nil and left_ms == 0 ->
        said

      _answer ->
        answer
    end
  end

  # One that runs is what was asked for; while it is being opened anew after a failure, it is waited for.
  defp start_or_compare(%{store_id: store_id, data_dir: dir} = config, deadline) do
    with {:error, {:already_started, _pid}} <- Instance.start(config) do
      case Server.data_dir(store_id) do
        {:ok, ^dir} -> {:ok, store_id}
        {:ok, other} -> {:error, {:already_running, other}}
        {:error, :noproc} -> forming_or_again(config, deadline)
      end
    else
      {:ok, _pid} -> {:ok, store_id}
      {:error, reason} -> {:error, reason}
    end
  end

  defp forming_or_again(%{store_id: store_id, data_dir: dir} = config, deadline) do
    case Server.noted(store_id, :forming) do
      {:ok, %{data_dir: ^dir}} -> {:ok, store_id}
      {:ok, %{data_dir: other}} -> {:error, {:already_running, other}}
      {:error, :noproc} -> start_again(config, deadline)
    end
  end

  defp start_again(config, deadline) do
    if Deadline.remaining(deadline) == 0,
      do: {:error, :noproc},
      else: receive(after: (@look_again_ms -> start_or_compare(config, deadline)))
  end
end
