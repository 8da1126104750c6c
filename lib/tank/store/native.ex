defmodule Tank.Store.Native do
  @moduledoc false
  # The functions of the Rust library, and nothing else; what each takes and gives stands beside it in
  # native/tank_nif. Private to this library, and may change any day.
  #
  # This module must never change while it runs: the BEAM cannot replace a loaded library.

  @on_load :load
  @library Mix.Tasks.Compile.TankNative.library_name()
  @version Mix.Project.config()[:version]

  @type store :: reference
  @type call :: reference
  @type leader :: {node, store_id :: String.t(), cluster_id :: non_neg_integer, member_id :: non_neg_integer}
  @type link :: reference
  @type work :: reference
  @type pinned :: reference
  @type channel :: :control | :data
  @typedoc "Tells of changes of the cluster for as long as it is referred to."
  @type following :: reference
  @typedoc "What a directory must hold when it is opened again: a member, of that cluster or any, on that file system."
  @type expected ::
          {cluster_id :: non_neg_integer | nil, member_id :: non_neg_integer, {non_neg_integer, non_neg_integer}}
  @type reason :: atom | tuple
  @type view :: reference
  @typedoc "path, value or its encoding, revision, create_revision, version, child_count, lease; payload_version, child_list_version"
  @type entry ::
          {Tank.Store.Path.t(), term, pos_integer, pos_integer, pos_integer, non_neg_integer, non_neg_integer}
          | {Tank.Store.Path.t(), term, pos_integer, pos_integer, pos_integer, non_neg_integer, non_neg_integer,
             pos_integer, pos_integer}
  @typedoc "path, kind, value or its encoding or nil, payload_version, child_list_version, child_count, numbers of its entry"
  @type tree_node ::
          {Tank.Store.Path.t(), byte, term, pos_integer, pos_integer, non_neg_integer,
           {pos_integer, pos_integer, pos_integer, non_neg_integer} | nil}
  @typedoc "path, what there is of its encoded value or nil, bytes of all of it, child_count, numbers of its entry or zeros"
  @type browsed ::
          {Tank.Store.Path.t(), binary | nil, non_neg_integer, non_neg_integer,
           {revision :: non_neg_integer, create_revision :: non_neg_integer, version :: non_neg_integer,
            lease :: non_neg_integer}}
  @type watch :: reference
  @type change ::
          {:created | :updated | :deleted | :expired, [atom | binary], term, term, pos_integer, non_neg_integer,
           {create_revision :: non_neg_integer, lease :: non_neg_integer, matches? :: boolean}}
  @typedoc "The key of a path, for all at it and below; or an encoded pattern."
  @type prefix_or_pattern :: binary | [{:one | :many, term}]
  @type next ::
          {:ok | :last, [{pos_integer, [change]}], non_neg_integer}
          | {:idle, non_neg_integer}
          | {:compacted, non_neg_integer}
          | {:error, reason}
  @type from :: :snapshot | :now | Tank.Store.Position.t()
  @typedoc "What became of a node: its path, its numbers before and after, and its value."
  @type node_step :: {:node, list, node_numbers | nil, node_numbers | nil, {:value, term} | nil}
  @typedoc "Payload version, child list version, children."
  @type node_numbers :: {pos_integer, pos_integer, non_neg_integer}
  @type watch_started ::
          {:ok, watch, revision :: non_neg_integer, current :: non_neg_integer, Tank.Store.Position.history()}
  @type since :: :unchanged | {:ok, [change], non_neg_integer} | {:error, {:compacted, non_neg_integer} | reason}
  @typedoc "A value that may be kept, and what `is_current/3` takes."
  @type to_keep :: {:keep, term, slot, revision :: non_neg_integer}
  @type slot :: non_neg_integer
  @type room :: {:room, heap_words :: non_neg_integer, binary_words :: non_neg_integer}

  @doc false
  # A library that cannot be used leaves the module in place, and `check/0` says why: in a release, a module that fails to load
  # ends the VM without a word about it.
  def load do
    case :erlang.load_nif(String.to_charlist(path()), 0) do
      :ok -> note_failure(nil)
      {:error, {reason, _text}} = error when reason in [:reload, :upgrade, :old_code] -> error
      {:error, {_reason, text}} -> note_failure(List.to_string(text))
    end
  end

  defp note_failure(text), do: :persistent_term.put(__MODULE__, text)

  @doc "Whether the library is there, and of this version; the message says what to do."
  @spec check :: :ok | {:error, String.t()}
  def check do
    with nil <- :persistent_term.get(__MODULE__, nil),
         @version <- version() do
      :ok
    else
      found -> {:error, unusable(found)}
    end
  end

  defp unusable(found) do
    """
    tank_store #{@version} cannot use its Rust library #{path()}.so: #{if found =~ ~r/^\d+\.\d+\.\d+/, do: "it is of version #{found}", else: found}. \
    Build it again with `mix deps.compile tank_store --force` (`mix compile --force` in its own project); or, if TANK_STORE_NIF_PATH or \
    `config :tank_store, precompiled:` names a library, give one of version #{@version} for this system.\
    """
  end

  defp path, do: Application.app_dir(:tank_store, "priv/native/" <> @library)

  @spec version :: String.t()
  def version, do: nif()

  @spec open(reference, map, link) :: {:ok, call} | {:error, reason}
  def open(_ref, _options, _link), do: nif()

  @spec opening(store) :: opening :: non_neg_integer
  def opening(_store), do: nif()

  @spec own(store) :: :ok
  def own(_store), do: nif()

  @spec close(reference, store) :: {:ok, call} | {:error, reason}
  def close(_ref, _store), do: nif()

  @spec retire(reference, store) :: {:ok, call} | {:error, reason}
  def retire(_ref, _store), do: nif()

  @spec expected(store) :: expected
  def expected(_store), do: nif()

  @spec discard_aside(reference, store, is_to_vote :: boolean) :: {:ok, call} | {:error, reason}
  def discard_aside(_ref, _store, _is_to_vote), do: nif()

  @spec erase(reference, String.t(), String.t()) :: {:ok, call} | {:error, reason}
  def erase(_ref, _dir, _store_id), do: nif()

  @spec peek(reference, String.t(), String.t()) :: {:ok, call} | {:error, reason}
  def peek(_ref, _dir, _store_id), do: nif()

  @spec mark_formed(reference, String.t()) :: {:ok, call} | {:error, reason}
  def mark_formed(_ref, _dir), do: nif()

  @spec status(store) :: {:ok, map} | {:error, reason}
  def status(_store), do: nif()

  @spec write(
          store,
          reference,
          :put | :create | :update | :delete,
          binary,
          binary,
          non_neg_integer | nil,
          non_neg_integer
        ) :: {:ok, call} | {:error, reason}
  def write(_store, _ref, _kind, _key, _payload, _condition, _timeout_ms), do: nif()

  @spec write_large(
          store,
          reference,
          :put | :create | :update | :delete,
          binary,
          binary,
          non_neg_integer | nil,
          non_neg_integer
        ) :: {:ok, call} | {:error, reason}
  def write_large(_store, _ref, _kind, _key, _payload, _condition, _timeout_ms), do: nif()

  @spec command(store, reference, tuple, non_neg_integer) :: {:ok, call} | :dirty | {:error, reason}
  def command(_store, _ref, _command, _timeout_ms), do: nif()

  @spec command_large(store, reference, tuple, non_neg_integer) :: {:ok, call} | {:error, reason}
  def command_large(_store, _ref, _command, _timeout_ms), do: nif()

  @spec view(store, boolean) :: {:ok, view} | :wait | {:error, reason}
  def view(_store, _authoritative?), do: nif()

  @spec view_revision(view) :: non_neg_integer
  def view_revision(_view), do: nif()

  @spec view_with(view, tuple) :: {:ok, view, tuple} | :dirty | {:error, reason}
  def view_with(_view, _op), do: nif()

  @spec view_with_large(view, tuple) :: {:ok, view, tuple} | {:error, reason}
  def view_with_large(_view, _op), do: nif()

  @spec node(view, binary) :: {exists? :: boolean, revision :: non_neg_integer}
  def node(_view, _key), do: nif()

  @spec child_count(view, binary) :: non_neg_integer
  def child_count(_view, _key), do: nif()

  @spec fingerprint(view, [tuple], :paths | :payloads | :entries | :nodes) ::
          {non_neg_integer, non_neg_integer} | {:error, reason}
  def fingerprint(_view, _pattern, _facts), do: nif()

  @spec node_info(view, binary) :: {:ok, tree_node} | :not_found | :dirty | {:error, reason}
  def node_info(_view, _key), do: nif()

  @spec node_info_large(view, binary) :: {:ok, tree_node} | :not_found | {:error, reason}
  def node_info_large(_view, _key), do: nif()

  @spec list_nodes(view, binary, binary | nil, non_neg_integer, pos_integer, boolean) ::
          [tree_node] | :dirty | {:error, reason}
  def list_nodes(_view, _prefix, _after, _limit, _depth, _reverse?), do: nif()

  @spec list_nodes_large(view, binary, binary | nil, non_neg_integer, pos_integer, boolean) ::
          [tree_node] | {:error, reason}
  def list_nodes_large(_view, _prefix, _after, _limit, _depth, _reverse?), do: nif()

  @spec browse_node(view, binary, non_neg_integer) :: {:ok, browsed} | :not_found | {:error, reason}
  def browse_node(_view, _key, _bytes_max), do: nif()

  @spec browse(view, binary, binary | nil, non_neg_integer, boolean, non_neg_integer) ::
          {:ok, [browsed]} | {:error, reason}
  def browse(_view, _prefix, _after, _limit, _reverse?, _bytes_max), do: nif()

  @spec list_leases(view, binary | nil, non_neg_integer) ::
          [{binary, binary, pos_integer, pos_integer, non_neg_integer}]
  def list_leases(_view, _after, _limit), do: nif()

  @spec kept_by(view, binary) :: binary | nil
  def kept_by(_view, _key), do: nif()

  @spec all_kept(view) :: [{key :: binary, binary}]
  def all_kept(_view), do: nif()

  @spec entry(view, binary) :: {:ok, entry} | :not_found | :dirty | {:error, reason}
  def entry(_view, _key), do: nif()

  @spec entry_large(view, binary) :: {:ok, entry} | :not_found | {:error, reason}
  def entry_large(_view, _key), do: nif()

  @spec list(view, binary, binary | nil, non_neg_integer, pos_integer, boolean, boolean) ::
          [entry] | :dirty | {:error, reason}
  def list(_view, _prefix, _after, _limit, _depth, _reverse?, _keys_only?), do: nif()

  @spec list_large(view, binary, binary | nil, non_neg_integer, pos_integer, boolean, boolean) ::
          [entry] | {:error, reason}
  def list_large(_view, _prefix, _after, _limit, _depth, _reverse?, _keys_only?), do: nif()

  @spec select(view, [tuple], :count | :keys | :values | :entries | :nodes, binary | nil, non_neg_integer) ::
          non_neg_integer | list | :dirty | {:error, reason}
  def select(_view, _pattern, _what, _after, _limit), do: nif()

  @spec select_large(view, [tuple], :count | :keys | :values | :entries | :nodes, binary | nil, non_neg_integer) ::
          non_neg_integer | list | {:error, reason}
  def select_large(_view, _pattern, _what, _after, _limit), do: nif()

  @spec values_by_path(view, [tuple], binary, term) :: map | :dirty | {:error, reason}
  def values_by_path(_view, _pattern, _except, _default), do: nif()

  @spec values_by_path_large(view, [tuple], binary, term) :: map | {:error, reason}
  def values_by_path_large(_view, _pattern, _except, _default), do: nif()

  @spec entry_at(reference, store, binary, Tank.Store.Position.t()) :: {:ok, call} | {:error, reason}
  def entry_at(_ref, _store, _key, _position), do: nif()

  @spec await_revision(store, reference, Tank.Store.Position.t(), non_neg_integer) :: {:ok, call}
  def await_revision(_store, _ref, _position, _timeout_ms), do: nif()

  @spec cancel(call) :: boolean
  def cancel(_call), do: nif()

  @spec get(store, binary) :: {:ok, term} | to_keep | :not_found | :wait | :dirty | {:error, reason}
  def get(_store, _key), do: nif()

  @spec get_large(store, binary) :: {:ok, term} | :not_found | :wait | {:error, reason}
  def get_large(_store, _key), do: nif()

  @spec get_local(store, binary) :: {:ok, term} | to_keep | :not_found | :dirty | {:error, reason}
  def get_local(_store, _key), do: nif()

  @spec get_local_large(store, binary) :: {:ok, term} | :not_found | {:error, reason}
  def get_local_large(_store, _key), do: nif()

  @spec is_current(store, slot, non_neg_integer) :: boolean | :wait
  def is_current(_store, _slot, _revision), do: nif()

  @spec is_current_here(store, slot, non_neg_integer) :: boolean
  def is_current_here(_store, _slot, _revision), do: nif()

  @spec await_readable(store, reference, non_neg_integer) :: {:ok, call} | {:error, reason}
  def await_readable(_store, _ref, _timeout_ms), do: nif()

  @spec leader_elsewhere(store) :: leader | nil
  def leader_elsewhere(_store), do: nif()

  @spec read_index(store, non_neg_integer, non_neg_integer) :: non_neg_integer | nil
  def read_index(_store, _cluster_id, _member_id), do: nif()

  @spec has_applied(store, non_neg_integer) :: boolean
  def has_applied(_store, _index), do: nif()

  @spec await_applied(store, reference, non_neg_integer, non_neg_integer) :: {:ok, call} | {:error, reason}
  def await_applied(_store, _ref, _index, _timeout_ms), do: nif()

  @spec await_quorum(store, reference, non_neg_integer) :: {:ok, call} | {:error, reason}
  def await_quorum(_store, _ref, _timeout_ms), do: nif()

  @spec values(store, binary, boolean) :: [term] | :dirty | room | {:error, reason}
  def values(_store, _prefix, _roomy), do: nif()

  @spec values_large(store, binary, boolean) :: [term] | room | {:error, reason}
  def values_large(_store, _prefix, _roomy), do: nif()

  @spec children(store, binary, boolean) :: [{:atom | :string, binary, term}] | :dirty | room | {:error, reason}
  def children(_store, _prefix, _roomy), do: nif()

  @spec children_large(store, binary, boolean) :: [{:atom | :string, binary, term}] | room | {:error, reason}
  def children_large(_store, _prefix, _roomy), do: nif()

  @spec acquire_lease(store, reference, binary, binary, pos_integer, non_neg_integer) :: {:ok, call} | {:error, reason}
  def acquire_lease(_store, _ref, _name, _holder, _ttl_ms, _timeout_ms), do: nif()

  @spec renew_lease(store, reference, binary, pos_integer, non_neg_integer) :: {:ok, call} | {:error, reason}
  def renew_lease(_store, _ref, _name, _epoch, _timeout_ms), do: nif()

  @spec release_lease(store, reference, binary, pos_integer, non_neg_integer) :: {:ok, call} | {:error, reason}
  def release_lease(_store, _ref, _name, _epoch, _timeout_ms), do: nif()

  @spec read_lease(store, binary, boolean) :: {:ok, tuple} | :not_found | :wait | {:error, reason}
  def read_lease(_store, _name, _local), do: nif()

  @spec pinned_nodes(pinned) :: [{Tank.Store.Path.t(), bare? :: boolean, kind :: byte | nil, binary | nil}]
  def pinned_nodes(_pinned), do: nif()

  @spec check_put(store, binary, non_neg_integer) :: :ok | {:error, term}
  def check_put(_store, _key, _payload_bytes), do: nif()

  @spec progress :: work
  def progress, do: nif()

  @spec progress_of(work) :: {done :: non_neg_integer, total :: non_neg_integer}
  def progress_of(_work), do: nif()

  @spec cancel_progress(work) :: :ok
  def cancel_progress(_work), do: nif()

  @spec backup(reference, store, String.t(), work) :: {:ok, call} | {:error, reason}
  def backup(_ref, _store, _path, _work), do: nif()

  @spec restore(reference, String.t(), String.t(), String.t() | nil, String.t(), work) :: {:ok, call} | {:error, reason}
  def restore(_ref, _path, _dir, _store_id, _node, _work), do: nif()

  @spec pin(store) :: {:ok, pinned, revision :: non_neg_integer, count :: non_neg_integer} | {:error, reason}
  def pin(_store), do: nif()

  @spec page(pinned, binary | nil, pos_integer) ::
          {[{Tank.Store.Path.t(), binary, non_neg_integer}], binary | nil} | {:error, reason}
  def page(_pinned, _after, _bytes_max), do: nif()

  @spec encode_base64(binary) :: binary
  def encode_base64(_bytes), do: nif()

  @spec decode_base64(binary) :: {:ok, binary} | :error
  def decode_base64(_text), do: nif()

  @spec put_all(
          store,
          reference,
          [{binary, binary, lease_epoch :: non_neg_integer}],
          {binary, pos_integer} | nil,
          non_neg_integer
        ) :: {:ok, call} | {:error, reason}
  def put_all(_store, _ref, _puts, _guard, _timeout_ms), do: nif()

  @spec cluster(store) :: {:ok, map} | {:error, reason}
  def cluster(_store), do: nif()

  @spec follow_cluster(store) :: {:ok, following} | {:error, reason}
  def follow_cluster(_store), do: nif()

  @spec change_members(store, reference, tuple, non_neg_integer) :: {:ok, call} | {:error, reason}
  def change_members(_store, _ref, _change, _timeout_ms), do: nif()

  @spec transfer_leader(store, reference, non_neg_integer, non_neg_integer) :: {:ok, call} | {:error, reason}
  def transfer_leader(_store, _ref, _to, _timeout_ms), do: nif()

  @spec peer_lost(store, String.t()) :: :ok
  def peer_lost(_store, _node), do: nif()

  @spec link :: link
  def link, do: nif()

  @spec set_relay(link, String.t(), channel, pid) :: :ok
  def set_relay(_link, _node, _channel, _pid), do: nif()

  @spec unset_relays(link, String.t()) :: :ok
  def unset_relays(_link, _node), do: nif()

  @spec relayed(link, String.t(), channel, non_neg_integer) :: :ok
  def relayed(_link, _node, _channel, _bytes), do: nif()

  @spec peer_absent(store, String.t()) :: :ok
  def peer_absent(_store, _node), do: nif()

  @spec deliver(store, String.t(), binary) :: :ok | {:other_cluster, cluster_id :: non_neg_integer}
  def deliver(_store, _node, _frame), do: nif()

  @spec watch_start(store, prefix_or_pattern, from, boolean, pid, reference) ::
          watch_started | :dirty | {:error, {:compacted, non_neg_integer} | reason}
  def watch_start(_store, _prefix_or_pattern, _from, _asked?, _subscriber, _ref), do: nif()

  @spec watch_start_large(store, prefix_or_pattern, from, boolean, pid, reference) ::
          watch_started | {:error, {:compacted, non_neg_integer} | reason}
  def watch_start_large(_store, _prefix_or_pattern, _from, _asked?, _subscriber, _ref), do: nif()

  @spec watch_snapshot(watch, pos_integer, pos_integer) :: {:ok, [entry], boolean} | {:error, reason}
  def watch_snapshot(_watch, _entries, _bytes), do: nif()

  @spec watch_next(watch, pos_integer) :: next | :dirty
  def watch_next(_watch, _revisions), do: nif()

  @spec watch_next_large(watch, pos_integer) :: next
  def watch_next_large(_watch, _revisions), do: nif()

  @spec watch_cancel(watch) :: :ok
  def watch_cancel(_watch), do: nif()

  @spec watch_group(watch) :: pos_integer | nil
  def watch_group(_watch), do: nif()

  @spec watch_move(watch, non_neg_integer) :: :ok
  def watch_move(_watch, _revision), do: nif()

  @spec list_since(store, prefix_or_pattern, Tank.Store.Position.t()) :: since | :wait | :dirty
  def list_since(_store, _prefix_or_pattern, _position), do: nif()

  @spec list_since_local(store, prefix_or_pattern, Tank.Store.Position.t()) :: since | :dirty
  def list_since_local(_store, _prefix_or_pattern, _position), do: nif()

  @spec list_since_large(store, prefix_or_pattern, Tank.Store.Position.t(), boolean) :: since
  def list_since_large(_store, _prefix_or_pattern, _position, _asked?), do: nif()

  @spec is_ahead(store, Tank.Store.Position.t()) :: boolean | {:error, reason}
  def is_ahead(_store, _position), do: nif()

  @spec history(store) :: {:ok, Tank.Store.Position.history()} | {:error, reason}
  def history(_store), do: nif()

  @spec histogram_bounds :: [pos_integer]
  def histogram_bounds, do: nif()

  @spec metrics(store) :: %{atom => non_neg_integer | {[non_neg_integer], non_neg_integer}}
  def metrics(_store), do: nif()

  @spec receive_logs :: :ok
  def receive_logs, do: nif()

  @spec skip_lease_time(store, non_neg_integer) :: :ok
  def skip_lease_time(_store, _ms), do: nif()

  @spec arm_fault(String.t(), String.t()) :: :ok | {:error, String.t()}
  def arm_fault(_name, _action), do: nif()

  defp nif, do: :erlang.nif_error(:nif_not_loaded)
end
