defmodule Tank.Store.Options do
  @moduledoc false
  # The options of a store: their names, ranges, defaults and documentation.

  alias Tank.Store.{Identity, Reopening}

  @megabyte 1024 * 1024
  # More than any machine has. The sum of two still fits into the integers of the Rust library.
  @count 1..0x3FFF_FFFF_FFFF_FFFF
  # With less, the store would read from the disk all the time.
  @bytes @megabyte..0x3FFF_FFFF_FFFF_FFFF
  # An hour. A longer time is probably a mistake in the unit.
  @milliseconds 1..3_600_000

  @value_bytes_max 16 * @megabyte
  @txn_bytes_max 32 * @megabyte

  # {option, range, default, what it is}
  @schema [
    {:in_flight_max, @count, 50_000, "writes in flight at the same time; the store refuses more with `:overloaded`"},
    {:in_flight_bytes_max, @count, 256 * @megabyte, "bytes of values in flight at the same time"},
    {:value_bytes_max, @count, @value_bytes_max, "largest value, in bytes of external term format"},
    {:txn_bytes_max, @count, @txn_bytes_max,
     "largest command with several parts, such as a transaction: bytes of its paths and values together. The default is " <>
       "`:value_bytes_max` if that is larger"},
    {:txn_operations_max, 1..1_048_576, 1_024, "operations of a transaction; also its comparisons, and its reads"},
    {:path_component_bytes_max, 1..65_535, 255, "bytes of a component of a path that is written"},
    {:path_bytes_max, 1..65_535, 1_024, "bytes of a path that is written, all components together"},
    {:memory_bytes_max, @bytes, nil,
     "bytes of values in memory, encoded and decoded together; the store reads other values from disk. Paths and revisions " <>
       "are always in memory, in addition to this. Without this option all values stay in memory"},
    {:history_revisions, @count, 100_000,
     "revisions of history to keep, for watches that resume and for reads of the past. Their values stay on the disk, " <>
       "whatever their size: keep fewer revisions of large values"},
    {:history_age_ms, @count, :unlimited, "maximum age of the history, in milliseconds"},
    {:watch_buffer_bytes_max, @count, 32 * @megabyte,
     "bytes of the newest changes in memory; a watch that lags further reads from disk"},
    {:heartbeat_interval_ms, @milliseconds, 50, "milliseconds between two heartbeats of the leader"},
    {:election_timeout_ms, @milliseconds, 150,
     "milliseconds; a member becomes a candidate if it receives nothing from the leader for two to three times this time. " <>
       "It waits longer if round trips are long or the leader's messages arrive irregularly. After the connection to the " <>
       "leader is lost, it waits for 4/3 of this time"},
    {:snapshot_interval_entries, @count, 20_000,
     "log entries between two snapshots; the log before a snapshot may be purged"},
    {:log_retention_entries, @count, 10_000, "log entries to keep after a snapshot, for members that lag"},
    {:purge_batch, @count, 5_000, "log entries to purge at a time"},
    {:segment_bytes, @count, 16 * @megabyte,
     "size of a log file, in bytes; a file whose entries are all purged is removed, or reused: at most two files are kept " <>
       "for that"},
    {:checkpoint_bytes, @count, 64 * @megabyte,
     "bytes of applied log entries between two checkpoints, which write the state to disk; a start applies up to twice as " <>
       "many bytes of the log again"}
  ]

  @names [:create | Enum.map(@schema, &elem(&1, 0))]

  @doc "The names of the options."
  @spec names :: [atom]
  def names, do: @names

  @doc "A table of the options, for documentation."
  @spec docs :: String.t()
  def docs do
    create =
      "| `:create` | true, or the application environment's | whether a store may be made in a directory that is " <>
        "missing or empty. `false` on a machine whose mount may be missing: see `Tank.Store.Cluster.start/3` |\n"

    rows = for {name, _range, default, text} <- @schema, do: "| `:#{name}` | #{default || "none"} | #{text} |\n"
    Enum.join(["| option | default | |\n|---|---|---|\n", create | rows])
  end

  @doc "Checks options, besides those in `others`, which the caller checks. Raises `ArgumentError` for what is wrong."
  @spec validate!(keyword | map, [atom]) :: map
  def validate!(options, others) do
    options
    |> Enum.reject(fn pair -> match?({name, _value} when is_atom(name), pair) and elem(pair, 0) in others end)
    |> Map.new(&check!(&1, others))
  end

  @doc """
  Options of a call, with the defaults of those that are not given. Raises `ArgumentError` for an unknown one, and names the
  nearest that there is.
  """
  @spec with_defaults!(keyword, [atom | {atom, term}]) :: keyword
  def with_defaults!(opts, known) when is_list(opts) do
    case Keyword.validate(opts, known) do
      {:ok, opts} -> opts
      {:error, [unknown | _more]} -> unknown!(unknown, Enum.map(known, &name/1))
    end
  end

  def with_defaults!(other, _known), do: no_options!(other)

  @doc "Raises `ArgumentError` for an option that is none of `names`."
  @spec known!(keyword, [atom]) :: :ok
  def known!(opts, names) do
    with_defaults!(opts, names)
    :ok
  end

  @doc """
  The store id that options give: `:store_id`, or `:store`, as specifications of other libraries call it. Without either it is
  `default`.
  """
  @spec store_id!(keyword | map, atom) :: atom
  def store_id!(opts, default \\ nil) do
    case Access.get(opts, :store_id, Access.get(opts, :store, default)) do
      id when is_atom(id) and id not in [nil, true, false] -> id
      other -> raise ArgumentError, "option :store_id must be an atom, got: #{inspect(other)}"
    end
  end

  @doc "A timeout: milliseconds from 0 on, or `:infinity`."
  @spec timeout!(term) :: timeout
  def timeout!(:infinity), do: :infinity
  def timeout!(timeout) when is_integer(timeout) and timeout >= 0, do: timeout

  def timeout!(other),
    do: raise(ArgumentError, "a timeout must be milliseconds or :infinity, got: #{inspect(other)}")

  @doc "What the Rust library takes."
  @spec to_native(Tank.Store.Server.config()) :: map
  def to_native(config) do
    config.options
    |> Map.delete(:create)
    |> Map.merge(opening(config))
    |> Map.put_new(:txn_bytes_max, max(@txn_bytes_max, Map.get(config.options, :value_bytes_max, @value_bytes_max)))
    |> Map.merge(%{
      dir: config.data_dir,
      store_id: Atom.to_string(config.store_id),
      node: Atom.to_string(node())
    })
  end

  @doc "Whether a store may be made in its directory, should that be missing or empty: not for one that was open before."
  @spec creates?(Tank.Store.Server.config()) :: boolean
  def creates?(config),
    do: Identity.expected(config) == nil and create?(config.options) and not Reopening.ran?(config.reopening)

  # One that was open before must be what it was.
  defp opening(config) do
    case Identity.expected(config) do
      nil -> %{create: creates?(config)}
      expected -> %{again: expected}
    end
  end

  defp create?(options) do
    case Map.get_lazy(options, :create, fn -> Application.get_env(:tank_store, :create, true) end) do
      create? when is_boolean(create?) -> create?
      other -> raise ArgumentError, "config :tank_store, :create must be true or false, got: #{inspect(other)}"
    end
  end

  defp check!({:create, value} = pair, _others) when is_boolean(value), do: pair

  defp check!({:create, value}, _others),
    do: raise(ArgumentError, "option :create must be true or false, got: #{inspect(value)}")

  for {name, %Range{first: first, last: last}, _default, _text} <- @schema do
    defp check!({unquote(name), value} = pair, _others) when value in unquote(first)..unquote(last), do: pair

    defp check!({unquote(name), value}, _others) do
      raise ArgumentError,
            "option #{inspect(unquote(name))} must be an integer from #{unquote(first)} to #{unquote(last)}, " <>
              "got: #{inspect(value)}"
    end
  end

  defp check!({name, _value}, others) when is_atom(name), do: unknown!(name, @names ++ others)
  defp check!(other, _others), do: no_options!(other)

  defp name({name, _default}), do: name
  defp name(name), do: name

  defp unknown!(name, known), do: raise(ArgumentError, "unknown option #{inspect(name)}#{suggestion(name, known)}")

  defp no_options!(other), do: raise(ArgumentError, "options are a keyword list, got: #{inspect(other)}")

  defp suggestion(name, known) do
    distance = &String.jaro_distance(Atom.to_string(name), Atom.to_string(&1))
    nearest = Enum.max_by(known, distance)

    if distance.(nearest) > 0.7,
      do: ", did you mean #{inspect(nearest)}?",
      else: "; the options are #{Enum.map_join(known, ", ", &inspect/1)}"
  end
end
