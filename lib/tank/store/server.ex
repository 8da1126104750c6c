defmodule Tank.Store.Server do
  @moduledoc false
  # Owns one open store: opens it, makes it known to callers, and closes it. No call goes through this process.
  #
  #     opening --ok--> open --engine fails--> stops, is started again by its supervisor
  #        |             |---owner dies------> the whole instance is stopped
  #        +--error--> does not start, with the reason

  use GenServer, shutdown: 30_000

  require Logger

  alias Tank.Store.{Error, Instance, Names, Native, Options, Running}

  @type config :: %{
          required(:store_id) => atom,
          required(:data_dir) => String.t(),
          required(:owner) => pid | nil,
          required(:options) => map
        }

  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: name(config.store_id))

  @doc "The process that opens, owns or closes a store."
  @spec whereis(atom) :: pid | nil
  def whereis(store_id), do: GenServer.whereis(name(store_id))

  @doc "The directory of a running store."
  @spec data_dir(atom) :: {:ok, String.t()} | {:error, :noproc}
  def data_dir(store_id) do
    case Registry.lookup(Names, {:dir, store_id}) do
      [{_pid, {dir, _owner}}] -> {:ok, dir}
      [] -> {:error, :noproc}
    end
  end

  @doc "The process whose end closes a running store; nil when it is nobody's."
  @spec owner(atom) :: {:ok, pid | nil} | {:error, :noproc}
  def owner(store_id) do
    case Registry.lookup(Names, {:dir, store_id}) do
      [{_pid, {_dir, owner}}] -> {:ok, owner}
      [] -> {:error, :noproc}
    end
  end

  @doc "The ids of the running stores."
  @spec store_ids :: [atom]
  def store_ids, do: Registry.select(Names, [{{{:dir, :"$1"}, :_, :_}, [], [:"$1"]}])

  @impl true
  def init(config) do
    # So that `terminate` runs, and closes the store, when the supervisor stops it.
    Process.flag(:trap_exit, true)

    if config.owner, do: Process.monitor(config.owner)

    case Native.open(Options.to_native(config)) do
      {:ok, store} ->
        Running.put(config.store_id, store)
        {:ok, _pid} = Registry.register(Names, {:dir, config.store_id}, {config.data_dir, config.owner})
        {:ok, %{config: config, store: store}}

      {:error, reason} ->
        {:stop, Error.from_native(reason)}
    end
  end

  @impl true
  def handle_info({:tank_store_failed, reason}, state) do
    error = Error.from_native(reason)
    Logger.error("store #{inspect(state.config.store_id)} failed: #{Exception.message(error)}")
    {:stop, {:shutdown, error}, state}
  end

  def handle_info({:DOWN, _ref, :process, owner, _reason}, %{config: %{owner: owner}} = state) do
    # Stopping the instance waits for this process to end, so another one asks for it.
    store_id = state.config.store_id
    spawn(fn -> Instance.stop(store_id) end)
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{config: config, store: store}) do
    Running.delete(config.store_id)

    case Native.close(store) do
      :ok ->
        :ok

      {:error, reason} ->
        Logger.error("closing store #{inspect(config.store_id)}: #{Exception.message(Error.from_native(reason))}")
    end
  end

  defp name(store_id), do: {:via, Registry, {Names, {:server, store_id}}}
end
