defmodule Tank.Khepri.Engine do
  @moduledoc false
  # What the rest of `Tank.Khepri` asks of the engine, and the only place that knows how the engine keeps Khepri's nodes.
  #
  # A node is `{key, props}`: its key in the engine (or its path, where few need the key), and Khepri's properties (`data`
  # or `sproc`, `payload_version`, `child_list_version`, `child_list_length`). A source is a view, or a transaction: that
  # notes what was read.

  import Tank.Khepri.Records

  alias Tank.Khepri.KeepWhile
  alias Tank.Store.{Call, Error, Native, Path, Running, Tx, View}
  alias Tank.Store.Tree.Writes

  @type source :: View.t() | Tx.t()
  @type t :: {binary | list, map}
  @typedoc "What a transaction relies on: nothing, whether a node is there, its payload too, its children's list too."
  @type need :: :nothing | :exists | :payload | :all
  @typedoc "What an operation did to a node: how it was, and what became of it."
  @type change :: {list, t | nil, map | :explicit | :keep_while}

  # Below it are registered projections and triggers. It is not shown.
  @hidden :"$khepri"

  # What the engine keeps next to a payload.
  @none 0
  @data 1
  @sproc 2

  @doc "The component below which this application keeps what is its own."
  @spec hidden :: atom
  def hidden, do: @hidden

  # -- Views, commits

  @doc "A view to read, `:consistency` or `:low_latency`."
  @spec view(atom, atom, timeout) :: {:ok, View.t()} | {:error, term}
  defdelegate view(store, favor, timeout), to: View, as: :take

  @doc "A view that is current, if that takes no asking; otherwise `:wait`."
  @spec current_view(atom) :: {:ok, View.t(), true} | :wait | {:error, term}
  def current_view(store_id) do
    with {:ok, store} <- Running.fetch(store_id) do
      case Native.view(store, true) do
        {:ok, view} -> {:ok, view, true}
        :wait -> :wait
        {:error, reason} -> {:error, Error.public(reason)}
      end
    end
  end

  @doc "Waits until this member has applied a log entry."
  @spec await_applied(atom, non_neg_integer, timeout) :: :ok | {:error, term}
  def await_applied(store_id, index, timeout) do
    with {:ok, store} <- Running.fetch(store_id),
         do: Call.request(&Native.await_applied(store, &1, index, &2), timeout)
  end

  @doc "Does operations in one log entry, if all comparisons hold: `{:ok, revision, responses}` or `:conflict`."
  @spec commit(atom, [tuple], [tuple], timeout) :: {:ok, non_neg_integer, [tuple | :done]} | :conflict | {:error, term}
  # Khepri has no limits of paths and operations. A single operation takes no transaction.
  def commit(store, [], [{:put, key, payload, lease, condition, how}], timeout),
    do: single(store, {:put, key, payload, condition, lease, how}, byte_size(payload), timeout)

  def commit(store, [], [{:delete, _key, _condition, _answer?} = delete], timeout),
    do: single(store, delete, 0, timeout)

  def commit(store, compare, ops, timeout) do
    command = {:wide, {:txn, compare, ops, []}}

    case Writes.command(store, command, :erlang.external_size(command), timeout) do
      {:ok, {:txn, true, revision, responses}} -> {:ok, revision, responses}
      {:ok, {:txn, false, _revision, _responses}} -> :conflict
      {:error, reason} -> {:error, reason}
    end
  end

  defp single(store, command, bytes, timeout) do
    case Call.command(store, {:wide, command}, bytes, timeout) do
      {:ok, {:changed, revision, changes}} -> {:ok, revision, [{:changed, changes}]}
      {:ok, revision} -> {:ok, revision, [:done]}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "The revision of a view, or of the one that a transaction began with."
  @spec revision(source) :: non_neg_integer
  def revision(%Tx{} = tx), do: Tx.revision(tx)
  def revision(view), do: Native.view_revision(view)

  # -- Following

  @typedoc "A place in the changes of a store, which the process that made it is told of."
  @type follower :: reference

  # Revisions taken at a time.
  @batch 256

  @doc """
  Follows all changes from now on, of nodes without a payload, too. When there is something after `taken/1` found nothing, the
  caller is sent `:tank_watch_ready`. It saves a process between: see `Tank.Store.Watch`, whose process this does without.
  """
  @spec follow(atom) :: {:ok, follower} | {:error, term}
  def follow(store_id) do
    with {:ok, store} <- Running.fetch(store_id),
         {:ok, watch, _revision, _current, _history} <-
           Native.watch_start(store, {:nodes, ""}, :now, false, self(), make_ref()),
         do: {:ok, watch}
  end

  @doc """
  What came next: `{:more, revisions, position}` when there may be more at once, `{:last, revisions, position}` when the
  caller will be told. Everything up to `position` was looked at.
  """
  @spec taken(follower) :: {:more | :last, [{pos_integer, [tuple]}], non_neg_integer} | {:error, term}
  def taken(watch) do
    case with(:dirty <- Native.watch_next(watch, @batch), do: Native.watch_next_large(watch, @batch)) do
      {:ok, revisions, position} -> {:more, revisions, position}
      {:last, revisions, position} -> {:last, revisions, position}
      {:idle, position} -> {:last, [], position}
      {:compacted, _min} -> {:error, :compacted}
      {:error, reason} -> {:error, reason}
    end
  end

  # -- Reading

  @spec key(Path.t()) :: binary
  def key(path), do: Enum.reduce(path, "", &Path.child_key(&2, &1))

  @doc "The path of a key."
  @spec path(binary) :: list
  def path(key) do
    {:ok, path} = Path.of_key(key)
    path
  end

  @doc "The root: it is always there."
  @spec root(source) :: t
  def root(source) do
    {key, props} = node(source, "", :nothing)
    hidden = if exists?(view_of(source), key([@hidden])), do: 1, else: 0
    {key, Map.update!(props, :child_list_length, &(&1 - hidden))}
  end

  @doc "A child of a node by its name, or nil."
  @spec child(source, t, atom | binary, need) :: t | nil
  def child(_source, {"", _props}, @hidden, _need), do: nil
  def child(source, {key, _props}, name, need), do: node(source, Path.child_key(key, name), need)

  @doc "The node at a key, or nil."
  @spec node(source, binary, need) :: t | nil
  def node(source, key, need) do
    note(source, key, need)

    case View.node(view_of(source), key) do
      {:ok, node} -> {key, props(node)}
      {:error, :not_found} -> nil
    end
  end

  @doc "The highest missing node among a missing path and the paths above it. A missing node has nothing below it."
  @spec first_missing(source, list) :: list
  def first_missing(source, [_ | _] = path) do
    above = Enum.drop(path, -1)

    if above == [] or exists?(view_of(source), key(above)) do
      note(source, key(path), :exists)
      if above != [], do: note(source, key(above), :exists)
      path
    else
      first_missing(source, above)
    end
  end

  @doc "The children of a node, with their names."
  @spec children(source, t, need) :: [{atom | binary, t}]
  def children(source, {path, props}, need) when is_list(path), do: children(source, {key(path), props}, need)

  def children(source, {key, _props}, need) do
    note_matches(source, parts(key) ++ [one: :any], need)
    {:ok, nodes} = View.list_nodes(view_of(source), key, %{after: nil, limit: :infinity, depth: 1, reverse: false})

    for node <- nodes, name = node |> elem(0) |> List.last(), not (key == "" and name == @hidden) do
      {name, {Path.child_key(key, name), props(node)}}
    end
  end

  @doc "The names of a node's children."
  @spec child_names(source, t) :: [atom | binary]
  def child_names(source, node), do: for({name, _child} <- children(source, node, :exists), do: name)

  @doc "The nodes that a pattern in the engine's own words matches."
  @spec select(source, [tuple], need) :: [{list, t}]
  def select(source, pattern, need) do
    note_matches(source, pattern, need)
    {:ok, nodes} = View.select(view_of(source), pattern, :nodes)
    for node <- nodes, path = elem(node, 0), not match?([@hidden | _], path), do: {path, {path, props(node)}}
  end

  @doc "The payloads of the nodes that a pattern in the engine's own words matches, by path."
  @spec payloads(source, [tuple], term) :: map
  def payloads(source, pattern, default) do
    note_matches(source, pattern, :payload)
    {:ok, payloads} = View.values_by_path(view_of(source), pattern, key([@hidden]), default)
    payloads
  end

  @doc "The conditions by which a node is kept, as they were given, or nil."
  @spec keep_while(source, binary | list) :: map | nil
  def keep_while(source, path) when is_list(path), do: keep_while(source, key(path))
  def keep_while(source, key), do: source |> view_of() |> Native.kept_by(key) |> KeepWhile.given()

  @doc "Those of all nodes, with their paths."
  @spec all_keep_while(source) :: [{list, map}]
  def all_keep_while(source) do
    for {key, encoded} <- Native.all_kept(view_of(source)), do: {path(key), KeepWhile.given(encoded)}
  end

  # -- Writing

  @doc "The operation that puts a payload. It answers, if that is asked for, with what it changed."
  @spec put_op(binary, Tank.Khepri.Payload.t(), tuple | nil, tuple | nil, boolean) :: tuple
  def put_op(key, payload, condition, keep_while, answer?) do
    {kind, encoded} = encode(payload)
    {:put, key, encoded, 0, condition, {kind, true, keep_while, answer?}}
  end

  @doc "The operation that deletes a node and all below it."
  @spec delete_op(binary, boolean) :: tuple
  def delete_op(key, answer?), do: {:delete, key, nil, answer?}

  @doc "Whether an operation answers nothing: within a transaction it can wait until that reads."
  @spec silent?(tuple) :: boolean
  def silent?({:put, _key, _payload, _lease, nil, {_kind, _same?, _keep_while, false}}), do: true
  def silent?({:delete, _key, nil, false}), do: true
  def silent?(_op), do: false

  @doc "Does an operation within a transaction, which relies on what that answers, or on why it was refused."
  @spec apply_op(Tx.t(), tuple) :: {:ok, tuple} | {:error, term}
  def apply_op(tx, op) do
    answer = Tx.apply_op(tx, op)
    note_answer(tx, op, answer)
    answer
  end

  defp note_answer(
         tx,
         {:put, _key, _payload, _lease, _condition, {_kind, _same, {patterns, _given}, _answer?}},
         {:error, _}
       ),
       do: for({pattern, _condition} <- patterns, do: Tx.note_matches(tx, pattern, :nodes))

  defp note_answer(tx, op, {:ok, {:changed, changes}}) do
    key = elem(op, 1)
    if elem(op, 0) == :delete, do: Tx.note_matches(tx, parts(key) ++ [many: :any], :nodes)
    note(tx, key, :payload)
    for {path, _before, :not_kept} <- changes, do: note(tx, key(path), :payload)
  end

  defp note_answer(_tx, _op, _short_answer), do: :ok

  @doc "What an operation answered."
  @spec changes(term) :: [change]
  def changes({:changed, changes}), do: Enum.map(changes, &change/1)
  def changes(_short_answer), do: []

  defp change({path, before, become}), do: {path, before && {path, props(decoded(before))}, become(become)}

  defp become({:there, payload_version, child_list_version, children}) do
    %{
      payload_version: payload_version,
      child_list_version: child_list_version,
      child_list_length: children
    }
  end

  defp become(:deleted), do: :explicit
  defp become(:not_kept), do: :keep_while

  defp decoded({_path, _kind, nil, _, _, _, _} = node), do: node
  defp decoded(node), do: put_elem(node, 2, :erlang.binary_to_term(elem(node, 2)))

  # -- What this application keeps for itself

  @doc "What is at a path of its own, or nil."
  @spec own(source, list) :: term
  def own(source, path) do
    case node(source, key([@hidden | path]), :payload) do
      {_key, %{data: value}} -> value
      _none -> nil
    end
  end

  @doc "All that is below a path of its own, by name."
  @spec own_list(source, list) :: [{atom, term}]
  def own_list(source, path) do
    for {name, {_key, %{data: value}}} <- children(source, {key([@hidden | path]), %{}}, :payload), do: {name, value}
  end

  @spec own_put(Tx.t(), list, term) :: :ok
  def own_put(tx, path, value) do
    {:ok, _revision} = Tx.write(tx, {:put, key([@hidden | path]), Call.encode(value), 0})
    :ok
  end

  @spec own_delete(Tx.t(), list) :: :ok
  def own_delete(tx, path) do
    {:ok, _revision} = Tx.write(tx, {:delete, key([@hidden | path])})
    :ok
  end

  # -- Properties

  @doc "The payload of a node."
  @spec payload_of(t) :: Tank.Khepri.Payload.t()
  def payload_of({_key, %{data: data}}), do: p_data(data: data)
  def payload_of({_key, %{sproc: fun}}), do: p_sproc(sproc: fun, is_valid_as_tx_fun: :rw)
  def payload_of(_without), do: no_payload()

  @doc "The properties of a node of which a change tells the value."
  @spec props_of_value(term, non_neg_integer) :: map
  def props_of_value(value, version), do: with_payload(%{payload_version: version}, kind_of(value), value)

  @doc "Properties of a change, with those of the node's children as they are now."
  @spec with_children(map, source, list) :: map
  def with_children(props, view, path) when props != %{} do
    case node(view, key(path), :nothing) do
      nil -> Map.merge(props, %{child_list_version: 1, child_list_length: 0})
      {_key, now} -> Map.merge(props, Map.take(now, [:child_list_version, :child_list_length]))
    end
  end

  def with_children(none, _view, _path), do: none

  # Changes do not tell the kind: functions are stored procedures.
  defp kind_of(value), do: if(is_function(value), do: @sproc, else: @data)

  defp props({_path, kind, value, payload_version, child_list_version, children, numbers}) do
    props = %{
      payload_version: payload_version,
      child_list_version: child_list_version,
      child_list_length: children
    }

    if numbers, do: with_payload(props, kind, value), else: props
  end

  defp with_payload(props, @sproc, fun), do: Map.put(props, :sproc, fun)
  defp with_payload(props, _data, data), do: Map.put(props, :data, data)

  defp encode(no_payload()), do: {@none, ""}
  defp encode(p_data(data: data)), do: {@data, Call.encode(data)}
  defp encode(p_sproc(sproc: fun)), do: {@sproc, Call.encode(fun)}

  # -- What a transaction relies on

  defp note(%Tx{} = tx, key, :exists), do: Tx.note_exists(tx, key)
  defp note(%Tx{} = tx, key, :payload), do: Tx.note_payload(tx, key)

  defp note(%Tx{} = tx, key, :all) do
    :ok = Tx.note_payload(tx, key)
    Tx.note_children(tx, key)
  end

  defp note(_source, _key, _need), do: :ok

  defp note_matches(%Tx{} = tx, pattern, :all), do: Tx.note_matches(tx, pattern, :nodes)
  defp note_matches(%Tx{} = tx, pattern, :exists), do: Tx.note_matches(tx, pattern, :paths)

  defp note_matches(%Tx{} = tx, pattern, :payload) do
    Tx.note_matches(tx, pattern, :paths)
    Tx.note_matches(tx, pattern, :payloads)
  end

  defp note_matches(_source, _pattern, _need), do: :ok

  defp exists?(view, key), do: match?({true, _revision}, Native.node(view, key))
  defp view_of(%Tx{} = tx), do: Tx.view(tx)
  defp view_of(view), do: view

  defp parts(key), do: for(part <- :binary.split(key, <<0>>, [:global, :trim]), do: {:one, {:is, part <> <<0>>}})
end
