defmodule Tank.Bench.Store.Message do
  @moduledoc """
  A message to the first member's node and one back, for context: what a read at another member costs that asks the
  leader each time, and does nothing else.
  """

  @behaviour Tank.Bench.Store

  @impl true
  def version, do: "a message"

  @impl true
  def start(_dir) do
    :persistent_term.put(__MODULE__, node())
    Process.register(spawn(&answer/0), __MODULE__)
    :ok
  end

  @impl true
  def stop, do: Tank.Bench.Store.stop_process(__MODULE__)

  @impl true
  def put(_pod), do: :ok

  @impl true
  def reads, do: [{"a message there and back", &ask/1}]

  @impl true
  def lists, do: []

  @impl true
  def syncs, do: nil

  @impl true
  def join(node) do
    true = Node.connect(node)
    :persistent_term.put(__MODULE__, node)
  end

  @impl true
  def leader, do: :persistent_term.get(__MODULE__)

  defp ask(name) do
    ref = make_ref()
    send({__MODULE__, leader()}, {self(), ref, name})
    receive do: (^ref -> {:ok, name})
  end

  defp answer do
    receive do
      {caller, ref, _name} ->
        send(caller, ref)
        answer()

      :stop ->
        :ok
    end
  end
end
