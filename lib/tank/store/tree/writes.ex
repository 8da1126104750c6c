defmodule Tank.Store.Tree.Writes do
  @moduledoc false
  # Writes of `Tank.Store.Tree` that go to the store at once, as one command each.

  alias Tank.Store.{Call, Entry, NodeChange}
  alias Tank.Store.Tree.{Comparison, Operation}

  @doc "Puts, creates or updates; `condition` is nil, `{:revision, n}` or `{:payload, payload}`."
  @spec write(atom, :put | :create | :update, binary, binary, tuple | nil, non_neg_integer, timeout) ::
          {:ok, pos_integer} | {:error, term}
  def write(store_id, kind, key, payload, condition, lease, timeout) do
    command(store_id, {kind, key, payload, condition, lease}, byte_size(payload), timeout)
  end

  @doc "The same, in a certain way: `how` is `{kind, unless_same?, keep_while, returns?}`."
  @spec write(atom, :put | :create | :update, binary, binary, tuple | nil, non_neg_integer, tuple, timeout) ::
          {:ok, non_neg_integer} | {:ok, non_neg_integer, [NodeChange.t()]} | {:error, term}
  def write(store_id, kind, key, payload, condition, lease, {1, false, nil, false}, timeout),
    do: write(store_id, kind, key, payload, condition, lease, timeout)

  def write(store_id, kind, key, payload, condition, lease, how, timeout),
    do: command(store_id, {kind, key, payload, condition, lease, how}, byte_size(payload), timeout)

  @spec command(atom, tuple, non_neg_integer, timeout) :: {:ok, term} | {:ok, term, [NodeChange.t()]} | {:error, term}
  def command(store_id, command, bytes, timeout), do: answer(Call.command(store_id, command, bytes, timeout))

  @spec txn(atom, [tuple], [tuple], [tuple], timeout) :: {:ok, map} | {:error, term}
  def txn(store_id, compare, then_ops, else_ops, timeout) do
    with {:ok, compare} <- encode_all(compare, &Comparison.encode/1),
         {:ok, then_ops} <- encode_all(then_ops, &Operation.encode/1),
         {:ok, else_ops} <- encode_all(else_ops, &Operation.encode/1) do
      encoded_txn(store_id, compare, then_ops, else_ops, timeout)
    end
  end

  @doc "The same, of what is encoded already."
  @spec encoded_txn(atom, [tuple], [tuple], [tuple], timeout) :: {:ok, map} | {:error, term}
  def encoded_txn(store_id, compare, then_ops, else_ops, timeout) do
    command = {:txn, compare, then_ops, else_ops}

    with {:ok, {:txn, succeeded?, revision, responses}} <-
           command(store_id, command, :erlang.external_size(command), timeout) do
      {:ok, %{succeeded: succeeded?, revision: revision, responses: Enum.map(responses, &Operation.decode/1)}}
    end
  end

  defp encode_all(forms, encode) do
    Enum.reduce_while(forms, {:ok, []}, fn form, {:ok, encoded} ->
      case encode.(form) do
        {:ok, one} -> {:cont, {:ok, [one | encoded]}}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
    |> reversed()
  end

  defp reversed({:ok, list}), do: {:ok, Enum.reverse(list)}
  defp reversed(error), do: error

  defp answer({:ok, {:changed, revision, changes}}), do: {:ok, revision, Enum.map(changes, &NodeChange.decode/1)}

  defp answer({:error, {kind, entry}}) when kind in [:exists, :conflict] and is_tuple(entry),
    do: {:error, {kind, Entry.decode(entry)}}

  defp answer(answer), do: answer
end
