# What runs on a host of examples/network_policy.exs: an agent that mirrors the host's endpoints from the store, and says
# what it would tell the kernel.

defmodule NetworkPolicyAgent do
  # The agent never reads the store. It takes what the syncer tells it, in that order, and holds no state of its own but
  # what it has programmed.

  @behaviour Tank.Store.Syncer

  alias Tank.Store.{Backend, Syncer}
  alias Tank.Store.Syncer.Update

  @doc "Starts the agent of this node; its syncer lives as long as it does."
  def start(client) do
    {:ok, _pid} = Agent.start(fn -> %{status: nil, rules: %{}, log: [], syncer: nil} end, name: __MODULE__)

    Agent.update(__MODULE__, fn state ->
      {:ok, syncer} =
        Backend.syncer(client, __MODULE__, types: [[root: ["endpoints"], parse: &address/1]], retry_ms: 50)

      :ok = Syncer.start(syncer)
      %{state | syncer: syncer}
    end)
  end

  @doc "Stops the syncer, which takes all rules with it."
  def stop, do: Syncer.stop(Agent.get(__MODULE__, & &1.syncer))

  def status, do: Agent.get(__MODULE__, & &1.status)
  def rules, do: Agent.get(__MODULE__, & &1.rules)

  @doc "What it did since this was called before."
  def log, do: Agent.get_and_update(__MODULE__, &{Enum.reverse(&1.log), %{&1 | log: []}})

  @impl true
  def on_status_updated(status), do: Agent.update(__MODULE__, &say(%{&1 | status: status}, "status     #{status}"))

  @impl true
  def on_updates(updates), do: Enum.each(updates, &program/1)

  @impl true
  def parse_failed(key, raw), do: Agent.update(__MODULE__, &say(&1, "unreadable #{key}: #{inspect(raw)}"))

  # An endpoint whose address cannot be read is one that nobody may talk to.
  defp program(%Update{type: :deleted, kv: %{key: key}}), do: put("deleted", key, nil)
  defp program(%Update{type: type, kv: %{key: key, value: nil}}), do: put("#{type}", key, :deny)
  defp program(%Update{type: type, kv: %{key: key, value: address}}), do: put("#{type}", key, address)

  defp put(what, key, rule) do
    Agent.update(__MODULE__, fn state ->
      rules = if rule, do: Map.put(state.rules, key, rule), else: Map.delete(state.rules, key)
      say(%{state | rules: rules}, "#{String.pad_trailing(what, 10)} #{List.last(key)} #{inspect(rule)}")
    end)
  end

  defp say(state, line), do: %{state | log: [line | state.log]}

  defp address(text) do
    with {:ok, address} <- :inet.parse_address(String.to_charlist(text)), do: {:ok, address}
  end
end
