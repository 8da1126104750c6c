defmodule Khepri.TriggerTest do
  use Khepri.StoreCase, async: true

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
end
