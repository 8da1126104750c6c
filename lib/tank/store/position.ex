defmodule Tank.Store.Position do
  @moduledoc false
  # Up to where somebody knows a store: a revision, or a revision of a history. Two histories may have revisions of the
  # same number that mean different things; with its history, a position is never taken for one of another.

  @type history :: String.t()
  @type t :: non_neg_integer | {history, non_neg_integer}

  # The engine counts in 64 bits.
  @last 0xFFFF_FFFF_FFFF_FFFF

  defguard is_revision(term) when is_integer(term) and term in 0..@last

  defguard is_position(term)
           when is_revision(term) or
                  (is_tuple(term) and tuple_size(term) == 2 and is_binary(elem(term, 0)) and is_revision(elem(term, 1)))

  @doc "The revision alone."
  @spec revision(t) :: non_neg_integer
  def revision({_history, revision}), do: revision
  def revision(revision), do: revision
end
