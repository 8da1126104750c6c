defmodule Tank.Bench.Comparison.Cases.Import do
  @moduledoc """
  An empty store takes over 100,000 pods from a file as `khepri:export/3` writes it: the way from one to the other. Each
  time in a VM of its own, whose start is not in the time.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{FreshVm, Pods, Store}

  @impl true
  def title, do: "Importing"

  @impl true
  def metrics, do: [{:took, "s", :less}]

  @impl true
  def stages(settings) do
    pods = if settings.quick?, do: 100, else: 100_000
    [%{sides: [tank: Store.Tank, khepri: Store.Khepri], setup: %{pods: pods}, points: [%{}], warm_up: false}]
  end

  @impl true
  def prepare(_store, dir, %{pods: pods}) do
    lines =
      for i <- 1..pods do
        name = Pods.name(i)
        :io_lib.format(~c"{put,~0p,{p_data,~0p},\#{}}.~n", [[:tank, :pods, name], Pods.pod(name)])
      end

    File.mkdir_p!(dir)
    File.write!(file(dir), lines)
  end

  @impl true
  def measure(store, dir, %{pods: pods}, _seconds) do
    fresh = Path.join(dir, "import-#{System.unique_integer([:positive])}")
    {:ok, seconds} = FreshVm.call(__MODULE__, :import, [store, fresh, file(dir), Pods.name(pods)])
    File.rm_rf!(fresh)
    %{took: seconds}
  end

  @doc "Runs in a VM of its own: the seconds that it took."
  @spec import(module, Path.t(), Path.t(), String.t()) :: float
  def import(store, dir, file, last) do
    :ok = store.start(dir)
    begin = System.monotonic_time(:microsecond)
    :ok = store.import(file)
    true = store.holds?(last)
    (System.monotonic_time(:microsecond) - begin) / 1.0e6
  end

  defp file(dir), do: Path.join(dir, "pods.export")
end
