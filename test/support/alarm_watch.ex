defmodule Tank.Store.AlarmWatch do
  @moduledoc "Looks at a store's alarms again and again, to see those that are soon over."

  alias Tank.Store.Cluster

  @look_every_ms 10

  @doc "Begins to look, on this node."
  def start(store_id) do
    spawn(fn ->
      Process.register(self(), __MODULE__)
      look(store_id, MapSet.new())
    end)

    :ok
  end

  @doc "Ends that; the names of all alarms that were there."
  def stop do
    ref = make_ref()
    send(__MODULE__, {:stop, self(), ref})
    receive do: ({^ref, names} -> names)
  end

  defp look(store_id, names) do
    names =
      case Cluster.status(store_id) do
        {:ok, status} -> Enum.into(status.alarms, names, &elem(&1, 0))
        {:error, _reason} -> names
      end

    receive do
      {:stop, pid, ref} -> send(pid, {ref, MapSet.to_list(names)})
    after
      @look_every_ms -> look(store_id, names)
    end
  end
end
