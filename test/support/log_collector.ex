defmodule Tank.Store.LogCollector do
  @moduledoc "Keeps what this node logs, with its metadata: a handler of `:logger`."

  @table __MODULE__

  @doc "Begins to collect, of every level."
  def start do
    # Of a process that lives as long as the node.
    spawn(fn ->
      :ets.new(@table, [:named_table, :public, :ordered_set])
      Process.sleep(:infinity)
    end)

    await_table()
    Logger.configure(level: :debug)
    :logger.add_handler(@table, __MODULE__, %{})
  end

  defp await_table, do: if(:ets.whereis(@table) == :undefined, do: receive(after: (1 -> await_table())), else: :ok)

  @doc "The lines so far: `{level, text, metadata}`."
  def lines, do: for({_n, line} <- :ets.tab2list(@table), do: line)

  @doc false
  def log(%{level: level, msg: message, meta: meta}, _config) do
    meta = Map.take(meta, [:store_id, :member, :target])
    :ets.insert(@table, {System.unique_integer([:monotonic]), {level, text(message), meta}})
  end

  defp text({:string, text}), do: IO.chardata_to_string(text)
  defp text({:report, report}), do: inspect(report)
  defp text({format, arguments}), do: format |> :io_lib.format(arguments) |> IO.chardata_to_string()
end
