defmodule Tank.Store.Backend.Revision do
  @moduledoc false
  # Revisions as strings: callers hand them back, and know nothing of what they hold.
  #
  # That of a pair is a revision, as "17". That of a list, which a watch goes on from, has the history too, as
  # "17-0123456789abcdef".

  import Tank.Store.Position, only: [is_revision: 1]

  alias Tank.Store.Backend.ValidationError
  alias Tank.Store.Position

  @type t :: String.t()

  @spec from_integer(non_neg_integer) :: t
  def from_integer(revision), do: Integer.to_string(revision)

  @spec from_position(Position.t()) :: t
  def from_position({history, revision}), do: "#{revision}-#{history}"
  def from_position(revision), do: from_integer(revision)

  @doc "nil stays nil: no revision was given."
  @spec parse(t | nil) :: {:ok, Position.t() | nil} | {:error, ValidationError.t()}
  def parse(nil), do: {:ok, nil}

  def parse(<<first, _rest::binary>> = text) when first in ?0..?9 do
    case Integer.parse(text) do
      {revision, ""} when is_revision(revision) -> {:ok, revision}
      {revision, "-" <> history} when is_revision(revision) and history != "" -> {:ok, {history, revision}}
      _other -> invalid(text)
    end
  end

  def parse(other), do: invalid(other)

  @doc "As `parse/1`, of a revision that a pair has."
  @spec parse_number(t | nil) :: {:ok, non_neg_integer | nil} | {:error, ValidationError.t()}
  def parse_number(text) do
    with {:ok, position} <- parse(text), do: {:ok, position && Position.revision(position)}
  end

  defp invalid(value) do
    {:error, %ValidationError{field: :revision, value: value, why: "is no revision that this store gave"}}
  end
end
