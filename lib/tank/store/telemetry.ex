defmodule Tank.Store.Telemetry do
  @moduledoc """
  Events of the library `:telemetry`, if that is loaded. This library does not depend on it, and costs nothing without it.

      :telemetry.attach("slow writes", [:tank_store, :call, :stop], &MyApp.Slow.handle/4, nil)

  It is looked for when the application `:tank_store` starts, and whenever a store is opened.

  | event | measurements | metadata |
  |---|---|---|
  | `[:tank_store, :call, :stop]` | `duration` | `store_id`, `call`, `result` |
  | `[:tank_store, :store, :opened]` | `duration`, `entries`, `revision` | `store_id`, `again` |
  | `[:tank_store, :store, :closed]` | `duration` | `store_id` |
  | `[:tank_store, :store, :failed]` | | `store_id`, `reason` |
  | `[:tank_store, :cluster, :leader]` | `term` | `store_id`, `leader` |
  | `[:tank_store, :cluster, :quorum]` | | `store_id`, `quorum` |
  | `[:tank_store, :cluster, :members]` | `count` | `store_id`, `members`, `joined`, `left` |
  | `[:tank_store, :engine, :sync]` | `count`, `duration` | `store_id` |
  | `[:tank_store, :engine, :apply]` | `count`, `duration` | `store_id` |
  | `[:tank_store, :engine, :checkpoint]` | `count`, `duration` | `store_id` |
  | `[:tank_store, :snapshot, :received]` | `count` | `store_id` |
  | `[:tank_store, :watch, :lagged]` | `revisions` | `store_id`, `pattern` |
  | `[:tank_store, :backup, :stop]` | `duration` | `store_id`, `kind`, `result` |

    * Durations are in native time units, as everywhere with `:telemetry`: `System.convert_time_unit/3`.
    * A **call** is a write (`:put`, `:create`, `:update`, `:delete`, `:txn` and so on) or a read that had to ask the leader
      (`:read`). Reads from memory take less than an event would, and have none. `result` is `:ok`, or the reason of the error.
      The handler runs in the calling process.
    * **Engine** events come once a second, while something happens: `count` of what was done since the last one, and how
      long that took together. Syncs are those of the log, batches of log entries are applied, and checkpoints are written.
    * A watch has **lagged** when its process did not keep up, and it ended: by so many revisions.
    * The `kind` of a **backup** is `:create`, `:restore`, `:export`, `:import` or `:import_khepri`. A restore has no `store_id`.
    * `again` says whether the store was opened again after its disk had failed.
  """

  @compile {:no_warn_undefined, :telemetry}

  @doc false
  @spec detect :: :ok
  def detect, do: :persistent_term.put(__MODULE__, Code.ensure_loaded?(:telemetry))

  @doc false
  @spec on? :: boolean
  def on?, do: :persistent_term.get(__MODULE__, false)

  @doc false
  @spec execute([atom], map, map) :: :ok
  def execute(event, measurements, metadata) do
    if on?(), do: :telemetry.execute([:tank_store | event], measurements, metadata), else: :ok
  end
end
