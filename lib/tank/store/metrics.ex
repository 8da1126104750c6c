defmodule Tank.Store.Metrics do
  @moduledoc """
  Counters, gauges and histograms of the stores of this node, for Prometheus.

      # in a Plug, or in whatever serves HTTP
      send_resp(conn, 200, Tank.Store.Metrics.prometheus())

  All names begin with `tank_store_`, and all metrics have the label `store_id`. `ops/` has a dashboard for Grafana and alert
  rules that use them; the guide "Runbooks" says what to do at each alert.

  | metric | |
  |---|---|
  | `up` | 1 for a store that runs, 0 for one that waits for its cluster |
  | `failed` | 1 while the disk of the store fails: it is read-only |
  | `leader`, `has_leader` | 1 if this member leads; if it knows a leader, itself included |
  | `quorum`, `readable` | 1 if this member is in touch with a majority; if it answers linearizable reads from memory |
  | `term`, `revision`, `applied_index`, `last_log_index` | as in `Tank.Store.Cluster.status/1` |
  | `entries`, `value_bytes`, `memory_bytes`, `disk_bytes`, `in_flight_writes` | the same |
  | `members` | members of the cluster |
  | `member_lag_entries`, `member_reachable` | of each other member (`member`), as the leader knows it |
  | `alarm` | 1 for each `alarm` that is raised |
  | `log_entries_total`, `log_bytes_total` | what was written to the log |
  | `leader_changes_total`, `quorum_losses_total`, `watches_lagged_total` | how often that happened |
  | `snapshots_received_total`, `malformed_frames_total`, `foreign_frames_total` | the same |
  | `calls_total` | calls, by `kind` (`write`, `read`) and `result`. A read counts if it had to ask the leader |
  | `call_duration_seconds` | a histogram of them, by `kind` |
  | `sync_duration_seconds` | a histogram of the log's writes, synced |
  | `apply_duration_seconds`, `checkpoint_duration_seconds` | histograms of batches of log entries, and of checkpoints |

  Counters begin at 0 when the store is opened.

  Counting takes a call less than a microsecond, and a scrape reads atomics: a store that is being closed, or has just
  crashed, is left out. Nothing here waits for a store.
  """

  alias Tank.Store.Cluster
  alias Tank.Store.{Counters, Formation, Native, Running, Status}

  @prefix "tank_store_"

  # {name, type, help, value of a status}
  @gauges [
    {"up", "1 if the store runs, 0 if it waits for its cluster", &__MODULE__.up/1},
    {"failed", "1 while the disk of the store fails", &__MODULE__.failed/1},
    {"leader", "1 if this member leads", &__MODULE__.leads/1},
    {"has_leader", "1 if this member knows a leader", &__MODULE__.has_leader/1},
    {"quorum", "1 if this member is in touch with a majority", &__MODULE__.quorum/1},
    {"readable", "1 if linearizable reads are answered from memory", &__MODULE__.readable/1},
    {"term", "the raft term", :term},
    {"revision", "the store's revision", :revision},
    {"applied_index", "index of the last applied log entry", :applied_index},
    {"last_log_index", "index of the last log entry", :last_log_index},
    {"entries", "entries of the store", :entries},
    {"value_bytes", "bytes of paths and values", :value_bytes},
    {"memory_bytes", "bytes of values in memory", :memory_bytes},
    {"disk_bytes", "bytes of all files", :disk_bytes},
    {"in_flight_writes", "writes that are not answered yet", :in_flight},
    {"members", "members of the cluster", &__MODULE__.member_count/1}
  ]

  @status_counters [
    {"log_entries_total", "log entries written", :log_entries},
    {"log_bytes_total", "bytes of log entries written", :log_bytes},
    {"malformed_frames_total", "messages that could not be decoded", :malformed_frames},
    {"foreign_frames_total", "messages for another member", :foreign_frames}
  ]

  @counters [
    {"leader_changes_total", "changes of the leader, as this member saw them", :leader_changes},
    {"quorum_losses_total", "losses of the quorum for more than a second", :quorum_losses},
    {"watches_lagged_total", "watches that ended since their process did not keep up", :watches_lagged}
  ]

  @histograms [
    {"sync_duration_seconds", "writing and syncing a batch of the log", :syncs},
    {"apply_duration_seconds", "applying a batch of log entries", :batches},
    {"checkpoint_duration_seconds", "writing a checkpoint", :checkpoints}
  ]

  @doc """
  The metrics of all stores of this node, in the text format of Prometheus (version 0.0.4).

      iex> {:ok, _revision} = Tank.Store.Tree.put(:tank, [:measured], 1)
      iex> Tank.Store.Metrics.prometheus() =~ ~r/^tank_store_up{store_id="[^"]+"} 1$/m
      true
  """
  @spec prometheus :: String.t()
  def prometheus do
    stores = Enum.flat_map(store_ids(), &read/1)

    [
      for({name, help, value} <- @gauges, do: family(name, "gauge", help, stores, &plain(value(&1.status, value)))),
      family("member_lag_entries", "gauge", "log entries that a member lacks", stores, &members(&1, :lag)),
      family("member_reachable", "gauge", "1 if a member answered the leader", stores, &members(&1, :reachable)),
      family("alarm", "gauge", "1 for each alarm that is raised", stores, &alarms/1),
      for(
        {name, help, key} <- @status_counters,
        do: family(name, "counter", help, stores, &plain(Map.fetch!(&1.status, key)))
      ),
      for({name, help, key} <- @counters, do: family(name, "counter", help, stores, &plain(&1.counters[key]))),
      family(
        "snapshots_received_total",
        "counter",
        "snapshots of other members",
        stores,
        &plain(&1.native[:snapshots_received])
      ),
      family("calls_total", "counter", "calls by their result", stores, &calls/1),
      family("call_duration_seconds", "histogram", "how long calls took", stores, &call_times/1),
      for({name, help, key} <- @histograms, do: family(name, "histogram", help, stores, &times(&1.native[key])))
    ]
    |> IO.iodata_to_binary()
  end

  @doc false
  def up(%Status{role: role}), do: role != :forming
  @doc false
  def failed(%Status{failure: failure}), do: failure != nil
  @doc false
  def leads(%Status{role: role}), do: role == :leader
  @doc false
  def has_leader(%Status{leader: leader}), do: leader != nil
  @doc false
  def quorum(%Status{quorum: quorum?}), do: quorum?
  @doc false
  def readable(%Status{readable: readable?}), do: readable?
  @doc false
  def member_count(%Status{members: members}), do: length(members)

  # -- What there is

  defp store_ids, do: Enum.uniq(Cluster.get_store_ids() ++ Formation.forming_ids())

  defp read(store_id) do
    case Cluster.status(store_id) do
      {:ok, status} -> [%{status: status, native: native(store_id), counters: Counters.read(store_id)}]
      {:error, _it_ends} -> []
    end
  end

  defp native(store_id) do
    case Running.fetch(store_id) do
      {:ok, store} -> Native.metrics(store)
      {:error, _reason} -> nil
    end
  end

  # -- Samples: {suffix of the name, labels, value}

  defp value(status, key) when is_atom(key), do: Map.fetch!(status, key)
  defp value(status, fun), do: fun.(status)

  defp plain(nil), do: []
  defp plain(value), do: [{"", [], value}]

  defp members(%{status: status}, key) do
    for %{node: node} = member <- status.members, node != node(), value = Map.get(member, key, nil), value != nil do
      {"", [member: node], value}
    end ++ unreachable(status, key)
  end

  # The comprehension above leaves out false.
  defp unreachable(status, :reachable),
    do: for(%{node: node, reachable: false} <- status.members, node != node(), do: {"", [member: node], false})

  defp unreachable(_status, _key), do: []

  # One alarm may be raised about several members.
  defp alarms(%{status: status}), do: for(name <- Enum.uniq(Keyword.keys(status.alarms)), do: {"", [alarm: name], 1})

  defp calls(%{counters: nil}), do: []

  defp calls(%{counters: counters}) do
    for kind <- [:write, :read],
        {result, count} <- counters[kind].results,
        do: {"", [kind: kind, result: result], count}
  end

  defp call_times(%{counters: nil}), do: []

  defp call_times(%{counters: counters}) do
    for kind <- [:write, :read],
        {suffix, labels, value} <- times({counters[kind].buckets, counters[kind].sum_us}),
        do: {suffix, [{:kind, kind} | labels], value}
  end

  defp times(nil), do: []

  defp times({buckets, sum_us}) do
    bounds = Enum.map(Native.histogram_bounds(), &(&1 / 1_000_000)) ++ ["+Inf"]
    counts = Enum.scan(buckets, &+/2)

    for({bound, count} <- Enum.zip(bounds, counts), do: {"_bucket", [le: bound], count}) ++
      [{"_sum", [], sum_us / 1_000_000}, {"_count", [], List.last(counts)}]
  end

  # -- Text

  defp family(name, type, help, stores, samples) do
    case for(store <- stores, sample <- samples.(store), do: sample(name, store.status.store_id, sample)) do
      [] -> []
      lines -> ["# HELP ", @prefix, name, " ", help, "\n# TYPE ", @prefix, name, " ", type, "\n" | lines]
    end
  end

  defp sample(name, store_id, {suffix, labels, value}) do
    labels = for {label, text} <- [{:store_id, store_id} | labels], do: [to_string(label), "=\"", escape(text), "\""]
    [@prefix, name, suffix, "{", Enum.intersperse(labels, ","), "} ", number(value), "\n"]
  end

  defp escape(text) do
    text |> to_string() |> String.replace("\\", "\\\\") |> String.replace("\"", "\\\"") |> String.replace("\n", "\\n")
  end

  defp number(true), do: "1"
  defp number(false), do: "0"
  defp number(nil), do: "0"
  defp number(value) when is_integer(value), do: Integer.to_string(value)
  defp number(value) when is_float(value), do: Float.to_string(value)
end
