defmodule Tank.Store.Grove do
  @moduledoc """
  A storage backend for CRDT state: what the CRDT library Grove calls a `Grove.Storage`, on a store of this library.

  A group of replicas has one state. The state survives restarts; in a cluster it is on a majority of the members. Give this
  module and its options to the library that saves and loads states:

      {:ok, ref} = Tank.Store.Grove.init(data_dir: "/var/lib/crdts", merge: &MyCounter.merge/2)
      :ok = Tank.Store.Grove.save(ref, {:counter, "views"}, state)
      {:ok, state} = Tank.Store.Grove.load(ref, {:counter, "views"})

  ## Options

    * `:store_id` - the id of a running store. With `:data_dir` it is the id of the new store, `:grove` by default. `:store` is
      the same option.
    * `:data_dir` - a directory in which the backend starts a separate store. All backends of this node with the same
      directory and id share this store. It stops when the last of them is closed, by `close/1` or because the process that
      opened it ends.
    * `:prefix` - the path below which the groups are, `[:grove]` by default. Backends with the same store and prefix share
      their groups. Backends whose prefixes do not contain each other are independent.
    * `:merge` - a function that merges two states, the stored one and the one to save. With it, `save/3` never loses a state
      that another replica saved.
    * `:timeout` - milliseconds for a call, 5,000 by default.

  A **group** is any term; groups are the same when they are `===`, so that `1` and `1.0` are two. A **state** is any
  term, of at most 16 MiB in the external term format.

  If the store cannot answer, functions return `{:error, reason}` with a reason of `Tank.Store.Error` within the timeout. The
  state that was saved before stays. After `{:error, :timeout}` it is unknown whether the new state is saved.
  """

  if Code.ensure_loaded?(Grove.Storage), do: @behaviour(Grove.Storage)

  alias Tank.Store.{Cluster, Deadline, Error, Options, Path, ProcessCall, Tree}
  alias Tank.Store.Grove.{Boot, Group, Holder}

  @options [:store_id, :store, :data_dir, :prefix, :merge, :timeout]
  @timeout 5_000
  # Stopping a store of its own takes two minutes at the most.
  @shutdown 150_000
  # Entries of a page of `list_groups/1`, which has keys only.
  @page 1_000
  @format_version 1

  @enforce_keys [:store, :prefix, :merge, :timeout, :open, :boot, :opener]
  defstruct @enforce_keys

  @typedoc "A backend that `init/1` opened. Any process of its node can use it."
  @opaque ref :: %__MODULE__{}

  @type group :: term
  @type state :: term

  @doc """
  Opens a backend; see the options above.

  Errors: `:noproc` if the store does not run; those of `Tank.Store.Cluster.start/3` if the store in `:data_dir` does not start.
  Raises `ArgumentError` for invalid options.

      iex> Tank.Store.Grove.init(store_id: :never_started)
      {:error, :noproc}
  """
  @spec init(keyword | map) :: {:ok, ref} | {:error, term}
  def init(opts) do
    opts = options!(opts)
    store = Options.store_id!(opts, :grove)

    with {:ok, boot} <- obtain(store, opts) do
      # The one flag that all copies of the ref share.
      open = :atomics.new(1, [])
      :atomics.put(open, 1, 1)

      {:ok,
       %__MODULE__{
         store: store,
         prefix: Map.get(opts, :prefix, [:grove]),
         merge: opts[:merge],
         timeout: Map.get(opts, :timeout, @timeout),
         open: open,
         boot: boot,
         opener: self()
       }}
    end
  end

  @doc """
  The child specification of a backend, `start_link/1`. Its id is `{Tank.Store.Grove, name}`, with the `:name` of the process,
  or with the store's id and the prefix.

      iex> Tank.Store.Grove.child_spec(store_id: :app, name: MyApp.Crdts).id
      {Tank.Store.Grove, MyApp.Crdts}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(opts) do
    name =
      Keyword.get_lazy(opts, :name, fn -> {Options.store_id!(opts, :grove), Keyword.get(opts, :prefix, [:grove])} end)

    %{id: {__MODULE__, name}, start: {__MODULE__, :start_link, [opts]}, type: :worker, shutdown: @shutdown}
  end

  @doc """
  Starts a process that opens a backend, and closes it when the process ends. `ref/1` returns the backend to any process of the
  node.

      children = [{Tank.Store.Grove, data_dir: "/var/lib/crdts", merge: &MyCounter.merge/2, name: MyApp.Crdts}]

  Options are those of `init/1`, and `:name`, which registers the process. Errors are those of `init/1`.

      iex> {:ok, pid} = Tank.Store.Grove.start_link(store_id: :grove_doc, prefix: [:child_doc])
      iex> {:ok, ref} = Tank.Store.Grove.ref(pid)
      iex> Tank.Store.Grove.save(ref, "views", 7)
      :ok
      iex> GenServer.stop(pid)
      iex> Tank.Store.Grove.load(ref, "views")
      {:error, :closed}
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts) do
    :ok = Options.known!(opts, [:name | @options])
    {name, opts} = Keyword.split(opts, [:name])
    GenServer.start_link(Holder, options!(opts), name)
  end

  @doc """
  Returns the backend of a process that `start_link/1` started.

      iex> Tank.Store.Grove.ref(:no_backend)
      {:error, :noproc}
  """
  @spec ref(GenServer.server()) :: {:ok, ref} | {:error, :noproc | :timeout}
  def ref(server), do: ProcessCall.call(server, :ref, @timeout)

  @doc """
  Saves the state of a group. It replaces the stored state; with `:merge` it is merged with the stored state.

  `:ok` means that the state is on the disks of a majority. If several processes save at the same time, the last one wins; with
  `:merge`, the result is the merge of all of them. If the merge function raises, so does this function.

      iex> {:ok, ref} = Tank.Store.Grove.init(store_id: :grove_doc, prefix: [:save_doc], merge: &MapSet.union/2)
      iex> Tank.Store.Grove.save(ref, "tags", MapSet.new([:a]))
      :ok
      iex> Tank.Store.Grove.save(ref, "tags", MapSet.new([:b]))
      :ok
      iex> Tank.Store.Grove.load(ref, "tags")
      {:ok, MapSet.new([:a, :b])}
  """
  @spec save(ref, group, state) :: :ok | {:error, term}
  def save(%__MODULE__{merge: nil} = ref, group, state) do
    open(ref, fn -> with {:ok, _revision} <- put(ref, group, state, timeout: ref.timeout), do: :ok end)
  end

  def save(%__MODULE__{} = ref, group, state) do
    open(ref, fn ->
      deadline = Deadline.in_ms(ref.timeout)
      with {:ok, entry} <- entry(ref, group, ref.timeout), do: merge(ref, group, state, entry, deadline)
    end)
  end

  @doc """
  Returns the state of a group, or `{:ok, nil}` if there is none. The read is linearizable: it returns the state that was saved
  last, on any node.

      iex> {:ok, ref} = Tank.Store.Grove.init(store_id: :grove_doc, prefix: [:load_doc])
      iex> Tank.Store.Grove.load(ref, {:counter, "views"})
      {:ok, nil}
  """
  @spec load(ref, group) :: {:ok, state | nil} | {:error, term}
  def load(%__MODULE__{} = ref, group) do
    open(ref, fn ->
      with {:ok, entry} <- entry(ref, group, ref.timeout), {:ok, state} <- state(entry, group), do: {:ok, state}
    end)
  end

  @doc """
  Deletes a group and its state. Returns `:ok` if there is no such group.

      iex> {:ok, ref} = Tank.Store.Grove.init(store_id: :grove_doc, prefix: [:delete_doc])
      iex> Tank.Store.Grove.delete(ref, :nothing)
      :ok
  """
  @spec delete(ref, group) :: :ok | {:error, term}
  def delete(%__MODULE__{} = ref, group) do
    open(ref, fn ->
      with {:ok, _revision} <- Tree.delete(ref.store, path(ref, group), timeout: ref.timeout), do: :ok
    end)
  end

  @doc """
  Returns all groups that have a state, in no particular order.

      iex> {:ok, ref} = Tank.Store.Grove.init(store_id: :grove_doc, prefix: [:list_doc])
      iex> for group <- [1, 1.0, {:counter, "views"}], do: :ok = Tank.Store.Grove.save(ref, group, 0)
      iex> {:ok, groups} = Tank.Store.Grove.list_groups(ref)
      iex> Enum.sort(groups) == Enum.sort([1, 1.0, {:counter, "views"}])
      true
  """
  @spec list_groups(ref) :: {:ok, [group]} | {:error, term}
  def list_groups(%__MODULE__{} = ref), do: open(ref, fn -> list(ref, nil, []) end)

  @doc """
  Closes the backend: later calls with this ref give `{:error, :closed}`. Closing it again is fine.

  A store that was started for it stops with the last backend that uses it.

      iex> {:ok, ref} = Tank.Store.Grove.init(store_id: :grove_doc)
      iex> Tank.Store.Grove.close(ref)
      :ok
      iex> Tank.Store.Grove.load(ref, "tags")
      {:error, :closed}
  """
  @spec close(ref) :: :ok
  def close(%__MODULE__{} = ref) do
    if :atomics.exchange(ref.open, 1, 0) == 1 and ref.boot != nil, do: Boot.close(ref.boot, ref.opener), else: :ok
  end

  # -- Saving

  # Whoever writes between our reading and our writing makes it a conflict, and is merged with next.
  defp merge(ref, group, state, entry, deadline) do
    with {:ok, stored} <- stored(entry, group) do
      left = deadline - System.monotonic_time(:millisecond)

      answer =
        case stored do
          _any when left <= 0 -> {:error, :timeout}
          :none -> Tree.create(ref.store, path(ref, group), value(group, state), timeout: left)
          {:state, old} -> put_merged(ref, group, old, ref.merge.(old, state), entry.revision, left)
        end

      case answer do
        {:ok, _revision} -> :ok
        {:error, {kind, _entry}} when kind in [:conflict, :exists] -> merge_again(ref, group, state, deadline)
        {:error, reason} -> {:error, reason}
      end
    end
  end

  # All of it is there already, on a majority, since the reading was linearizable.
  defp put_merged(_ref, _group, old, merged, revision, _left) when old === merged, do: {:ok, revision}

  defp put_merged(ref, group, _old, merged, revision, left),
    do: put(ref, group, merged, if_revision: revision, timeout: left)

  defp merge_again(ref, group, state, deadline) do
    left = max(deadline - System.monotonic_time(:millisecond), 1)
    with {:ok, entry} <- entry(ref, group, left), do: merge(ref, group, state, entry, deadline)
  end

  defp put(ref, group, state, opts), do: Tree.put(ref.store, path(ref, group), value(group, state), opts)

  # The group as it was given: of a long one the path has only a hash.
  defp value(group, state), do: {@format_version, group, state}

  # -- Loading

  defp entry(ref, group, timeout) do
    case Tree.get_entry(ref.store, path(ref, group), favor: :consistency, timeout: timeout) do
      {:ok, %{value: _value} = entry} -> {:ok, entry}
      {:error, :not_found} -> {:ok, nil}
      {:error, reason} -> {:error, reason}
    end
  end

  defp state(entry, group) do
    case stored(entry, group) do
      {:ok, {:state, state}} -> {:ok, state}
      {:ok, :none} -> {:ok, nil}
      {:error, reason} -> {:error, reason}
    end
  end

  defp stored(nil, _group), do: {:ok, :none}
  defp stored(%{value: {@format_version, group, state}}, group), do: {:ok, {:state, state}}
  # Another group whose long name has the same hash, or what is no state at all.
  defp stored(%{value: {@format_version, other, _state}}, _group), do: {:error, {:conflict, other}}
  defp stored(%{value: _other}, _group), do: {:error, {:storage, "this is not the state of a group"}}

  # -- Listing

  defp list(ref, last, groups) do
    opts = [keys_only: true, depth: 1, limit: @page, favor: :consistency, timeout: ref.timeout]
    opts = if last, do: [{:after, last} | opts], else: opts

    with {:ok, entries, _revision} <- Tree.list(ref.store, ref.prefix, opts),
         {:ok, found} <- groups(ref, entries) do
      if length(entries) < @page,
        do: {:ok, Enum.concat(Enum.reverse([found | groups]))},
        else: list(ref, List.last(entries).path, [found | groups])
    end
  end

  defp groups(ref, entries) do
    Enum.reduce_while(entries, {:ok, []}, fn entry, {:ok, groups} ->
      case group(ref, entry) do
        {:ok, group} -> {:cont, {:ok, [group | groups]}}
        :none -> {:cont, {:ok, groups}}
        {:error, reason} -> {:halt, {:error, reason}}
      end
    end)
  end

  defp group(ref, %{path: path}) do
    case path |> List.last() |> Group.from_component() do
      :in_value -> group_in_value(ref, path)
      other -> other
    end
  end

  defp group_in_value(ref, path) do
    case Tree.get_entry(ref.store, path, favor: :consistency, timeout: ref.timeout) do
      {:ok, %{value: {@format_version, group, _state}}} -> {:ok, group}
      {:ok, _other} -> :none
      # Deleted since the page was read.
      {:error, :not_found} -> :none
      {:error, reason} -> {:error, reason}
    end
  end

  # -- The store

  defp path(ref, group), do: ref.prefix ++ [Group.to_component(group)]

  defp open(ref, fun) do
    if :atomics.get(ref.open, 1) == 1, do: fun.(), else: {:error, :closed}
  rescue
    error in Error -> {:error, error.reason}
  end

  defp obtain(store, %{data_dir: dir}), do: Boot.start(dir, store)
  defp obtain(store, _opts), do: if(Cluster.is_store_running(store), do: {:ok, nil}, else: {:error, :noproc})

  defp options!(opts) do
    :ok = opts |> Enum.to_list() |> Options.known!(@options)
    opts = Map.new(opts)

    for {name, value} <- opts,
        not valid?(name, value),
        do: raise(ArgumentError, "option #{inspect(name)} cannot be #{inspect(value)}")

    unless Enum.any?([:store_id, :store, :data_dir], &is_map_key(opts, &1)),
      do: raise(ArgumentError, "give the :store_id that is to be used, or the :data_dir of a new store")

    opts
  end

  defp valid?(id, store) when id in [:store_id, :store], do: is_atom(store) and store not in [nil, true, false]
  defp valid?(:data_dir, dir), do: is_binary(dir)
  defp valid?(:prefix, prefix), do: match?({:ok, _key}, Path.to_key(prefix))
  defp valid?(:merge, merge), do: is_nil(merge) or is_function(merge, 2)
  defp valid?(:timeout, timeout), do: timeout == :infinity or (is_integer(timeout) and timeout > 0)
end
