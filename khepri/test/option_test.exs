defmodule Khepri.OptionTest do
  # The options of queries and commands, and the application's environment.
  use Khepri.StoreCase, async: false

  @reading [
    get: [[:a]],
    get_or: [[:a], 0],
    get_many: ["**"],
    get_many_or: ["**", 0],
    exists: [[:a]],
    has_data: [[:a]],
    is_sproc: [[:a]],
    count: ["**"]
  ]
  @writing [
    put: [[:a], 1],
    put_many: [[:a], 1],
    update: [[:a], 1],
    compare_and_swap: [[:a], :_, 1],
    clear_payload: [[:a]],
    clear_many_payloads: [[:a]],
    delete: [[:b]],
    delete_many: [[:b]]
  ]

  test "the options that each function has", %{store: s} do
    :ok = :khepri.put(s, [:a], 1)
    call = fn name, args, opts -> apply(:khepri, name, [s | args] ++ [opts]) end
    both = %{timeout: 5_000, props_to_return: [:payload], include_root_props: false, return_indirect_deletes: true}

    for {name, args} <- @reading, opts <- [%{favor: :consistency}, %{favor: :low_latency}, both] do
      refute match?({:error, _}, call.(name, args, opts)), "#{name} with #{inspect(opts)}"
    end

    for {name, args} <- @writing, opts <- [%{reply_from: :local}, %{reply_from: :leader}, %{async: false}, both] do
      assert call.(name, args, opts) == :ok, "#{name} with #{inspect(opts)}"
    end

    assert call.(:put, [[:a], 1], %{reply_from: {:member, {s, node()}}}) == :ok

    for {name, args} <- @reading,
        option <- [:async, :reply_from, :keep_while, :nonsense],
        do: assert(catch_error(call.(name, args, %{option => true})) == :function_clause)

    for {name, args} <- @writing,
        option <- [:favor, :condition, :protect_against_dups],
        do: assert(catch_error(call.(name, args, %{option => true})) == :function_clause)

    for {name, args} <- @writing,
        name in [:delete, :delete_many],
        do: assert(catch_error(call.(name, args, %{keep_while: %{}})) == :function_clause)
  end

  test "transactions take both kinds, and drop what does not fit", %{store: s} do
    for mode <- [:ro, :rw, :auto],
        opts <- [%{favor: :consistency}, %{reply_from: :local}, %{protect_against_dups: true}],
        do: assert(:khepri.transaction(s, fn -> :khepri_tx.exists([:a]) end, mode, opts) == {:ok, false})
  end

  test "a read waits for what its condition names", %{store: s} do
    assert :khepri.exists(s, [:a], %{condition: {:applied, {0, 1}}}) == false
    assert :khepri.exists(s, [:a], %{condition: {:applied, {0, 1}}, favor: :consistency}) == false
    far = %{condition: {:applied, {1_000_000_000, 1}}, timeout: 50}
    assert :khepri.exists(s, [:a], far) == {:error, :timeout}
  end

  test "a wildcard at the root gives the root too, on request", %{store: s} do
    :ok = :khepri.put(s, [:a], 1)
    for pattern <- ["*", "**"], do: assert({:ok, 1} == :khepri.count(s, pattern))
    for pattern <- ["*", "**"], do: assert({:ok, 2} == :khepri.count(s, pattern, %{include_root_props: true}))
    assert :khepri_path.pattern_includes_root_node([]) and not :khepri_path.pattern_includes_root_node([:a])
  end

  test "functions for many take one node only on request", %{store: s} do
    error = {:khepri_ex, :possibly_matching_many_nodes_denied, %{path: [if_name_matches()]}}
    assert catch_error(:khepri.get_many(s, "*", %{expect_specific_node: true})) == error
    assert :khepri.count(s, "*", %{expect_specific_node: true}) == {:ok, 0}
  end

  test "what keep_while deletes is in the answer unless that is switched off", %{store: s} do
    for {option, expected} <- [{true, [[:kept], [:owner]]}, {false, [[:owner]]}] do
      :ok = :khepri.put(s, [:owner], 1)
      :ok = :khepri.put(s, [:kept], 1, %{keep_while: %{[:owner] => if_node_exists()}})
      {:ok, gone} = :khepri_adv.delete(s, [:owner], %{return_indirect_deletes: option})
      assert gone |> Map.keys() |> Enum.sort() == expected
      assert :khepri.exists(s, [:kept]) == false
    end
  end

  test "the environment, and what it must not hold", %{store: s} do
    on_exit(fn ->
      for key <- [:default_timeout, :default_store_id, :default_ra_system], do: Application.delete_env(:khepri, key)
    end)

    assert :khepri_app.get_default_timeout() == 30_000
    assert :khepri_cluster.get_default_store_id() == :khepri
    assert to_string(:khepri_cluster.get_default_ra_system_or_data_dir()) == "khepri##{node()}"

    Application.put_env(:khepri, :default_store_id, s)
    assert :khepri.put([:by_default], 1) == :ok
    assert :khepri.get([:by_default]) == {:ok, 1}
    assert :khepri.get!([:by_default], %{favor: :consistency}) == 1
    assert :khepri.delete("/:by_default") == :ok
    assert :khepri.is_empty() and :khepri.is_empty(%{}) and :khepri.fence() == :ok

    for register <- [
          &:khepri.register_trigger(:t, &1, [:p]),
          &:khepri.register_trigger(:t, &1, [:p], %{timeout: 5_000})
        ],
        do: assert(register.([:a]) == :ok)

    projection = :khepri_projection.new(:"by_default_#{s}", :copy)
    assert :khepri.register_projection([:a], projection, %{timeout: 5_000}) == :ok
    assert :khepri.has_projection(:"by_default_#{s}") and :khepri.has_projection(:"by_default_#{s}", %{})
    assert :khepri.unregister_projections([:"by_default_#{s}"]) == :ok
    assert :khepri.transaction(fn -> :khepri_tx.exists([:a]) end, :ro) == {:ok, false}
    assert :khepri_cluster.nodes() == {:ok, [node()]}
    assert :khepri_cluster.wait_for_leader() == :ok

    for {key, value, error, get} <- [
          {:default_timeout, :soon, :invalid_default_timeout_value, &:khepri_app.get_default_timeout/0},
          {:default_store_id, "id", :invalid_default_store_id_value, &:khepri_cluster.get_default_store_id/0},
          {:default_ra_system, 1, :invalid_default_ra_system_value,
           &:khepri_cluster.get_default_ra_system_or_data_dir/0}
        ] do
      Application.put_env(:khepri, key, value)
      assert catch_error(get.()) == {:khepri_ex, error, %{key => value}}
    end
  end

  test "windows of time", %{store: _s} do
    assert :khepri_utils.end_timeout_window(:infinity, :khepri_utils.start_timeout_window(:infinity)) == :infinity
    window = :khepri_utils.start_timeout_window(1_000)
    assert :khepri_utils.end_timeout_window(1_000, window) in 0..1_000
    assert :khepri_utils.end_timeout_window(0, window) == 0
    assert :khepri_machine.version() == 3
  end
end
