defmodule Khepri.ConditionTest do
  # Which nodes each condition selects; and the answers of functions for one node when a condition is not met.
  use Khepri.StoreCase, async: true

  setup %{store: s} do
    if Process.whereis(s) do
      :ok = :khepri.put(s, [:data], %{size: 5})
      :ok = :khepri.put(s, [:procedure], fn -> :ok end)
      :ok = :khepri.put(s, [:empty], :khepri_payload.none())
      :ok = :khepri.put(s, ["way", "child"], 1)
      :ok = :khepri.put(s, ["way", "child"], 2)
    end

    :ok
  end

  defp names(s, condition) do
    {:ok, found} = :khepri.get_many(s, [condition])
    found |> Map.keys() |> Enum.map(&List.last/1) |> Enum.sort()
  end

  for {condition, expected} <- [
        {quote(do: if_name_matches()), [:data, :empty, :procedure, "way"]},
        {quote(do: if_name_matches(regex: "a")), [:data, "way"]},
        {quote(do: if_name_matches(regex: "^data$")), [:data]},
        {quote(do: if_name_matches(regex: "(")), []},
        {quote(do: if_path_matches()), [:data, :empty, :procedure, "child", "way"]},
        {quote(do: if_path_matches(regex: "^c")), ["child"]},
        {quote(do: if_has_payload()), [:data, :procedure]},
        {quote(do: if_has_payload(has_payload: false)), [:empty, "way"]},
        {quote(do: if_has_data()), [:data]},
        {quote(do: if_has_data(has_data: false)), [:empty, :procedure, "way"]},
        {quote(do: if_has_sproc()), [:procedure]},
        {quote(do: if_has_sproc(has_sproc: false)), [:data, :empty, "way"]},
        {quote(do: if_data_matches(pattern: %{size: 5})), [:data]},
        {quote(do: if_data_matches(pattern: %{size: 6})), []},
        {quote(do: if_data_matches(pattern: %{size: :"$1"}, conditions: [{:>, :"$1", 4}])), [:data]},
        {quote(do: if_data_matches(pattern: %{size: :"$1"}, conditions: [{:>, :"$1", 5}])), []},
        {quote(do: if_node_exists()), [:data, :empty, :procedure, "way"]},
        {quote(do: if_node_exists(exists: false)), []},
        {quote(do: if_payload_version(version: 1)), [:data, :empty, :procedure, "way"]},
        {quote(do: if_payload_version(version: {:gt, 1})), []},
        {quote(do: if_child_list_version(version: {:ge, 2})), []},
        {quote(do: if_child_list_version(version: {:le, 1})), [:data, :empty, :procedure, "way"]},
        {quote(do: if_child_list_length(count: 1)), ["way"]},
        {quote(do: if_child_list_length(count: {:ne, 1})), [:data, :empty, :procedure]},
        {quote(do: if_child_list_length(count: {:lt, 1})), [:data, :empty, :procedure]},
        {quote(do: if_child_list_length(count: {:eq, 1})), ["way"]},
        {quote(do: if_not(condition: if_has_payload())), [:empty, "way"]},
        {quote(do: if_not(condition: :data)), [:empty, :procedure, "way"]},
        {quote(do: if_all(conditions: [])), [:data, :empty, :procedure, "way"]},
        {quote(do: if_all(conditions: [if_name_matches(regex: "a"), if_has_data()])), [:data]},
        {quote(do: if_all(conditions: [?., if_has_data()])), nil},
        {quote(do: if_any(conditions: [])), []},
        {quote(do: if_any(conditions: [:data, "way"])), [:data, "way"]},
        {quote(do: if_any(conditions: [if_has_sproc(), if_child_list_length(count: 1)])), [:procedure, "way"]}
      ],
      expected != nil do
    test "#{Macro.to_string(condition)} selects #{inspect(expected)}", %{store: s} do
      assert names(s, unquote(condition)) == unquote(expected)
    end
  end

  test "a condition that does not apply is not met", %{store: s} do
    assert names(s, if_data_matches()) == [:data]
    assert names(s, if_not(condition: if_data_matches())) == [:empty, :procedure, "way"]
  end

  test "an invalid match specification raises in the caller", %{store: s} do
    assert catch_error(names(s, if_data_matches(pattern: :"$1", conditions: [{:no_such_guard, :"$1"}]))) == :badarg
  end

  test "errors report the innermost failing condition of if_all, and if_any and if_not as a whole", %{store: s} do
    reported = fn condition ->
      {:error, {:khepri, :mismatching_node, %{condition: reported} = info}} =
        :khepri.put(s, [if_all(conditions: [:data, condition])], 1)

      assert %{node_name: :data, node_path: [:data], node_is_target: true} = info
      assert info.node_props == %{data: %{size: 5}, payload_version: 1}
      reported
    end

    old = if_payload_version(version: 7)
    assert reported.(old) == old
    assert reported.(if_all(conditions: [if_has_data(), if_all(conditions: [old])])) == old
    assert if_any(conditions: [^old, if_has_sproc()]) = reported.(if_any(conditions: [old, if_has_sproc()]))
    assert if_not(condition: if_has_data()) = reported.(if_not(condition: if_has_data()))
    assert if_data_matches(compiled: compiled) = reported.(if_data_matches(pattern: 0))
    assert compiled != :undefined
  end

  test "reads of one node that does not meet a condition", %{store: s} do
    path = [if_all(conditions: [:data, if_has_sproc()])]
    assert :khepri_adv.get(s, path) == {:ok, %{}}
    assert :khepri.exists(s, path) == true

    for call <- [&:khepri.get/2, &:khepri.has_data/2, &:khepri.is_sproc/2],
        do: assert(catch_error(call.(s, path)) == {:badmatch, []})

    assert :khepri.delete(s, path) == :ok
    assert :khepri_adv.delete(s, path) == {:ok, %{}}
    assert :khepri.exists(s, [:data])
  end

  test "which missing nodes a put makes", %{store: s} do
    none = if_node_exists(exists: false)
    there = if_has_data()

    for {condition, made?} <- [
          {none, true},
          {if_all(conditions: [none, none]), true},
          {if_any(conditions: [there, none]), true},
          {there, false},
          {if_all(conditions: [none, there]), false},
          {if_any(conditions: [there, there]), false}
        ] do
      path = [:new, if_all(conditions: ["node", condition]), :below]

      case :khepri.put(s, path, 1) do
        :ok ->
          assert made?
          assert :khepri.get(s, [:new, "node", :below]) == {:ok, 1}
          :ok = :khepri.delete(s, [:new])

        {:error, {:khepri, :node_not_found, info}} ->
          refute made?
          assert %{node_name: "node", node_path: [:new, "node"], node_is_target: false} = info
          assert if_all() = info.condition
          assert :khepri.exists(s, [:new]) == false
      end
    end
  end

  test "the first node that is missing is what an error names", %{store: s} do
    info = %{node_name: :x, node_path: [:data, :x], node_is_target: false}
    assert :khepri.get(s, [:data, :x, :y]) == {:error, {:khepri, :node_not_found, info}}
    info = %{node_name: :x, node_path: [:x], node_is_target: true}
    condition = if_all(conditions: [:x, if_node_exists()])
    assert :khepri.update(s, [:x], 1) == {:error, {:khepri, :node_not_found, Map.put(info, :condition, condition)}}

    assert {:error, {:khepri, :mismatching_node, %{node_name: ?/, node_path: []}}} =
             :khepri.put(s, [if_all(conditions: [?/, if_has_data()])], 1)
  end

  test "a condition on the parent is refused", %{store: s} do
    condition = if_all(conditions: [?^, if_has_data()])
    error = {:khepri_ex, :condition_targets_parent_node, %{path: [:data, condition], condition: condition}}
    assert catch_error(:khepri.get(s, [:data, condition])) == error
    assert catch_error(:khepri.get_many(s, [:data, condition])) == error
    assert catch_error(:khepri.put(s, [:data, condition], 1)) == error
  end

  test "one node is asked for, whatever there is", %{store: s} do
    for condition <- [if_name_matches(), if_has_data(), if_any(conditions: [:data, :empty])] do
      error = {:khepri_ex, :possibly_matching_many_nodes_denied, %{path: [condition]}}

      for call <- [
            &:khepri.get/2,
            &:khepri.get_or(&1, &2, 0),
            &:khepri.exists/2,
            &:khepri.has_data/2,
            &:khepri.is_sproc/2,
            &:khepri.put(&1, &2, 1),
            &:khepri.create(&1, &2, 1),
            &:khepri.update(&1, &2, 1),
            &:khepri.compare_and_swap(&1, &2, :_, 1),
            &:khepri.delete/2,
            &:khepri.clear_payload/2
          ] do
        assert {:khepri_ex, :possibly_matching_many_nodes_denied, %{path: [_]}} = catch_error(call.(s, [condition]))
      end

      assert catch_error(:khepri.get(s, [condition])) == error
    end
  end

  test "a put of many passes over what does not match, and the first error fails all of it", %{store: s} do
    assert {:ok, %{[:data] => _}} = answer = :khepri_adv.put_many(s, [if_has_data()], 1)
    assert map_size(elem(answer, 1)) == 1
    assert {:ok, written} = :khepri_adv.put_many(s, [if_name_matches(), :status], 1)
    assert map_size(written) == 4
    keep = %{keep_while: %{[?., :status] => if_child_list_length(count: 0), [:nobody] => if_node_exists()}}
    result = :khepri.put_many(s, [if_name_matches()], 3, keep)
    assert {:error, {:khepri, :keep_while_conditions_not_met, _info}} = result
    assert {:ok, 0} = :khepri.count(s, [if_data_matches(pattern: 3)])
  end
end
