defmodule Tank.Bench.Store.KhepriProjected do
  @moduledoc """
  Khepri with a projection of the pods: an ETS table by name that it keeps current, for local reads and lists. Each
  write costs a little more for it.
  """

  @behaviour Tank.Bench.Store

  alias Tank.Bench.Store.Khepri

  @impl true
  defdelegate version, to: Khepri

  @impl true
  def start(dir) do
    :ok = Khepri.start(dir)
    Khepri.project()
  end

  @impl true
  defdelegate stop, to: Khepri

  @impl true
  defdelegate put(pod), to: Khepri

  @impl true
  def reads, do: Khepri.reads() ++ [{"lookup in a projection", &Khepri.lookup/1}]

  @impl true
  def lists, do: [{"tab2list of a projection", &Khepri.tab2list/0} | Khepri.lists()]

  @impl true
  defdelegate syncs, to: Khepri
end
