defmodule Tank.Store.FormationDecisionTest do
  use ExUnit.Case, async: true

  alias Tank.Store.Formation.Decision

  @nodes [:a@h, :b@h, :c@h]

  defp known(changes) do
    formation = %{nodes: @nodes, role: :voter, founding: Map.get(changes, :founding, :all)}
    known = %{node: :a@h, token: make_ref(), nodes: @nodes, answers: %{}, formation: formation, holds: nil}
    Map.merge(known, Map.delete(changes, :founding))
  end

  defp blank(nodes \\ @nodes, role \\ :voter), do: {:blank, make_ref(), nodes, role}

  defp wait(known) do
    assert {:wait, why} = Decision.make(known)
    why
  end

  test "the first of the list founds once all have said that they are blank" do
    answers = %{b@h: blank(), c@h: blank()}
    assert {:found, promises, 3} = Decision.make(known(%{answers: answers}))
    assert promises |> Keyword.keys() |> Enum.sort() == @nodes
    assert wait(known(%{node: :b@h, answers: %{a@h: blank(), c@h: blank()}})) == "a@h is about to found the cluster"
  end

  test "nobody founds while a listed node is not known to be blank" do
    for {answer, why} <- [
          {:unknown, "has not started the store"},
          {{:error, :noproc}, "has not started the store"},
          {{:error, :nodedown}, "cannot be reached"},
          {{:error, :timeout}, "does not answer"},
          {blank([:a@h, :c@h]), "was given another list of nodes (a@h, c@h)"}
        ] do
      assert wait(known(%{answers: %{b@h: blank(), c@h: answer}})) == "c@h #{why}"
    end
  end

  test "a majority founds when that is enough" do
    answers = %{b@h: blank(), c@h: {:error, :nodedown}}
    assert {:found, _promises, 2} = Decision.make(known(%{answers: answers, founding: :majority}))
    answers = %{b@h: {:error, :nodedown}, c@h: :unknown}
    assert wait(known(%{answers: answers, founding: :majority})) =~ "b@h cannot be reached"
  end

  test "a witness and a learner found nothing" do
    answers = %{a@h: blank(@nodes, :witness), c@h: blank(@nodes, :learner)}
    assert {:found, _promises, 3} = Decision.make(known(%{node: :b@h, answers: answers}))
    witness = %{nodes: [:a@h], role: :witness, founding: :all}
    assert wait(known(%{nodes: [:a@h], formation: witness})) =~ "none of the listed nodes is started as a voter"
  end

  test "a blank node joins the cluster that any listed node holds" do
    answers = %{b@h: blank(), c@h: {:holds, 7}}
    assert Decision.make(known(%{answers: answers})) == {:join, 7, [:c@h]}
    assert Decision.make(known(%{answers: answers, founding: :majority})) == {:join, 7, [:c@h]}
  end

  test "a blank node joins none of two clusters" do
    why = wait(known(%{answers: %{b@h: {:holds, 8}, c@h: {:holds, 7}}}))
    assert why =~ "b@h holds 8, c@h holds 7" and why =~ "remove its directory"
  end

  test "a member that has no place yet is refused where only other clusters are" do
    assert Decision.make(known(%{holds: 7, answers: %{b@h: blank(), c@h: :unknown}})) == :open
    assert Decision.make(known(%{holds: 7, answers: %{b@h: {:holds, 7}, c@h: {:holds, 8}}})) == :open
    refused = {:refuse, %{a@h: 7, b@h: 8}}
    assert Decision.make(known(%{holds: 7, answers: %{b@h: {:holds, 8}, c@h: blank()}})) == refused
  end
end
