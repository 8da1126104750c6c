defmodule Tank.Store.Tree.KeepWhile do
  @moduledoc false
  # The conditions of `keep_while:`, as the Rust library takes them: `{[{pattern, condition}], source}`.
  #
  # The engine keeps `source` with the node and never looks inside. It is the encoding of a tuple whose second element
  # has the conditions as they were given to the engine, so that an export can write them and an import give them again,
  # whoever made them.

  alias Tank.Store.{Path, Pattern}

  @type t :: {[{[tuple], term}], source :: binary} | nil
  @type conditions :: %{Pattern.t() => Path.component() | Pattern.condition()}

  @spec encode(nil | conditions | [{Pattern.t(), Path.component() | Pattern.condition()}]) ::
          {:ok, t} | {:error, {:invalid_pattern, String.t()}}
  def encode(nil), do: {:ok, nil}

  def encode(conditions) when is_map(conditions) or is_list(conditions) do
    conditions
    |> Enum.reduce_while({:ok, []}, fn pair, {:ok, encoded} ->
      case encode_pair(pair) do
        {:ok, one} -> {:cont, {:ok, [one | encoded]}}
        error -> {:halt, error}
      end
    end)
    |> with_source()
  end

  def encode(other), do: raise(ArgumentError, "keep_while: is a map of patterns to conditions, got: #{inspect(other)}")

  @doc "The pattern of the condition that an error is about."
  @spec name_pattern({:error, term} | term, conditions | nil) :: term
  def name_pattern({:error, {:keep_while, _path, index, why}}, conditions) do
    {pattern, _condition} = Enum.at(conditions, index)
    {:error, {:keep_while, pattern, why}}
  end

  def name_pattern(other, _conditions), do: other

  @doc "The conditions that a source was made of."
  @spec decode(binary | nil) :: conditions
  def decode(nil), do: %{}

  def decode(source) do
    encoded = source |> :erlang.binary_to_term() |> elem(1)
    Map.new(encoded, fn {pattern, condition} -> {Pattern.decode(pattern), Pattern.decode_condition(condition)} end)
  end

  defp encode_pair({pattern, condition}) do
    with {:ok, pattern} <- Pattern.encode(pattern),
         {:ok, condition} <- Pattern.encode_condition(condition),
         do: {:ok, {pattern, condition}}
  end

  defp with_source({:ok, encoded}) do
    encoded = Enum.reverse(encoded)
    {:ok, {encoded, :erlang.term_to_binary({:tank, encoded}, [:deterministic, minor_version: 2])}}
  end

  defp with_source(error), do: error
end
