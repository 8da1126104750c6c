defmodule Tank.Store.Options do
  @moduledoc false
  # The options of a store: what there is, what each may be, and what it is when it is not given.

  @megabyte 1024 * 1024

  # {option, kind, default, what it is}
  @schema [
    {:in_flight_max, :positive, 50_000, "writes that may be in flight; more are refused with `:overloaded`"},
    {:in_flight_bytes_max, :positive, 256 * @megabyte, "bytes of values that they may hold"},
    {:value_bytes_max, :positive, 16 * @megabyte, "the largest value, in bytes of its external term format"},
    {:heartbeat_ms, :positive, 50, "milliseconds between two heartbeats of a leader"},
    {:election_ms, :positive, 150,
     "milliseconds; a member stands for election when it hears nothing from a leader for three to four times as long, " <>
       "or for twice as long once the connection is lost"},
    {:snapshot_after, :positive, 20_000, "log entries after which older ones may be dropped"},
    {:log_keep, :positive, 10_000, "dropped log entries that are kept for members that lag"},
    {:purge_batch, :positive, 5_000, "log entries dropped at a time"}
  ]

  @names Enum.map(@schema, &elem(&1, 0))

  @doc "A table of the options, for documentation."
  @spec docs :: String.t()
  def docs do
    rows = for {name, _kind, default, text} <- @schema, do: "| `:#{name}` | #{default} | #{text} |\n"
    Enum.join(["| option | default | |\n|---|---|---|\n" | rows])
  end

  @doc "Checks options, besides those in `others`, which the caller checks. Raises `ArgumentError` for what is wrong."
  @spec validate!(keyword | map, [atom]) :: map
  def validate!(options, others) do
    options
    |> Enum.reject(fn pair -> match?({name, _value} when is_atom(name), pair) and elem(pair, 0) in others end)
    |> Map.new(&check!(&1, others))
  end

  @doc "What the Rust library takes."
  @spec to_native(Tank.Store.Server.config()) :: map
  def to_native(config) do
    Map.merge(config.options, %{
      dir: config.data_dir,
      store_id: Atom.to_string(config.store_id),
      node: Atom.to_string(node())
    })
  end

  for {name, :positive, _default, _text} <- @schema do
    defp check!({unquote(name), value} = pair, _others) when is_integer(value) and value > 0, do: pair

    defp check!({unquote(name), value}, _others),
      do: raise(ArgumentError, "option #{inspect(unquote(name))} must be a positive integer, got: #{inspect(value)}")
  end

  defp check!({name, _value}, others) when is_atom(name) do
    raise ArgumentError, "unknown option #{inspect(name)}#{suggestion(name, @names ++ others)}"
  end

  defp check!(other, _others), do: raise(ArgumentError, "options are a keyword list, got: #{inspect(other)}")

  defp suggestion(name, known) do
    distance = &String.jaro_distance(Atom.to_string(name), Atom.to_string(&1))
    nearest = Enum.max_by(known, distance)

    if distance.(nearest) > 0.7,
      do: ", did you mean #{inspect(nearest)}?",
      else: "; the options are #{Enum.map_join(known, ", ", &inspect/1)}"
  end
end
