defmodule Tank.Store.Error do
  @moduledoc """
  The errors of this library, and what each means for the caller.

  Functions return `{:error, reason}`. Functions that return a plain result (`Tank.Store.get_pod/1`, `Tank.Store.list_pods/0`)
  raise this exception with the same reasons. A store that cannot start returns one in `{:store_init_failed, error}`. Match on
  `reason`, and print the exception.

  | reason | meaning | what to do |
  |---|---|---|
  | `:noproc` | the store is not running; nothing was written | start it, or wait until its supervisor has restarted it |
  | `:overloaded` | too many writes in flight; nothing was written | slow down, retry |
  | `:no_quorum` | no leader that a majority follows; nothing was written | retry |
  | `:witness` | this member is a witness: it serves neither reads nor writes | ask another member |
  | `:log_lost` | this member's disk went back in time; nothing was written | ask another member; a new member is replacing this one |
  | `:history_lost` | this member has committed entries that its cluster lost; nothing was written | decide which history to keep: see the guide on operations |
  | `:state_differs` | the state of this member differs from that of the others; it answers no calls until it is replaced | ask another member; the alarms in the status say what to do |
  | `:only_witnesses_left` | only witnesses would remain, which do not lead; nothing was changed | let another voter join first |
  | `:timeout` | **unknown**: a write may or may not have been applied | read; or repeat the write if a second one does no harm |
  | `:exists`, `:not_found` | there is already a value, or there is none | |
  | `{:exists, entry}`, `{:conflict, entry}` | the entry is not as the write requires; with the current `Tank.Store.Entry`, or nil | read again |
  | `{:invalid_path, why}`, `{:invalid_pattern, why}`, `{:unknown_atom, name}`, `{:too_large, what, limit}` | the call is wrong; nothing was written | correct the call |
  | `{:keep_while, pattern, :unmet \| :no_match}` | a condition that is to keep the node does not hold; nothing was written | `Tank.Store.Tree`, "Conditions that keep nodes" |
  | `{:compacted, min}`, `{:future_revision, current}` | the revision is older than the history, or does not exist yet | |
  | `:lease_ended` | the lease of the entry is no longer held; nothing was written | acquire it again |
  | `:too_many_conflicts` | the transaction conflicted with others at every try; nothing was written | retry later |
  | `:engine_failed` | the store stopped after a fault; the outcome of writes in progress is unknown | its supervisor restarts it |
  | `:disk_full`, `{:storage, why}` | the disk takes no writes; the outcome of writes in progress is unknown, and reads continue from memory | free space or repair the disk; the store continues by itself |
  | `{:lost, what}` | the directory of the store is gone, or something else is at its path; `what` is `:missing`, `:empty`, `:other_store`, `:other_cluster`, `:other_member`, `:other_file_system` or `:replaced`. The outcome of writes in progress is unknown, and local reads continue from memory | put it back or mount it; the store continues by itself. If it is lost for good: the guide "When a disk, a mount or a name is lost" |
  | `{:no_store, path}` | with `create: false`, the directory is missing or empty | mount its disk; for a new store, start it once with `create: true` |
  | `{:no_data_dir, store_id}` | `Tank.Store` was given no `:data_dir`, and no store of this id runs | give one, or start the store first |
  | `{:locked, path}` | another store has the directory open | stop that store |
  | `{:wrong_store, found}`, `{:newer_format, found}` | the directory belongs to another store, or to a newer release | give the right directory, or use the newer release |
  | `{:older_format, found}` | the directory belongs to an older release, and this release cannot read it | restore a backup made with that release |
  | `{:not_a_directory, path}`, `{:permission_denied, path}`, `{:not_a_store, path}`, `{:data_dir, path}` | the directory cannot be used | give another one, or repair it |
  | `{:not_empty, path}` | a backup can only be restored into a new or an empty directory | give another one |
  | `{:file, path}` | a backup, an export or an import cannot be read or written | |
  | `{:malformed, line}` | that line of a file is not what an export writes | |
  | `{:invalid_value, line, path}` | the value in that line of a file, for the entry at `path`, does not decode | |
  | `{:held, lease}`, `:lease_ended` | another holder has the lease; the lease is no longer held | `Tank.Store.Lease` |
  | `{:corrupt, what}` | `what` (`:format`, `:marker`, `:log`, `:state`, `:vote`, `:database`, `:backup`) is damaged | restore a backup, or let the member join again |
  | `{:invalid_option, option}` | the option has an invalid value | |
  | `{:already_running, dir}` | a store of this id runs in another directory | give that directory, or stop that store |
  | `:system_not_started` | an atom was given for the directory, and no store of that id runs | give a directory |
  | `:nodedown` | the other node cannot be reached; nothing was changed | check that it is up and has the same cookie |
  | `:closed` | the backend of `Tank.Store.Grove` was closed | open another one |
  | `{:rolled_back, reason}` | the function of `Tank.Store.Tree.transaction!/3` called `rollback/1`; nothing was written | |
  | `{:tank, name, props}` | an error of the cluster. Names are `:not_a_tank_store`, `:failed_to_join_remote_node`, `:cluster_has_other_members`, `:members_in_another_cluster`, `:members_missing`, `:quorum_is_there`, `:not_a_member`, `:is_a_witness`, `:other_cluster`, `:no_list_of_nodes`, `:no_cluster_formed` and `:formation_failed`; `props` is a map with the store and the nodes concerned | the message says what to do |

  Each error has a message that says what to do, also `{:tank, name, props}`:

      iex> error = Tank.Store.Error.exception({:tank, :not_a_tank_store, %{store_id: :app}})
      iex> Exception.message(error)
      "no store :app runs on this node: start it with Tank.Store.Cluster.start/3 first"

  Messages contain paths, files and nodes, but no values of the store, which may be secret.
  """

  alias Tank.Store.Error.Cluster

  # Reasons about a directory or a file: `{kind, path, why}` from the library, `{kind, path}` for callers.
  @directory_kinds [:not_a_directory, :permission_denied, :not_a_store, :not_empty, :no_store, :data_dir, :file]

  defexception [:reason, :message, details: %{}]

  @type t :: %__MODULE__{reason: reason, message: String.t(), details: map}
  @typedoc "See the table. The first element of a tuple says what happened."
  @type reason ::
          :noproc
          | :overloaded
          | :no_quorum
          | :witness
          | :log_lost
          | :history_lost
          | :state_differs
          | :only_witnesses_left
          | :timeout
          | :exists
          | :not_found
          | :lease_ended
          | :too_many_conflicts
          | :engine_failed
          | :disk_full
          | :system_not_started
          | :nodedown
          | :closed
          | cluster_reason
          | {kind :: atom, term}
          | {kind :: atom, term, term}
          | {kind :: atom, term, term, term}
  @typedoc "An error of a cluster, with the stores and nodes concerned."
  @type cluster_reason :: {:tank, name :: atom, props :: map}

  @impl true
  def exception(reason), do: from_native(reason)

  @doc """
  Returns the exception for a reason, which is one that functions return or one of the Rust library.

      iex> Tank.Store.Error.from_native(:timeout).reason
      :timeout
      iex> Exception.message(Tank.Store.Error.from_native({:corrupt, :log, "log entry 7 is missing"}))
      "damaged log: log entry 7 is missing. Restore a backup, or let this member join again."
  """
  @spec from_native(reason | t) :: t
  def from_native(%__MODULE__{} = error), do: error

  def from_native(reason) do
    %__MODULE__{reason: public(reason), message: message_of(reason), details: details(reason)}
  end

  @doc """
  Returns the reason that callers see for a reason of the Rust library: without texts that are for people.

      iex> Tank.Store.Error.public({:engine_failed, "panic in apply: boom"})
      :engine_failed
      iex> Tank.Store.Error.public({:too_large, :value, 16_777_216})
      {:too_large, :value, 16_777_216}
  """
  @spec public(reason) :: reason
  def public(:closed), do: :noproc
  def public({:engine_failed, _why}), do: :engine_failed
  def public({:corrupt, what, _detail}), do: {:corrupt, what}
  def public({:locked, path, _by}), do: {:locked, path}
  def public({:wrong_store, _expected, found}), do: {:wrong_store, found}
  def public({:newer_format, found, _supported}), do: {:newer_format, found}
  def public({:older_format, found, _supported}), do: {:older_format, found}
  def public({:lost, what, _path}), do: {:lost, what}
  def public({:invalid_option, option, _why}), do: {:invalid_option, option}

  def public({kind, path, _why}) when kind in @directory_kinds,
    do: {kind, path}

  def public(reason), do: reason

  defp details({:engine_failed, why}), do: %{why: why}
  defp details({:corrupt, _what, detail}), do: %{detail: detail}
  defp details({:locked, _path, by}), do: %{by: by}
  defp details({:wrong_store, expected, _found}), do: %{expected: expected}
  defp details({:newer_format, _found, supported}), do: %{supported: supported}
  defp details({:older_format, _found, supported}), do: %{supported: supported}
  defp details({:lost, _what, path}), do: %{path: path}
  defp details({:invalid_option, _option, why}), do: %{why: why}

  defp details({kind, _path, why}) when kind in @directory_kinds,
    do: %{why: why}

  defp details(_reason), do: %{}

  defp message_of(reason) when reason in [:noproc, :closed], do: "the store is not running"
  defp message_of(:timeout), do: "no answer in time: the outcome is unknown"
  defp message_of(:overloaded), do: "too many writes in flight: nothing was written, retry later"
  defp message_of(:no_quorum), do: "no leader that a majority of the members follows: nothing was written, retry"
  defp message_of(:witness), do: "this member is a witness, which serves neither reads nor writes: ask another one"

  defp message_of(:log_lost),
    do: "the disk of this member went back in time: ask another one, this one is being replaced by a new member"

  defp message_of(:history_lost) do
    "this member holds committed entries that its cluster does not have any more: decide which history is to stay, " <>
      "see the guide on operations"
  end

  defp message_of(:state_differs),
    do: "the state of this member differs from that of the others: it serves nobody until it has been replaced"

  defp message_of(:only_witnesses_left), do: "only witnesses would be left to vote, and they never lead"
  defp message_of(:disk_full), do: "no space left on the disk of the store: free some, and it goes on by itself"
  defp message_of(:engine_failed), do: "the engine failed; its supervisor restarts it"
  defp message_of({:engine_failed, why}), do: "the engine failed (#{why}); its supervisor restarts it"
  defp message_of({:storage, why}), do: "the disk failed: #{why}"
  defp message_of(:not_found), do: "there is no value at the path"
  defp message_of(:lease_ended), do: "the lease is not held any more: nothing was written"
  defp message_of(:too_many_conflicts), do: "the transaction met others at every try: nothing was written"
  defp message_of({:exists, %{path: path}}), do: "there is a value at #{inspect(path)}"
  defp message_of({:conflict, nil}), do: "there is no value at the path: nothing was written"

  defp message_of({:conflict, %{path: path, revision: revision}}),
    do: "#{inspect(path)} holds something else, written at revision #{revision}: nothing was written"

  defp message_of({:compacted, min}), do: "revisions below #{min} are compacted"
  defp message_of({:future_revision, current}), do: "the store is at revision #{current}"
  defp message_of({:invalid_pattern, why}), do: "invalid pattern: #{why}"
  defp message_of({:unknown_atom, name}), do: "there is no atom #{inspect(name)}"
  defp message_of({:too_large, :transaction, limit}), do: "the transaction has more than #{limit} operations or reads"

  defp message_of({:too_large, :comparisons, limit}),
    do: "the comparisons and lists of the transaction would look at more than #{limit} entries: nothing was written"

  defp message_of({:too_large, :conditions, limit}),
    do:
      "what keep_while conditions make of the command would take more than #{limit} looks at nodes: nothing was written"

  defp message_of({:too_large, :keep_while, _limit}), do: "too many conditions in keep_while, or too large ones"

  defp message_of({:keep_while, pattern, :no_match}),
    do: "no node matches #{inspect(pattern)}, which keep_while names: nothing was written"

  defp message_of({:keep_while, pattern, _unmet}),
    do: "the condition of keep_while on #{inspect(pattern)} does not hold: nothing was written"

  defp message_of({:too_large, :txn, limit}), do: "paths and values are over the limit of #{limit} bytes together"
  defp message_of({:too_large, :regexes, limit}), do: "the pattern has more than #{limit} regular expressions"
  defp message_of({:too_large, :pattern, limit}), do: "the pattern has more than #{limit} parts"
  defp message_of({:too_large, what, limit}), do: "the #{label(what)} is over the limit of #{limit} bytes"
  defp message_of({:invalid_path, why}), do: "invalid path: #{why}"
  defp message_of({:invalid_option, option, why}), do: "option #{option}: #{why}"
  defp message_of({:locked, path, :this_vm}), do: "#{path} is in use by another store of this VM"

  defp message_of({:locked, path, {:other_process, pid}}),
    do: "#{path} is in use by the operating system process #{pid}"

  defp message_of({:locked, path, :other_process}), do: "#{path} is in use by another operating system process"

  defp message_of({:wrong_store, expected, found}),
    do: "the directory holds the store #{inspect(found)}, not #{inspect(expected)}"

  defp message_of({:older_format, found}),
    do:
      "the directory has format #{found}, which this release does not read: restore a backup made with the release that wrote it"

  defp message_of({:older_format, found, supported}),
    do:
      "the directory has format #{found}, and this release reads #{supported} only: restore a backup made with the release that wrote it"

  defp message_of({:newer_format, found, supported}),
    do: "the directory has format #{found}, and this release reads #{supported}: use the release that wrote it"

  defp message_of({:corrupt, what, detail}),
    do: "damaged #{label(what)}: #{detail}. Restore a backup, or let this member join again."

  defp message_of({:lost, what, path}) do
    "the directory of the store is lost: #{path} #{loss(what)}. Nothing was changed there. Local reads go on from memory, " <>
      "and writes are refused. Put the directory back or mount it again, and the store goes on by itself. If it is lost " <>
      "for good, stop the store before you start a new one"
  end

  # Of what calls return, which does not name it.
  defp message_of({:lost, what}), do: message_of({:lost, what, "it"})

  defp message_of({:no_store, path, why}) do
    "data_dir #{path}: #{why} (create: false). If its disk is not mounted, mount it. If this is a new store, start it " <>
      "once with create: true"
  end

  defp message_of({:file, path, why}), do: "#{path}: #{why}"

  defp message_of({kind, path, why}) when kind in @directory_kinds,
    do: "data_dir #{path}: #{why}"

  # As functions return them: without what only a person reads.
  defp message_of({:file, path}), do: "#{path} cannot be read or written: is it there, and is there room?"
  defp message_of({kind, path}) when kind in @directory_kinds, do: "data_dir #{path} #{wrong(kind)}"
  defp message_of({:corrupt, what}), do: "damaged #{label(what)}. Restore a backup, or let this member join again."
  defp message_of({:locked, path}), do: "#{path} is in use by another store: stop that one"
  defp message_of({:wrong_store, found}), do: "the directory holds the store #{inspect(found)}: give that of this one"
  defp message_of({:invalid_option, option}), do: "option #{option} has no such value"

  defp message_of({:newer_format, found}),
    do: "the directory has format #{inspect(found)}, which is newer: use the release that wrote it"

  defp message_of({:malformed, line}) when is_integer(line), do: "line #{line} is not what an export writes"

  defp message_of({:invalid_value, line, path}),
    do: "line #{line}: the value of #{inspect(path)} is not in the external term format: nothing was written"

  defp message_of({:no_data_dir, store_id}) do
    "no :data_dir given, and no store #{inspect(store_id)} runs: give a :data_dir, or start that store with " <>
      "Tank.Store.Cluster.start/2 before"
  end

  defp message_of({:held, lease}), do: "the lease is held: #{inspect(lease)}"

  defp message_of({:already_running, dir}),
    do: "a store of this id is running in #{dir}: give that directory, or stop that store first"

  defp message_of(:exists), do: "there is a value already: nothing was written"
  defp message_of({:exists, nil}), do: message_of(:exists)
  defp message_of(:nodedown), do: "the other node cannot be reached: is it up, and is the cookie the same?"

  defp message_of(:system_not_started),
    do: "an atom in place of a directory names a running store, and no store of that id runs: give a directory"

  defp message_of({:conflict, group}), do: "another group has that name: #{inspect(group)}"
  defp message_of({:rolled_back, reason}), do: "the transaction was rolled back: #{inspect(reason)}"
  defp message_of({:tank, name, props}), do: Cluster.message(name, props)
  defp message_of(reason), do: inspect(reason)

  defp wrong(:not_a_directory), do: "is no directory: give another path"
  defp wrong(:permission_denied), do: "may not be read or written: change its owner or its permissions"
  defp wrong(:not_a_store), do: "holds files that are no store: give another directory"
  defp wrong(:not_empty), do: "is not empty: give a new or an empty directory"
  defp wrong(:no_store), do: "is missing or empty: mount its disk, or start a new store once with create: true"
  defp wrong(:data_dir), do: "cannot be used: give another directory"

  defp loss(:missing), do: "is gone"
  defp loss(:empty), do: "holds no store any more"
  defp loss(:other_store), do: "holds another store"
  defp loss(:other_cluster), do: "holds a member of another cluster"
  defp loss(:other_member), do: "holds another member of this store"
  defp loss(:other_file_system), do: "is on another file system, and may be an old copy"
  defp loss(:replaced), do: "is another directory than the open one"

  defp label(what), do: what |> Atom.to_string() |> String.replace("_", " ")
end
