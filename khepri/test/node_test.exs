defmodule Khepri.NodeTest do
  # Properties of nodes, versions, and the three kinds of nodes.
  use Khepri.StoreCase, async: true

  @children [:child_list_version, :child_list_length]

  defp props(s, path, wanted) do
    {:ok, %{^path => props}} = :khepri_adv.get(s, path, %{props_to_return: wanted})
    props
  end

  test "properties that are asked for", %{store: s} do
    fun = fn -> :ok end
    :ok = :khepri.put(s, [:a], 1)
    :ok = :khepri.put(s, [:a, :b], fun)
    :ok = :khepri.put(s, [:a, "c"], :khepri_payload.none())
    assert props(s, [:a], [:payload]) == %{data: 1}
    assert props(s, [:a], [:has_payload]) == %{has_data: true}
    assert props(s, [:a, :b], [:has_payload]) == %{is_sproc: true}
    assert props(s, [:a, "c"], [:has_payload, :payload]) == %{}
    assert props(s, [:a], [:payload_version, :unknown]) == %{payload_version: 1}
    assert props(s, [:a], []) == %{}
    assert props(s, [:a], [:raw_payload]) == %{raw_payload: {:p_data, 1}}
    assert %{raw_payload: {:p_sproc, ^fun, _kind}} = props(s, [:a, :b], [:raw_payload])
    assert props(s, [:a, "c"], [:raw_payload]) == %{raw_payload: :"$__NO_PAYLOAD__"}
    assert %{child_list_length: 2, child_names: names} = props(s, [:a], [:child_list_length, :child_names])
    assert Enum.sort(names) == [:b, "c"]
    assert :khepri_adv.get(s, [:a, :b]) == {:ok, %{[:a, :b] => %{sproc: fun, payload_version: 1}}}
  end

  test "a payload's version rises when the payload differs by =:=, clearing included", %{store: s} do
    version = fn -> props(s, [:a], [:payload_version]).payload_version end

    for {data, expected} <- [{1, 1}, {1, 1}, {1.0, 2}, {2, 3}, {:khepri_payload.none(), 4}, {:khepri_payload.none(), 4}] do
      :ok = :khepri.put(s, [:a], data)
      assert version.() == expected
    end

    :ok = :khepri.put(s, [:a], 2)
    assert version.() == 5
    :ok = :khepri.delete(s, [:a])
    :ok = :khepri.put(s, [:a], 2)
    assert version.() == 1
  end

  test "a child list's version rises once a command", %{store: s} do
    :ok = :khepri.put(s, [:a, :b], 1)
    assert props(s, [:a], @children) == %{child_list_version: 1, child_list_length: 1}
    :ok = :khepri.put(s, [:a, :c], 1)
    assert props(s, [:a], @children) == %{child_list_version: 2, child_list_length: 2}
    :ok = :khepri.put(s, [:a, :c], 2)
    :ok = :khepri.put(s, [:a, :c, :below], 2)
    assert props(s, [:a], @children) == %{child_list_version: 2, child_list_length: 2}
    :ok = :khepri.put(s, [:a, :stays], 2)
    :ok = :khepri.delete_many(s, [:a, if_name_matches(regex: "^[bc]$")])
    assert %{child_list_length: 1} = props(s, [:a], @children)
  end

  test "indirect removals raise a child list's version too", %{store: s} do
    :ok = :khepri.put(s, [:a, :stays], 1)
    :ok = :khepri.put(s, [:owner], 1)
    :ok = :khepri.put(s, [:a, :kept], 1, %{keep_while: %{[:owner] => if_node_exists()}})
    before = props(s, [:a], @children)
    :ok = :khepri.delete(s, [:owner])
    assert props(s, [:a], @children) == %{child_list_length: 1, child_list_version: before.child_list_version + 1}
  end

  test "nodes made on the way go with the last child, those made by a command stay", %{store: s} do
    :ok = :khepri.put(s, [:way, :x], 1)
    :ok = :khepri.delete(s, [:way, :x])
    assert :khepri.exists(s, [:way]) == false
    :ok = :khepri.put(s, [:made], :khepri_payload.none())
    :ok = :khepri.put(s, [:made, :x], 1)
    :ok = :khepri.delete(s, [:made, :x])
    assert :khepri.exists(s, [:made])
    # One that was made on the way, and had a payload meanwhile, goes as well.
    :ok = :khepri.put(s, [:way, :x], 1)
    :ok = :khepri.put(s, [:way], 1)
    :ok = :khepri.delete(s, [:way, :x])
    assert :khepri.exists(s, [:way])
    # It is told of as it last was, without the payload.
    gone = %{[:way] => %{payload_version: 3, delete_reason: :keep_while}}
    assert :khepri_adv.clear_payload(s, [:way]) == {:ok, gone}
    assert :khepri.exists(s, [:way]) == false
  end

  test "what deletions answer", %{store: s} do
    :ok = :khepri.put(s, [:a, :b], 1)
    :ok = :khepri.put(s, [:kept], 2, %{keep_while: %{[:a, :b] => if_node_exists()}})
    wanted = %{props_to_return: [:payload, :delete_reason, :child_names, :child_list_length]}
    assert {:ok, gone} = :khepri_adv.delete(s, [:a], wanted)
    assert gone[[:a]] == %{delete_reason: :explicit, child_names: [:b], child_list_length: 1}
    assert gone[[:a, :b]] == %{data: 1, delete_reason: :explicit, child_names: [], child_list_length: 0}
    assert %{data: 2, delete_reason: :keep_while} = gone[[:kept]]
    assert map_size(gone) == 3
  end

  test "payloads", %{store: _s} do
    fun = fn -> :ok end
    assert :khepri_payload.none() == :"$__NO_PAYLOAD__"
    assert :khepri_payload.data(1) == {:p_data, 1}
    assert {:p_sproc, ^fun, _kind} = :khepri_payload.sproc(fun)
    assert :khepri_payload.wrap(1) == {:p_data, 1}
    assert {:p_sproc, ^fun, _kind} = :khepri_payload.wrap(fun)
    assert :khepri_payload.wrap({:p_data, 1}) == {:p_data, 1}
  end

  test "clearing what is not there", %{store: s} do
    assert :khepri_adv.clear_payload(s, [:nobody]) == {:ok, %{}}
    assert :khepri.clear_payload(s, [:nobody]) == :ok
    assert :khepri_adv.clear_many_payloads(s, [:nobody, if_name_matches()]) == {:ok, %{}}
    assert :khepri.exists(s, [:nobody]) == false
    # Within a transaction, Khepri adds no condition: the node is made.
    {:ok, :ok} = :khepri.transaction(s, fn -> :khepri_tx.clear_many_payloads([:made]) end, :rw)
    assert :khepri.get(s, [:made]) == {:ok, :undefined}
  end

  test "the root has no last component", %{store: s} do
    for call <- [
          &:khepri.create(&1, [], 1),
          &:khepri.update(&1, [], 1),
          &:khepri.compare_and_swap(&1, [], 0, 1),
          &:khepri.clear_payload(&1, [])
        ],
        do: assert(catch_error(call.(s)) == {:badmatch, []})

    assert :khepri_path.combine_with_conditions([:a], []) == [:a]
    assert :khepri_path.combine_with_conditions([:a], [if_has_data()]) == [if_all(conditions: [:a, if_has_data()])]
  end
end
