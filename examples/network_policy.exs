# An agent for network policies: it mirrors the endpoints of its host from the store, and says what it would tell the
# kernel, while the store is stopped, started and changed behind its back.
#
#     mix run examples/network_policy.exs

defmodule NetworkPolicy.Agent do
  # The agent never reads the store. It takes what the syncer tells it, in that order, and holds no state of its own but
  # what it has programmed.

  @behaviour Tank.Store.Syncer

  alias Tank.Store.Syncer.Update

  def start_link, do: Agent.start_link(fn -> %{status: nil, rules: %{}} end, name: __MODULE__)
  def status, do: Agent.get(__MODULE__, & &1.status)
  def rules, do: Agent.get(__MODULE__, & &1.rules)

  @impl true
  def on_status_updated(status) do
    IO.puts("  status     #{status}")
    Agent.update(__MODULE__, &%{&1 | status: status})
  end

  @impl true
  def on_updates(updates), do: Enum.each(updates, &program/1)

  @impl true
  def parse_failed(key, raw), do: IO.puts("  unreadable #{key}: #{inspect(raw)}")

  # An endpoint whose address cannot be read is one that nobody may talk to.
  defp program(%Update{type: :deleted, kv: %{key: key}}), do: put("deleted", key, nil)
  defp program(%Update{type: type, kv: %{key: key, value: nil}}), do: put("#{type}", key, :deny)
  defp program(%Update{type: type, kv: %{key: key, value: address}}), do: put("#{type}", key, address)

  defp put(what, key, rule) do
    IO.puts("  #{String.pad_trailing(what, 10)} #{List.last(key)} #{inspect(rule)}")

    Agent.update(__MODULE__, fn state ->
      rules = if rule, do: Map.put(state.rules, key, rule), else: Map.delete(state.rules, key)
      %{state | rules: rules}
    end)
  end
end

defmodule NetworkPolicy do
  alias NetworkPolicy.Agent
  alias Tank.Store.{Backend, Cluster, KVPair, Syncer}

  @store :network_policy

  def run(dir) do
    {:ok, @store} = Cluster.start(dir, @store)
    {:ok, client} = Backend.new(@store, [:policy])
    for n <- 1..3, do: put(client, "eth#{n}", "10.0.0.#{n}")

    IO.puts("The agent starts:")
    {:ok, _pid} = Agent.start_link()
    {:ok, syncer} = Backend.syncer(client, Agent, types: [[root: ["endpoints"], parse: &address/1]], retry_ms: 50)
    :ok = Syncer.start(syncer)
    await(:in_sync, 3)

    IO.puts("One changes, one goes, one makes no sense:")
    put(client, "eth1", "10.0.0.9")
    :ok = Backend.delete(client, key("eth2"))
    put(client, "eth4", "not an address")
    await(:in_sync, 3)

    IO.puts("The store stops; what was programmed stays:")
    :ok = Cluster.stop(@store)
    await(:resync_in_progress, 3)

    IO.puts("The store is back, and the agent gets the difference:")
    {:ok, @store} = Cluster.start(dir, @store)
    put(client, "eth5", "10.0.0.5")
    :ok = Backend.delete(client, key("eth4"))
    await(:in_sync, 3)

    IO.puts("The agent stops, and takes its rules with it:")
    :ok = Syncer.stop(syncer)
    0 = map_size(Agent.rules())
    :ok = Cluster.stop(@store)
  end

  defp put(client, name, address), do: {:ok, _kv} = Backend.apply(client, %KVPair{key: key(name), value: address})

  defp key(name), do: ["endpoints", "host-1", name]

  defp address(text) do
    with {:ok, address} <- :inet.parse_address(String.to_charlist(text)), do: {:ok, address}
  end

  # The agent follows in its own time.
  defp await(status, rules, tries \\ 2_000) do
    Process.sleep(10)

    cond do
      Agent.status() == status and map_size(Agent.rules()) == rules and settled?(status) -> :ok
      tries == 0 -> raise "the agent has #{Agent.status()} and #{inspect(Agent.rules())}"
      true -> await(status, rules, tries - 1)
    end
  end

  defp settled?(:in_sync) do
    {:ok, client} = Backend.new(@store, [:policy])
    {:ok, endpoints, _revision} = Backend.list(client, ["endpoints"])
    Enum.sort(Enum.map(endpoints, & &1.key)) == Enum.sort(Map.keys(Agent.rules()))
  end

  defp settled?(_status), do: true
end

dir = Path.join(System.tmp_dir!(), "network_policy_#{System.unique_integer([:positive])}_#{System.pid()}")

try do
  NetworkPolicy.run(dir)
after
  File.rm_rf!(dir)
end
