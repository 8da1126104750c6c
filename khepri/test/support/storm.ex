defmodule Khepri.Storm do
  @moduledoc "A triggered procedure that reports each event to one process of the test's node, and waits for its answer."

  use GenServer

  @doc "Starts the process that notes events."
  def start, do: {:ok, _pid} = GenServer.start(__MODULE__, [], name: __MODULE__)

  @doc "What was noted, in order: `{name, action, node}`."
  def noted, do: GenServer.call(__MODULE__, :noted)

  @doc "The procedure. Where to report to is in the application's environment."
  def ran(%{path: path, on_action: action}) do
    :noted = GenServer.call({__MODULE__, Application.fetch_env!(:khepri, :storm)}, {List.last(path), action, node()})
  end

  @impl GenServer
  def init(events), do: {:ok, events}

  @impl GenServer
  def handle_call(:noted, _from, events), do: {:reply, Enum.reverse(events), events}
  def handle_call(event, _from, events), do: {:reply, :noted, [event | events]}
end
