defmodule Tank.Store.Registry.Feed do
  @moduledoc false
  # How the stores of this library get into the registry. A store never waits for it: one that the registry did not
  # hear of, since it did not run, is found by `stores/0` when it does.

  alias Tank.Store.{Members, Server}
  alias Tank.Store.Registry.Row

  @doc "The calling server has opened its store."
  @spec opened(atom) :: :ok
  def opened(store_id), do: GenServer.cast(Tank.Store.Registry, {:opened, store_id, self()})

  @doc "The calling server begins to close its store."
  @spec closing(atom) :: :ok
  def closing(store_id), do: GenServer.cast(Tank.Store.Registry, {:closing, store_id, self()})

  @doc "The stores that are open on this node, with their servers and directories."
  @spec stores :: [{atom, pid, String.t()}]
  # One that was killed is listed for a moment longer.
  def stores, do: for({_id, pid, _dir} = store <- Server.running(), Process.alive?(pid), do: store)

  @doc "A store that is open on this node."
  @spec store(atom) :: {atom, pid, String.t()} | nil
  def store(store_id), do: List.keyfind(stores(), store_id, 0)

  @doc "The row of such a store. `old` is the one that it has."
  @spec row({atom, pid, String.t()}, Row.t() | nil) :: Row.t()
  def row({store_id, _pid, dir}, old) do
    row = Row.new(store_id, data_dir: dir, mode: mode(store_id, old))
    if old, do: %{row | registered_at: old.registered_at}, else: row
  end

  # While a store is being opened anew nobody can be asked.
  defp mode(store_id, old) do
    case Members.local(store_id) do
      {:ok, cluster} -> if Members.others(cluster) == [], do: :single, else: :cluster
      {:error, _reason} -> if old, do: old.mode, else: :single
    end
  end
end
