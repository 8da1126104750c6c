defmodule Tank.Bench.Comparison.Case do
  @moduledoc """
  Something to do with two stores or more, in turns.

  A case has stages. A stage fills each store once and then goes through its points, again in each round; what a point
  measures are metrics. `prepare` and `measure` run in the VM of a store; where a store cannot do it they say why.
  """

  @typedoc "What tells a stage or a point from others: `%{pods: 1000, readers: 4}`."
  @type params :: %{atom => term}

  @typedoc "With `warm_up`, a first round does not count."
  @type stage :: %{sides: [side], setup: params, points: [params], warm_up: boolean}

  @typedoc "The name a side has in tables, and its store."
  @type side :: {:tank | :khepri | :api | :ets | :disk | :file | :message | :etcd, module}

  @typedoc "Metrics; or why there are none."
  @type found :: %{atom => number} | {:skip, String.t()}

  @doc "What there is to do."
  @callback stages(Tank.Bench.Comparison.settings()) :: [stage]

  @doc "Starts and fills a store in an empty directory."
  @callback prepare(store :: module, dir :: Path.t(), params) :: :ok | {:skip, String.t()}

  @doc "One measurement of a point, of `seconds` if it is a matter of time; the params are those of stage and point."
  @callback measure(store :: module, dir :: Path.t(), params, seconds :: float) :: found

  @doc "The metrics in the order of the table, their units, and whether more or less is better."
  @callback metrics :: [{atom, unit :: String.t(), :more | :less}]

  @doc "The case's name in tables."
  @callback title :: String.t()
end
