defmodule Tank.Store.ScriptedSource do
  @moduledoc """
  The store as a syncer's source, which fails exactly when a test says so. There is one script in a VM.
  """

  @behaviour Tank.Store.Syncer.Source

  alias Tank.Store.Syncer.Source.Store

  @doc "Begins a script in which nothing fails; it ends with the test."
  def start do
    script = fn -> %{lists: [], watches: 0, say: nil, counts: %{}} end
    :persistent_term.put(__MODULE__, ExUnit.Callbacks.start_supervised!({Agent, script}))
  end

  @doc "Which roots cannot be listed from now on."
  def fail_lists(roots), do: update(&%{&1 | lists: roots})

  @doc "How many of the next watches do not start."
  def fail_watches(count), do: update(&%{&1 | watches: count})

  @doc "What the next changes are taken for: `{:ended, reason}` or `:lost`. The watch does not tell them."
  def say(what), do: update(&%{&1 | say: what})

  @doc "How often lists and watches were asked for: `%{list: n, watch: n}`, if they were."
  def counts, do: Agent.get(script(), & &1.counts)

  @impl true
  def list(client, options) do
    failing = Agent.get_and_update(script(), &{&1.lists, count(&1, :list)})
    if options.root in failing, do: {:error, :injected}, else: Store.list(client, options)
  end

  @impl true
  def watch(client, options, revision) do
    left = Agent.get_and_update(script(), &{&1.watches, %{count(&1, :watch) | watches: max(&1.watches - 1, 0)}})
    if left > 0, do: {:error, :injected}, else: Store.watch(client, options, revision)
  end

  @impl true
  def read(watch, message) do
    with {:changes, [_ | _]} = changes <- Store.read(watch, message),
         do: Agent.get_and_update(script(), &{&1.say || changes, %{&1 | say: nil}})
  end

  @impl true
  defdelegate cancel(watch), to: Store

  defp count(script, what), do: %{script | counts: Map.update(script.counts, what, 1, &(&1 + 1))}
  defp update(fun), do: Agent.update(script(), fun)
  defp script, do: :persistent_term.get(__MODULE__)
end
