defmodule Tank.Store.Tree.Transaction do
  @moduledoc false
  # Runs a function over a view, and commits what it wrote if what it read still holds; otherwise runs it again.
  #
  #     view --> run --> read only, or rolled back: nothing is logged
  #      ^        |
  #      |        +--> one txn in the log: what was read is compared, then all is written
  #      |                    |
  #      +--- wait a moment --+-- what was read has changed

  alias Tank.Store.{Deadline, Tx, View}
  alias Tank.Store.Tree.Writes

  # Others' transactions take a millisecond or a few; waiting longer than some of them helps nobody.
  @wait_max_ms 50

  @spec run(atom, (Tx.t() -> result), keyword) :: {:ok, result} | {:error, term} when result: term
  def run(store_id, fun, opts) do
    if Tx.running(), do: raise(ArgumentError, "a transaction is running in this process: they do not nest")
    attempt(store_id, fun, opts[:favor], opts[:retries], 0, Deadline.in_ms(opts[:timeout]))
  end

  @spec rollback(term) :: no_return
  def rollback(reason) do
    case Tx.running() do
      %{ref: ref} -> throw({__MODULE__, ref, reason})
      nil -> raise ArgumentError, "no transaction is running in this process"
    end
  end

  defp attempt(store_id, fun, favor, retries, tried, deadline) do
    with {:ok, view} <- View.take(store_id, favor, Deadline.remaining(deadline)) do
      case call(fun, Tx.open(store_id, view)) do
        {:rolled_back, reason} ->
          {:error, reason}

        {result, %{ops: []}} ->
          {:ok, result}

        {result, state} ->
          case commit(store_id, state, deadline) do
            {:ok, %{succeeded: true}} -> {:ok, result}
            {:ok, %{succeeded: false}} -> again(store_id, fun, retries, tried, deadline)
            # What its operations asked for themselves has changed.
            {:error, {:keep_while, _path, _index, _why}} -> again(store_id, fun, retries, tried, deadline)
            {:error, {:mismatch, _node}} -> again(store_id, fun, retries, tried, deadline)
            {:error, _reason} = error -> error
          end
      end
    end
  end

  defp call(fun, %Tx{ref: ref} = tx) do
    result = fun.(tx)
    {result, Tx.close()}
  catch
    :throw, {__MODULE__, ^ref, reason} -> {:rolled_back, reason}
  after
    # Also when the function raised.
    Tx.close()
  end

  defp commit(store_id, state, deadline) do
    Writes.encoded_txn(
      store_id,
      state.compare,
      Enum.reverse(state.ops),
      [],
      Deadline.remaining(deadline)
    )
  end

  defp again(store_id, fun, retries, tried, deadline) do
    if tried >= retries or Deadline.remaining(deadline) == 0 do
      {:error, :too_many_conflicts}
    else
      wait(tried)
      # This member's view may be what was too old.
      attempt(store_id, fun, :consistency, retries, tried + 1, deadline)
    end
  end

  # A random time, so that those who met do not meet again. Not by `:rand`, whose state is the caller's.
  defp wait(tried) do
    most = min(@wait_max_ms, Integer.pow(2, min(tried, 10)))
    receive after: (:erlang.phash2(make_ref(), most + 1) -> :ok)
  end
end
