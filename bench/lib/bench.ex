defmodule Tank.Bench do
  @moduledoc """
  The harness: takes the arguments of `bench/run`, runs the workloads, prints and keeps what they found.

  A workload is a module with `run/1`: it takes the settings and gives a `Tank.Bench.Report`. It knows the stores it
  measures only by the behaviour `Tank.Bench.Store`, so that another one is a module more.
  """

  alias Tank.Bench.{Machine, Report, Workload}

  @workloads [
    put: Workload.Put,
    get: Workload.Get,
    list: Workload.List,
    mixed: Workload.Mixed,
    start: Workload.Start,
    cluster: Workload.Cluster,
    large: Workload.Large
  ]

  @type settings :: %{
          quick?: boolean,
          dir: Path.t(),
          rounds: pos_integer,
          seconds: float,
          store: module,
          out: Path.t(),
          entries: pos_integer | nil,
          memory_mb: pos_integer | nil
        }

  @switches [
    quick: :boolean,
    dir: :string,
    rounds: :integer,
    seconds: :float,
    store: :string,
    out: :string,
    entries: :integer,
    memory_mb: :integer
  ]

  @doc "Runs the workloads that `args` name, or all; see bench/run."
  @spec main([String.t()]) :: :ok
  def main(args) do
    {options, names} = OptionParser.parse!(args, strict: @switches)
    settings = settings(options)
    workloads = selected(names)
    File.mkdir_p!(settings.out)

    for {name, workload} <- workloads do
      before = Machine.describe(settings)
      Machine.print(before)
      report = in_scratch(settings, fn settings -> workload.run(settings) end)
      Report.print(report)
      path = Path.join(settings.out, "#{name}.json")
      Report.write!(report, name, before, path)
      IO.puts("#{path}\n")
    end

    :ok
  end

  defp settings(options) do
    quick? = Keyword.get(options, :quick, false)

    %{
      quick?: quick?,
      dir: Path.expand(Keyword.get(options, :dir, "bench/tmp")),
      rounds: Keyword.get(options, :rounds, if(quick?, do: 2, else: 7)),
      seconds: Keyword.get(options, :seconds, if(quick?, do: 0.1, else: 1.5)),
      store: store!(Keyword.get(options, :store, "tank")),
      out: Path.expand(Keyword.get(options, :out, "bench/results")),
      entries: options[:entries],
      memory_mb: options[:memory_mb]
    }
  end

  defp store!(name) do
    module = Module.concat(Tank.Bench.Store, Macro.camelize(name))
    if Code.ensure_loaded?(module), do: module, else: raise(ArgumentError, "no store #{name} in bench/stores")
  end

  defp selected([]), do: @workloads

  defp selected(names) do
    for name <- names do
      Enum.find(@workloads, fn {known, _module} -> Atom.to_string(known) == name end) ||
        raise ArgumentError, "no workload #{name}: there are #{Enum.map_join(@workloads, ", ", &elem(&1, 0))}"
    end
  end

  # Each workload gets an empty directory, which goes afterwards: a million pods take gigabytes.
  defp in_scratch(settings, run) do
    dir = Path.join(settings.dir, "run-#{System.os_time()}")
    File.mkdir_p!(dir)

    try do
      run.(%{settings | dir: dir})
    after
      File.rm_rf!(dir)
    end
  end
end
