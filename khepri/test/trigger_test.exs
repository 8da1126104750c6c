defmodule Khepri.TriggerTest do
  use Khepri.StoreCase, async: true

  require Tank.Khepri.Records

  defp on(s, id, filter, tell) do
    test = self()
    :ok = :khepri.put(s, [:sprocs, id], fn event -> send(test, {tell, event}) end)
    :ok = :khepri.register_trigger(s, id, filter, [:sprocs, id])
  end

  test "creations, updates and deletions", %{store: s} do
    on(s, :all, "/:a/**", :told)
    :ok = :khepri.put(s, [:a, :b], 1)
    assert_receive {:told, %{path: [:a, :b], on_action: :create}}, 5_000
    :ok = :khepri.put(s, [:a, :b], 2)
    assert_receive {:told, %{path: [:a, :b], on_action: :update}}, 5_000
    :ok = :khepri.delete(s, [:a])
    assert_receive {:told, %{path: [:a, :b], on_action: :delete}}, 5_000
    :ok = :khepri.put(s, [:elsewhere], 2)
    refute_receive {:told, _event}, 100
  end

  test "only the actions that a filter names, by priority, and in order", %{store: s} do
    on(s, :low, :khepri_evf.tree("/:q/*", %{on_actions: [:create], priority: 1}), :low)
    on(s, :high, :khepri_evf.set_priority(:khepri_evf.tree("/:q/*", %{on_actions: [:create]}), 9), :high)
    for n <- 1..20, do: :ok = :khepri.put(s, [:q, "#{n}"], n)
    :ok = :khepri.put(s, [:q, "1"], :again)
    expected = for n <- 1..20, tag <- [:high, :low], do: {tag, "#{n}"}

    told =
      for _ <- expected do
        assert_receive {tag, %{path: [:q, name], on_action: :create}}, 5_000
        {tag, name}
      end

    assert told == expected
    refute_receive {_tag, %{on_action: _}}, 100
  end

  test "a failing procedure affects nothing else", %{store: s} do
    :ok = :khepri.put(s, [:sprocs, :bad], fn _event -> raise "no" end)
    :ok = :khepri.register_trigger(s, :bad, "/:a", [:sprocs, :bad])
    :ok = :khepri.register_trigger(s, :missing, "/:a", [:sprocs, :missing])
    on(s, :good, "/:a", :told)
    for n <- 1..3, do: :ok = :khepri.put(s, [:a], n)
    for _ <- 1..3, do: assert_receive({:told, %{path: [:a]}}, 5_000)
  end

  test "what was not run before a stop is run after the start", %{store: s, dir: dir} do
    on(s, :all, "/:a", :told)
    :ok = :khepri.put(s, [:a], 1)
    assert_receive {:told, _event}, 5_000
    # Written by the other API while nobody runs triggers.
    :ok = Tank.Khepri.Stores.closing(s)
    {:ok, _revision} = Tank.Store.Tree.put(s, [:a], 2)
    :ok = :khepri.stop(s)
    {:ok, ^s} = :khepri.start(dir, s)
    assert_receive {:told, %{path: [:a], on_action: :update}}, 5_000
  end

  describe "nodes without a payload" do
    defp told(count) do
      for _ <- 1..count//1 do
        assert_receive {:told, %{path: path, on_action: action}}, 5_000
        {path, action}
      end
    end

    test "those made on the way to another one, and child lists", %{store: s} do
      on(s, :all, "/:a/**", :told)
      on(s, :top, "/:a", :told)
      :ok = :khepri.put(s, [:a, :b, :c], 1)
      assert Enum.sort(told(3)) == [{[:a], :create}, {[:a, :b], :create}, {[:a, :b, :c], :create}]
      :ok = :khepri.put(s, [:a, :b, :d], 1)
      assert Enum.sort(told(2)) == [{[:a, :b], :update}, {[:a, :b, :d], :create}]
      :ok = :khepri.delete(s, [:a, :b, :c])
      assert Enum.sort(told(2)) == [{[:a, :b], :update}, {[:a, :b, :c], :delete}]
      :ok = :khepri.delete(s, [:a, :b, :d])
      assert Enum.sort(told(3)) == [{[:a], :delete}, {[:a, :b], :delete}, {[:a, :b, :d], :delete}]
      refute_receive {:told, _event}, 100
    end

    test "made, given a payload, cleared and deleted", %{store: s} do
      on(s, :all, "/:n", :told)
      :ok = :khepri.put(s, [:n], :khepri_payload.none())
      :ok = :khepri.put(s, [:n], 1)
      :ok = :khepri.clear_payload(s, [:n])
      :ok = :khepri.delete(s, [:n])
      assert told(4) == [{[:n], :create}, {[:n], :update}, {[:n], :update}, {[:n], :delete}]
    end

    test "in the transaction that makes them, and by conditions", %{store: s} do
      on(s, :all, "/:t/**", :told)

      {:ok, :ok} =
        :khepri.transaction(s, fn ->
          :ok = :khepri_tx.put([:t, :a], 1)
          :khepri_tx.put([:t, :a, :b], 1)
        end)

      assert Enum.sort(told(2)) == [{[:t, :a], :create}, {[:t, :a, :b], :create}]
      on(s, :many, :khepri_evf.tree([:c, Tank.Khepri.Records.if_child_list_length(count: {:ge, 2})]), :many)
      for name <- [:a, :b, :c], do: :ok = :khepri.put(s, [:c, :x, name], 1)
      for _ <- 1..2, do: assert_receive({:many, %{path: [:c, :x], on_action: :update}}, 5_000)
      refute_receive {:many, _event}, 100
    end

    test "by the other API, while nobody ran triggers", %{store: s} do
      on(s, :all, "/:r/**", :told)
      :ok = Tank.Khepri.Stores.closing(s)
      {:ok, _revision} = Tank.Store.Tree.put(s, [:r, :way, :leaf], 2)
      :ok = Tank.Khepri.Stores.opened(s)
      assert Enum.sort(told(2)) == [{[:r, :way], :create}, {[:r, :way, :leaf], :create}]
    end
  end
end
