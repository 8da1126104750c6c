defmodule Tank.Store.Tx do
  @moduledoc """
  A transaction that is being run: what `Tank.Store.Tree.transaction/3` gives its function.

  The reading and writing functions of `Tank.Store.Tree` take it in the place of the store. It belongs to the process
  that runs the transaction, and to that run: used elsewhere or afterwards, it raises `ArgumentError`.
  """

  alias Tank.Store.{Call, Entry, Error, Native, NodeChange, Path, Pattern, View}
  alias Tank.Store.Tree.Operation

  @enforce_keys [:ref]
  defstruct [:ref]

  @type t :: %__MODULE__{ref: reference}

  # What a run has read and written so far stands in the process's dictionary: reading and writing functions give
  # what they give for a store, and have no room for a new transaction.
  @running {__MODULE__, :running}

  @doc false
  @spec open(atom, View.t()) :: t
  def open(store_id, view) do
    ref = make_ref()

    Process.put(@running, %{
      store_id: store_id,
      ref: ref,
      base: view,
      view: view,
      unseen: [],
      revision: Native.view_revision(view),
      compare: %{},
      ops: [],
      refused?: false
    })

    %__MODULE__{ref: ref}
  end

  @doc false
  # What it did: `ops`, the last one first, and the comparisons that tell whether what it read still holds. `refused?`: one
  # of those that were noted by `assume/2` was not done, so that nothing of this run counts.
  @spec close :: %{ops: [tuple], compare: [tuple], refused?: boolean} | nil
  def close do
    with %{ops: ops, compare: compare, refused?: refused?} <- Process.delete(@running),
         do: %{ops: ops, compare: Map.values(compare), refused?: refused?}
  end

  @doc false
  @spec running :: map | nil
  def running, do: Process.get(@running)

  @doc false
  # A write that names the store would be committed at once, at each run, and stay after a rollback.
  @spec refuse_write_beside!(atom) :: :ok
  def refuse_write_beside!(store_id) do
    case Process.get(@running) do
      %{store_id: ^store_id} ->
        raise ArgumentError,
              "this process runs a transaction on #{inspect(store_id)}, and this write would not be a part of it: " <>
                "give the transaction (tx) in the place of the store to a function of Tank.Store.Tree"

      _none_or_of_another_store ->
        :ok
    end
  end

  @doc false
  # As the writes so far leave it.
  @spec view(t) :: View.t()
  def view(tx) do
    case state(tx) do
      %{unseen: [], view: view} ->
        view

      state ->
        {view, refused?} = List.foldr(state.unseen, {state.view, state.refused?}, &seen/2)
        Process.put(@running, %{state | view: view, unseen: [], refused?: refused?})
        view
    end
  end

  @doc false
  @spec revision(t) :: non_neg_integer
  def revision(tx), do: state(tx).revision

  # What a read relied on: it is compared when the transaction is committed. Always with the view that the run began
  # with; what the transaction wrote itself does not count.

  @doc false
  @spec note_value(t, binary) :: :ok
  def note_value(tx, key) do
    _compare = note(tx, {:revision, key}, &revision_is(&1, key))
    :ok
  end

  @doc false
  @spec note_exists(t, binary) :: :ok
  def note_exists(tx, key) do
    _compare = note(tx, {:exists, key}, &existence_is(&1, key))
    :ok
  end

  @doc false
  # The payload of a node, or that there is none.
  @spec note_payload(t, binary) :: :ok
  def note_payload(tx, key) do
    # An entry that has not changed is still there.
    with {:revision, _key, :==, 0} <- note(tx, {:revision, key}, &revision_is(&1, key)), do: note_exists(tx, key)
    :ok
  end

  defp revision_is(base, key) do
    {_exists?, revision} = Native.node(base, key)
    {:revision, key, :==, revision}
  end

  defp existence_is(base, key) do
    {exists?, _revision} = Native.node(base, key)
    {:exists, key, :==, if(exists?, do: 1, else: 0)}
  end

  @doc false
  @spec note_child_count(t, binary) :: :ok
  def note_child_count(tx, key) do
    _compare = note(tx, {:child_count, key}, &{:child_count, key, :==, Native.child_count(&1, key)})
    :ok
  end

  @doc false
  # What an encoded pattern matches, and of that the paths, the payloads, the entries with their numbers, or all nodes.
  @spec note_matches(t, [tuple], :paths | :payloads | :entries | :nodes) :: :ok
  def note_matches(tx, pattern, facts) do
    _compare = note(tx, {facts, pattern}, &{:matching, pattern, facts, fingerprint!(&1, pattern, facts)})
    :ok
  end

  @doc false
  @spec note_node(t, Path.t()) :: :ok
  def note_node(tx, path), do: note_matches(tx, Pattern.exactly(path), :nodes)

  # Writes: kept, and seen by the reads after them. Mostly there are none, and no view has to be made.

  @doc false
  @spec write(t, tuple) :: {:ok, non_neg_integer}
  def write(tx, op) do
    state = state(tx)
    Process.put(@running, %{state | ops: [op | state.ops], unseen: [op | state.unseen]})
    {:ok, state.revision}
  end

  @doc false
  # The same, of an operation that may be refused: should it be, the run is to be made again without assuming that.
  @spec assume(t, tuple) :: {:ok, non_neg_integer}
  def assume(tx, op) do
    state = state(tx)
    Process.put(@running, %{state | ops: [op | state.ops], unseen: [{:assumed, op} | state.unseen]})
    {:ok, state.revision}
  end

  @doc false
  # Puts, creates or updates on a condition, as a command does; `how` as there.
  @spec write(t, :put | :create | :update, Path.t(), binary, binary, tuple | nil, non_neg_integer, tuple) ::
          {:ok, non_neg_integer} | {:ok, non_neg_integer, [NodeChange.t()]} | {:error, term}
  def write(tx, kind, path, key, payload, condition, lease, how) do
    with :ok <- allowed(tx, kind, key, condition) do
      note_keep_while(tx, how)
      write(tx, path, Operation.put(key, payload, lease, how))
    end
  end

  @doc false
  # An operation, and what it answers if it is asked for that: then it is done at once, and what it found is noted.
  @spec write(t, Path.t(), tuple) ::
          {:ok, non_neg_integer} | {:ok, non_neg_integer, [NodeChange.t()]} | {:error, term}
  def write(tx, path, op) do
    case Operation.silent(op) do
      ^op when elem(op, 0) != :put or tuple_size(op) == 4 -> write(tx, op)
      silent -> write_now(tx, path, op, silent)
    end
  end

  defp write_now(tx, path, op, silent) do
    with {:ok, view, response} <- View.with_op(view(tx), op) do
      state = state(tx)
      Process.put(@running, %{state | ops: [silent | state.ops], view: view})
      answer(tx, path, response)
    end
  end

  @doc false
  # Does an operation at once, and gives what it answers. What the caller relies on of that, it notes itself.
  @spec apply_op(t, tuple) :: {:ok, tuple} | {:error, Error.reason()}
  def apply_op(tx, op) do
    with {:ok, view, response} <- View.with_op(view(tx), op) do
      state = state(tx)
      Process.put(@running, %{state | ops: [Operation.silent(op) | state.ops], view: view})
      {:ok, response}
    end
  end

  @doc false
  # How many children a node has, and how often they came or went.
  @spec note_children(t, binary) :: :ok
  def note_children(tx, key) do
    _compare = note(tx, {:child_list_version, key}, &child_list_version_is(&1, key))
    note_child_count(tx, key)
  end

  defp child_list_version_is(base, key) do
    version = with {:ok, node} <- View.node(base, key), do: elem(node, 4)
    {:child_list_version, key, :==, if(is_integer(version), do: version, else: 0)}
  end

  defp answer(tx, path, {:changed, changes}) do
    changes = Enum.map(changes, &NodeChange.decode/1)
    note_matches(tx, Pattern.below(path, :many), :nodes)
    for change <- changes, not below?(change.path, path), do: note_node(tx, change.path)
    {:ok, revision(tx), changes}
  end

  defp answer(tx, _path, _response), do: {:ok, revision(tx)}

  defp below?(path, above), do: path != above and List.starts_with?(path, above)

  defp note_keep_while(_tx, {_kind, _unless_same?, nil, _returns?}), do: :ok

  defp note_keep_while(tx, {_kind, _unless_same?, {conditions, _source}, _returns?}),
    do: Enum.each(conditions, fn {pattern, _condition} -> note_matches(tx, pattern, :nodes) end)

  @doc false
  # Puts, unless the entry has this very payload and lease.
  @spec put_unless_same(t, binary, binary, non_neg_integer) :: {:ok, non_neg_integer} | {:error, term}
  def put_unless_same(tx, key, payload, lease) do
    note_value(tx, key)

    case View.entry(view(tx), key) do
      {:ok, entry} ->
        if entry.lease == lease and Call.encode(entry.value) == payload,
          do: {:ok, revision(tx)},
          else: write(tx, {:put, key, payload, lease})

      {:error, :not_found} ->
        write(tx, {:put, key, payload, lease})

      {:error, _reason} = error ->
        error
    end
  end

  @doc false
  @spec delete(t, Path.t(), binary, tuple | nil, boolean) ::
          {:ok, non_neg_integer} | {:ok, non_neg_integer, [NodeChange.t()]} | {:error, term}
  def delete(tx, path, key, condition, returns?) do
    op = if returns?, do: {:delete, key, nil, true}, else: {:delete, key}
    with :ok <- allowed(tx, :put, key, condition), do: write(tx, path, op)
  end

  @doc false
  # Does what `op` makes of its key at every match of an encoded pattern.
  @spec write_many(t, [tuple], (binary -> tuple), boolean) ::
          {:ok, non_neg_integer} | {:ok, non_neg_integer, [NodeChange.t()]} | {:error, term}
  def write_many(tx, pattern, op, returns?) do
    note_matches(tx, pattern, :paths)

    with {:ok, keys} <- View.select(view(tx), pattern, :keys),
         {:ok, changes} <- write_each(tx, keys, op, []) do
      if returns?, do: {:ok, revision(tx), changes}, else: {:ok, revision(tx)}
    end
  end

  defp write_each(_tx, [], _op, changes), do: {:ok, changes |> Enum.reverse() |> Enum.concat()}

  defp write_each(tx, [key | keys], op, changes) do
    {:ok, path} = Path.of_key(key)

    case write(tx, path, op.(key)) do
      {:ok, _revision} -> write_each(tx, keys, op, changes)
      {:ok, _revision, more} -> write_each(tx, keys, op, [more | changes])
      error -> error
    end
  end

  defp allowed(_tx, :put, _key, nil), do: :ok

  defp allowed(tx, kind, key, condition) do
    note_value(tx, key)

    case {kind, View.entry(view(tx), key)} do
      {:create, {:ok, entry}} -> {:error, {:exists, entry}}
      {:update, {:error, :not_found}} -> {:error, :not_found}
      {_kind, {:ok, entry}} -> if(met?(condition, entry), do: :ok, else: {:error, {:conflict, entry}})
      {_kind, {:error, :not_found}} -> if(met?(condition, nil), do: :ok, else: {:error, {:conflict, nil}})
      {_kind, {:error, _reason} = error} -> error
    end
  end

  defp seen({:assumed, op}, {view, refused?}) do
    case View.with_op(view, op) do
      {:ok, view, _response} -> {view, refused?}
      {:error, _reason} -> {view, true}
    end
  end

  defp seen(op, {view, refused?}) do
    case View.with_op(view, op) do
      {:ok, view, _response} -> {view, refused?}
      {:error, reason} -> raise Error, reason
    end
  end

  defp fingerprint!(view, pattern, facts) do
    case Native.fingerprint(view, pattern, facts) do
      {:error, reason} -> raise Error, Error.public(reason)
      fingerprint -> fingerprint
    end
  end

  defp met?(nil, _entry), do: true
  defp met?({:revision, revision}, nil), do: revision == 0
  defp met?({:revision, revision}, %Entry{} = entry), do: revision == entry.revision
  defp met?({:payload, _payload}, nil), do: false
  defp met?({:payload, payload}, %Entry{} = entry), do: payload == Call.encode(entry.value)

  # Once for each thing that is read: looking at a pattern again would find the same, and take as long.
  defp note(tx, what, compare) do
    case state(tx) do
      %{compare: %{^what => noted}} ->
        noted

      state ->
        noted = compare.(state.base)
        Process.put(@running, %{state | compare: Map.put(state.compare, what, noted)})
        noted
    end
  end

  defp state(%__MODULE__{ref: ref}) do
    case Process.get(@running) do
      %{ref: ^ref} = state -> state
      _other -> raise ArgumentError, "the transaction is over, or is run by another process"
    end
  end
end
