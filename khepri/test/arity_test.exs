defmodule Khepri.ArityTest do
  # Which functions there are, with all their arities.
  use ExUnit.Case, async: true

  @reading [get: 1, get_many: 1, exists: 1, has_data: 1, is_sproc: 1, count: 1, get_or: 2, get_many_or: 2]
  @writing [put: 2, put_many: 2, create: 2, update: 2, compare_and_swap: 3]
  @deleting [delete: 1, delete_many: 1, clear_payload: 1, clear_many_payloads: 1]
  @folding [fold: 3, foreach: 2, map: 2, filter: 2]

  @expected %{
    khepri:
      for({name, n} <- @reading ++ @writing ++ @deleting ++ @folding, more <- 0..2, do: {name, n + more}) ++
        for({name, n} <- @reading ++ @writing ++ @deleting, more <- 0..2, do: {:"#{name}!", n + more}) ++
        [start: 0, start: 1, start: 2, start: 3, reset: 0, reset: 1, reset: 2, stop: 0, stop: 1, get_store_ids: 0] ++
        [is_empty: 0, is_empty: 1, is_empty: 2, run_sproc: 2, run_sproc: 3, run_sproc: 4] ++
        [register_trigger: 3, register_trigger: 4, register_trigger: 5] ++
        [register_projection: 2, register_projection: 3, register_projection: 4] ++
        [unregister_projections: 1, unregister_projections: 2, unregister_projections: 3] ++
        [has_projection: 1, has_projection: 2, has_projection: 3] ++
        [transaction: 1, transaction: 2, transaction: 3, transaction: 4, transaction: 5] ++
        [fence: 0, fence: 1, fence: 2, handle_async_ret: 1, handle_async_ret: 2] ++
        [export: 2, export: 3, export: 4, import: 2, import: 3, info: 0, info: 1, info: 2],
    khepri_adv:
      for({name, n} <- [get: 1, get_many: 1] ++ @writing ++ @deleting, more <- 0..2, do: {name, n + more}) ++
        [unregister_projections: 1, unregister_projections: 2, unregister_projections: 3],
    khepri_tx:
      for({name, n} <- @reading ++ @writing ++ @deleting ++ @folding, more <- 0..1, do: {name, n + more}) ++
        [is_empty: 0, is_empty: 1, abort: 1, is_transaction: 0, does_api_comply_with: 1],
    khepri_tx_adv:
      for({name, n} <- [get: 1, get_many: 1] ++ @writing ++ @deleting, more <- 0..1, do: {name, n + more}) ++
        [should_process_function: 4],
    khepri_cluster:
      [start: 0, start: 1, start: 2, start: 3, join: 1, join: 2, join: 3, reset: 0, reset: 1, reset: 2, stop: 0] ++
        [stop: 1, members: 0, members: 1, members: 2, nodes: 0, nodes: 1, nodes: 2, wait_for_leader: 0] ++
        [wait_for_leader: 1, wait_for_leader: 2, wait_for_effective_machine_version: 2] ++
        [wait_for_effective_machine_version: 3, wait_for_effective_behaviour: 2, wait_for_effective_behaviour: 3] ++
        [get_default_ra_system_or_data_dir: 0, get_default_store_id: 0, get_store_ids: 0, is_store_running: 1] ++
        [node_to_member: 2, this_member: 1],
    khepri_path:
      [from_string: 1, from_binary: 1, to_string: 1, to_binary: 1, sigil_p: 2, sigil_P: 2, is_valid: 1] ++
        [ensure_is_valid: 1, combine_with_conditions: 2, abspath: 2, realpath: 1, targets_specific_node: 1] ++
        [component_targets_specific_node: 1, pattern_includes_root_node: 1, compile: 1],
    khepri_payload: [none: 0, data: 1, sproc: 1, wrap: 1],
    khepri_projection: [new: 2, new: 3, name: 1],
    khepri_evf: [tree: 1, tree: 2, wrap: 1, get_priority: 1, set_priority: 2],
    khepri_app: [get_default_timeout: 0],
    khepri_machine: [version: 0],
    khepri_utils: [start_timeout_window: 1, end_timeout_window: 2]
  }

  for {module, expected} <- @expected do
    test "#{module} has the functions that it should" do
      there = unquote(module).module_info(:exports)
      assert unquote(expected) -- there == []
    end
  end

  test "Tank.Khepri has the functions of khepri" do
    assert Tank.Khepri.__info__(:functions) -- :khepri.module_info(:exports) == []
  end
end
