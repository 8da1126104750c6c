defmodule Tank.Store.Grove.Boot do
  @moduledoc false
  # A store that backends start for themselves, and share. This process owns it and monitors the backends' users: the store
  # stops with the last of them, whether they close their backends or end, and with this process.
  #
  #     user --use--> monitored, counted --close, or the user ends--> forgotten; the last one: the store is stopped

  use GenServer, restart: :temporary

  alias Tank.Store.Cluster
  alias Tank.Store.Cluster.Start
  alias Tank.Store.{Instance, Names, ProcessCall}

  @start_timeout 60_000
  # Stopping the store takes two minutes at the most.
  @close_timeout 150_000

  @doc """
  Starts a store for the calling process, or shares the one that runs in that directory.

  Gives the process to close it by; nil for a store that is somebody else's, which is left running.
  """
  @spec start(String.t(), atom) :: {:ok, pid | nil} | {:error, term}
  def start(data_dir, store_id) do
    case GenServer.start(__MODULE__, {data_dir, store_id, self()}, name: name(store_id), timeout: @start_timeout) do
      {:ok, boot} -> {:ok, boot}
      {:error, {:already_started, boot}} -> share(boot, data_dir, store_id)
      {:error, {:shutdown, {:already_started, _instance}}} -> somebody_elses(data_dir, store_id)
      {:error, {:shutdown, reason}} -> {:error, reason}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "The user that called `start/2` needs the store no more, for once. Returns when it is stopped, if it was the last."
  @spec close(pid, user :: pid) :: :ok
  def close(boot, user) do
    # It has ended, with the store, or takes longer than it may.
    with {:error, _why} <- ProcessCall.call(boot, {:close, user}, @close_timeout), do: :ok
  end

  @impl true
  def init({data_dir, store_id, user}) do
    case Start.owned(data_dir, store_id, %{}, self()) do
      {:ok, instance} ->
        Process.monitor(instance)
        {:ok, use_by(user, %{store_id: store_id, dir: Path.expand(data_dir), instance: instance, users: %{}})}

      {:error, reason} ->
        # Not a crash: nobody needs a report of it.
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call({:use, dir, user}, _from, %{dir: dir} = state), do: {:reply, :ok, use_by(user, state)}
  def handle_call({:use, _other, _user}, _from, state), do: {:reply, {:error, {:already_running, state.dir}}, state}

  def handle_call({:close, user}, _from, state) do
    case state.users do
      %{^user => {monitor, 1}} ->
        Process.demonitor(monitor, [:flush])

        stop_without_users(
          %{state | users: Map.delete(state.users, user)},
          &{:stop, :normal, :ok, &1},
          &{:reply, :ok, &1}
        )

      %{^user => {monitor, count}} ->
        {:reply, :ok, put_in(state.users[user], {monitor, count - 1})}

      _it_has_ended ->
        {:reply, :ok, state}
    end
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, instance, _reason}, %{instance: instance} = state),
    do: {:stop, :normal, state}

  def handle_info({:DOWN, _monitor, :process, user, _reason}, state) do
    stop_without_users(%{state | users: Map.delete(state.users, user)}, &{:stop, :normal, &1}, &{:noreply, &1})
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp use_by(user, state) do
    update_in(state.users[user], fn
      nil -> {Process.monitor(user), 1}
      {monitor, count} -> {monitor, count + 1}
    end)
  end

  # Nobody comes to share it meanwhile: that is asked of this process.
  defp stop_without_users(%{users: users} = state, stop, _go_on) when users == %{} do
    _stopped_or_stopping = Instance.stop(state.store_id, state.instance)
    stop.(state)
  end

  defp stop_without_users(state, _stop, go_on), do: go_on.(state)

  # The one before may have ended since, as its store was closed.
  defp share(boot, data_dir, store_id) do
    case ProcessCall.call(boot, {:use, Path.expand(data_dir), self()}, @start_timeout) do
      :ok -> {:ok, boot}
      {:error, :noproc} -> start(data_dir, store_id)
      {:error, reason} -> {:error, reason}
    end
  end

  defp somebody_elses(data_dir, store_id) do
    with {:ok, ^store_id} <- Cluster.start(data_dir, store_id, @start_timeout), do: {:ok, nil}
  end

  defp name(store_id), do: {:via, Registry, {Names, {:grove, store_id}}}
end
