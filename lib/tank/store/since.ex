defmodule Tank.Store.Since do
  @moduledoc false
  # What changed below a path, or of what a pattern matches, since a position: `Tank.Store.Tree.list_since/3`.

  import Tank.Store.Position, only: [is_position: 1]

  alias Tank.Store.{Call, Change, Error, Native, Pattern, Position, Running}

  @timeout 5_000
  # Its key.
  @root ""

  @type result ::
          :unchanged | {:ok, [Change.t()], non_neg_integer} | {:error, {:compacted, non_neg_integer} | Error.reason()}

  @doc """
  `:unchanged` when the store's revision is no newer; this costs next to nothing. Otherwise `{:ok, changes, revision}`:
  the difference between the two revisions, one change for each entry that was written or deleted, in the order of
  paths. Ask again with that revision. The list may be empty: what changed stands elsewhere.

  `{:error, {:compacted, min}}` when the history does not reach back as far, or the position is none of it: list all.

  Options: `favor: :consistency | :low_latency`, `timeout:` in milliseconds (5,000).
  """
  @spec list(atom, Pattern.t(), Position.t(), keyword) :: result
  def list(store, prefix_or_pattern, position, opts \\ []) when is_position(position) do
    with {:ok, asked} <- without_key(prefix_or_pattern),
         {:ok, native} <- Running.fetch(store),
         changed when changed != :unchanged <- ask(native, asked, position, opts[:favor]),
         {:ok, what} <- Pattern.prefix_or_pattern(prefix_or_pattern) do
      large = &Native.list_since_large(native, what, position, &1)
      answered(changed, native, large, opts[:favor] != :low_latency, opts[:timeout] || @timeout)
    end
  end

  # While nothing at all is new it does not matter below which path: its key is made when something is. A pattern is
  # looked at in any case, and an error if it makes no sense.
  defp without_key(path_or_pattern),
    do: if(Pattern.path?(path_or_pattern), do: {:ok, @root}, else: Pattern.prefix_or_pattern(path_or_pattern))

  defp ask(native, asked, position, :low_latency), do: Native.list_since_local(native, asked, position)
  defp ask(native, asked, position, _consistency), do: Native.list_since(native, asked, position)

  # Nothing was, once this member had heard how new it should be.
  defp answered(:unchanged, _native, _large, _asked?, _timeout), do: :unchanged

  defp answered(:dirty, native, large, asked?, timeout), do: answered(large.(asked?), native, large, asked?, timeout)

  defp answered(:wait, native, large, asked?, timeout) do
    with :ok <- Call.await_readable(native, timeout), do: answered(large.(asked?), native, large, asked?, timeout)
  end

  defp answered({:ok, changes, revision}, _native, _large, _asked?, _timeout),
    do: {:ok, Enum.map(changes, &Change.new/1), revision}

  defp answered({:error, reason}, _native, _large, _asked?, _timeout), do: {:error, Error.public(reason)}
end
