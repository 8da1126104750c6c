defmodule Tank.Bench.Store.Ets do
  @moduledoc "An ETS table of pods by name: no durability, no replication. What reads are measured against."

  @behaviour Tank.Bench.Store

  @table :bench_pods

  @impl true
  def version, do: "ETS of OTP #{:erlang.system_info(:otp_release)}"

  @impl true
  def start(_dir) do
    # Owned by a process that does nothing, so that it ends when we say so.
    parent = self()

    spawn(fn ->
      Process.register(self(), __MODULE__)
      :ets.new(@table, [:named_table, :public, read_concurrency: true])
      send(parent, :table)
      receive do: (:stop -> :ok)
    end)

    receive do: (:table -> :ok)
  end

  @impl true
  def stop, do: Tank.Bench.Store.stop_process(__MODULE__)

  @impl true
  def put(pod) do
    true = :ets.insert(@table, {pod.name, pod})
    :ok
  end

  @impl true
  def reads, do: [{":ets.lookup", &lookup/1}]

  @impl true
  def lists, do: [{":ets.tab2list", &tab2list/0}, {"tab2list and map", &pods/0}]

  @impl true
  def syncs, do: nil

  @doc "The pods whose names end in one of some digits, found by looking at all, in the table."
  @spec select_by_name([String.t()]) :: [map]
  def select_by_name(endings) do
    # Names are of one length: what comes after their first nine bytes decides.
    tests = for ending <- endings, do: {:==, {:binary_part, :"$1", 9, 2}, ending}
    :ets.select(@table, [{{:"$1", :"$2"}, [List.to_tuple([:orelse | tests])], [:"$2"]}])
  end

  defp lookup(name), do: :ets.lookup(@table, name)
  defp tab2list, do: :ets.tab2list(@table)
  defp pods, do: for({_name, pod} <- :ets.tab2list(@table), do: pod)
end
