defmodule Tank.Store.Backend.Revision do
  @moduledoc false
  # Revisions as strings: callers hand them back, and know nothing of what they hold.

  alias Tank.Store.Backend.ValidationError

  # The engine's revisions are unsigned, of 64 bits.
  @last 0xFFFF_FFFF_FFFF_FFFF

  @type t :: String.t()

  @spec from_integer(non_neg_integer) :: t
  def from_integer(revision), do: Integer.to_string(revision)

  @doc "nil stays nil: no revision was given."
  @spec parse(t | nil) :: {:ok, non_neg_integer | nil} | {:error, ValidationError.t()}
  def parse(nil), do: {:ok, nil}

  def parse(<<first, _rest::binary>> = text) when first in ?0..?9 do
    case Integer.parse(text) do
      {revision, ""} when revision <= @last -> {:ok, revision}
      _other -> invalid(text)
    end
  end

  def parse(other), do: invalid(other)

  defp invalid(value) do
    {:error, %ValidationError{field: :revision, value: value, why: "is no revision that this store gave"}}
  end
end
