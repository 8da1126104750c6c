defmodule Tank.Store.AlarmWatch do
  @moduledoc "Notes the alarms that a store's node logs, also those that are over before the status could show them."

  @doc "Begins to listen, on this node."
  def start(store_id) do
    Process.register(spawn(fn -> collect(MapSet.new()) end), __MODULE__)
    :logger.add_handler(__MODULE__, __MODULE__, %{level: :error, config: "store #{inspect(store_id)}: alarm "})
  end

  @doc "Ends that; the names of all alarms that were raised."
  def stop do
    :ok = :logger.remove_handler(__MODULE__)
    ref = make_ref()
    send(__MODULE__, {:stop, self(), ref})
    receive do: ({^ref, names} -> names)
  end

  @doc false
  # Called by Erlang's logger, in the process that logs.
  def log(%{msg: {:string, text}}, %{config: beginning}) do
    with [_before, rest] <- String.split(IO.chardata_to_string(text), beginning, parts: 2),
         [name, _message] <- String.split(rest, ":", parts: 2),
         do: send(__MODULE__, {:raised, name})
  end

  def log(_event, _config), do: :ok

  defp collect(names) do
    receive do
      {:raised, name} -> names |> MapSet.put(name) |> collect()
      {:stop, pid, ref} -> send(pid, {ref, Enum.map(names, &String.to_existing_atom/1)})
    end
  end
end
