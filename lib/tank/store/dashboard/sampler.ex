defmodule Tank.Store.Dashboard.Sampler do
  @moduledoc false
  # Looks at the store once a second, for all browsers: its status now, and its load over the last ten minutes.
  #
  # Requests read a table, and so wait neither for this process nor for a store that does not answer.

  use GenServer
  use Tank.Store.HideState, show: [:store_id, :number]

  alias Tank.Store.{Cluster, Counters, Names, Native, Running}
  alias Tank.Store.Dashboard.{Context, Histogram}

  @every_ms 1_000
  @kept 600

  @columns [
    :at_ms,
    :writes,
    :reads,
    :revisions,
    :failures,
    :write_p50_us,
    :write_p99_us,
    :read_p50_us,
    :read_p99_us,
    :sync_p50_us,
    :sync_p99_us
  ]

  @typedoc "What was found at a time, in milliseconds since 1970."
  @type now :: {at_ms :: integer, {:ok, Tank.Store.Status.t()} | {:error, term}}

  @spec start_link(Context.t()) :: GenServer.on_start()
  def start_link(context), do: GenServer.start_link(__MODULE__, context.store_id)

  @doc "What is in a sample: rates are for each second, and times in microseconds. The first one is when it was taken."
  @spec columns :: [atom]
  def columns, do: @columns

  @doc "The status, as it was a moment ago."
  @spec now(atom) :: now
  def now(store_id) do
    with {:ok, table} <- table(store_id), [{:now, at_ms, status}] <- lookup(table, :now) do
      {at_ms, status}
    else
      _not_yet -> {System.system_time(:millisecond), {:error, :noproc}}
    end
  end

  @doc "The samples that were taken after a time, as JSON."
  @spec json(atom, integer) :: iodata
  def json(store_id, after_ms) do
    rows = with {:ok, table} <- table(store_id), do: rows(table, after_ms)
    rows = if is_list(rows), do: rows, else: []
    [~s({"rows":[), Enum.intersperse(rows, ","), "]}"]
  end

  @impl true
  def init(store_id) do
    table = :ets.new(__MODULE__, [:ordered_set, :protected, read_concurrency: true])
    {:ok, _owner} = Registry.register(Names, {:dashboard_samples, store_id}, table)
    {:ok, %{store_id: store_id, table: table, number: 0, before: nil}, {:continue, :look}}
  end

  @impl true
  def handle_continue(:look, state), do: look(state)

  @impl true
  def handle_info(:look, state), do: look(state)
  def handle_info(_other, state), do: {:noreply, state}

  defp look(%{table: table, store_id: store_id, number: number} = state) do
    Process.send_after(self(), :look, @every_ms)
    status = Cluster.status(store_id)
    seen = see(store_id, status)
    :ets.insert(table, {:now, System.system_time(:millisecond), status})
    :ets.insert(table, {number, System.system_time(:millisecond), row(state.before, seen)})
    :ets.delete(table, number - @kept)
    {:noreply, %{state | number: number + 1, before: seen}}
  end

  # -- What was counted so far

  defp see(store_id, {:ok, status}) do
    %{at: System.monotonic_time(:millisecond), status: status, calls: Counters.read(store_id), native: native(store_id)}
  end

  defp see(_store_id, {:error, _down}), do: nil

  defp native(store_id) do
    with {:ok, store} <- Running.fetch(store_id), do: Native.metrics(store)
  end

  # -- What was counted since

  defp row(%{calls: %{}, native: %{}} = before, %{calls: %{}, native: %{}} = now) do
    rate = &rate(&1, &2, now.at - before.at)

    values =
      [
        rate.(count(before.calls.write), count(now.calls.write)),
        rate.(count(before.calls.read), count(now.calls.read)),
        rate.(before.status.revision, now.status.revision),
        rate.(failed(before.calls), failed(now.calls))
      ] ++
        times(before.calls.write.buckets, now.calls.write.buckets) ++
        times(before.calls.read.buckets, now.calls.read.buckets) ++
        times(elem(before.native.syncs, 0), elem(now.native.syncs, 0))

    row(values)
  end

  defp row(_before, _now), do: row(List.duplicate(nil, length(@columns) - 1))

  defp row(values), do: [Integer.to_string(System.system_time(:millisecond)) | values] |> to_json()

  defp to_json([at_ms | values]), do: ["[", at_ms, Enum.map(values, &[",", number(&1)]), "]"] |> IO.iodata_to_binary()

  defp number(nil), do: "null"
  defp number(value) when is_integer(value), do: Integer.to_string(value)
  defp number(value) when is_float(value), do: :erlang.float_to_binary(value, decimals: 1)

  defp count(%{results: results}), do: results |> Keyword.values() |> Enum.sum()

  defp failed(calls), do: Enum.sum(for kind <- [:write, :read], do: count(calls[kind]) - calls[kind].results[:ok])

  # What was counted begins at 0 again when a store is stopped and started.
  defp rate(before, now, ms) when now >= before and ms > 0, do: (now - before) * 1000 / ms
  defp rate(_before, _now, _ms), do: nil

  defp times(before, now), do: for(part <- [0.5, 0.99], do: Histogram.quantile(before, now, part))

  # -- The table

  defp table(store_id) do
    case Registry.lookup(Names, {:dashboard_samples, store_id}) do
      [{_pid, table}] -> {:ok, table}
      [] -> :none
    end
  end

  # It goes with its process.
  defp lookup(table, key) do
    :ets.lookup(table, key)
  rescue
    ArgumentError -> []
  end

  defp rows(table, after_ms) do
    :ets.select(table, [
      {{:_, :"$1", :"$2"}, [{:is_integer, :"$1"}, {:is_binary, :"$2"}, {:>, :"$1", after_ms}], [:"$2"]}
    ])
  rescue
    ArgumentError -> []
  end
end
