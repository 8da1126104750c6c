defmodule Tank.Store.History do
  @moduledoc """
  Clients that note what they ask and what they are told, for `Tank.Store.Linearizable`.

  They run on the nodes of a test. Each notes in a file of its own, before it asks and after it was told, so that a
  `kill -9` loses nothing but the answer. Times are of the machine's monotonic clock, which is the same for all nodes.
  """

  alias Tank.Store.{Call, Linearizable, Path}

  @timeout 5_000

  @doc "Starts `count` clients on this node that work on `keys` until `stop/1`, and note in files that begin with `path`."
  @spec start(atom, String.t(), pos_integer, [String.t()], atom) :: :ok
  def start(name, path, count, keys, store_id) do
    acknowledged = :counters.new(1, [])
    :persistent_term.put({__MODULE__, name}, acknowledged)

    clients =
      for number <- 1..count do
        spawn(fn ->
          {:ok, file} = :file.open("#{path}_#{number}", [:append, :raw, :binary])
          :rand.seed(:exsss, {number, :erlang.phash2(node()), :erlang.phash2(path)})
          keys = Map.new(keys, &{&1, nil})
          client = %{file: file, store: store_id, keys: keys, id: {node(), number}, acknowledged: acknowledged}
          work(client, 0)
        end)
      end

    # It keeps their pids, and ends with the node.
    spawn(fn ->
      Process.register(self(), name)
      receive do: ({:stop, from, ref} -> send(from, {ref, clients}))
    end)

    :ok
  end

  @doc "How many writes of the clients `name` on this node were acknowledged."
  @spec acknowledged(atom) :: non_neg_integer
  def acknowledged(name), do: :counters.get(:persistent_term.get({__MODULE__, name}), 1)

  @doc "Stops them: each reads all keys once more first."
  @spec stop(atom) :: :ok
  def stop(name) do
    ref = make_ref()
    send(name, {:stop, self(), ref})
    clients = receive do: ({^ref, clients} -> clients)
    monitors = for client <- clients, do: Process.monitor(client)
    Enum.each(clients, &send(&1, :stop))
    for monitor <- monitors, do: receive(do: ({:DOWN, ^monitor, :process, _pid, _reason} -> :ok))
    :ok
  end

  @doc "Nanoseconds of a clock that all nodes of this machine share."
  @spec now :: integer
  def now, do: :os.perf_counter(:nanosecond)

  @doc "What was noted in files that begin with `path`: entries by key."
  @spec read(String.t()) :: %{String.t() => [Linearizable.entry()]}
  def read(path) do
    entries = for file <- Elixir.Path.wildcard(path <> "*"), entry <- read_file(file), do: entry
    Enum.group_by(entries, &elem(&1, 0), &elem(&1, 1))
  end

  @doc "The moments at which writes were acknowledged, of what `read/1` gives."
  @spec acknowledged_at(map) :: [integer]
  def acknowledged_at(history) do
    for {_key, entries} <- history, %{operation: operation, result: {:ok, _}} = entry <- entries, operation != :get do
      entry.return
    end
  end

  # -- Clients

  defp work(client, number) do
    receive do
      :stop -> for {key, _revision} <- client.keys, reduce: client, do: (client -> ask(client, key, :get))
    after
      0 ->
        {key, revision} = Enum.random(client.keys)
        client |> ask(key, operation(:rand.uniform(10), {client.id, number}, revision)) |> work(number + 1)
    end
  end

  defp operation(dice, value, _revision) when dice <= 4, do: {:put, value}
  defp operation(dice, value, revision) when dice <= 6, do: {:compare_and_put, revision, value}
  defp operation(_dice, _value, _revision), do: :get

  defp ask(client, key, operation) do
    note(client, {:call, key, operation, now()})
    result = perform(client.store, key, operation)
    note(client, {:return, result, now()})
    if operation != :get and match?({:ok, _}, result), do: :counters.add(client.acknowledged, 1, 1)
    seen(client, key, operation, result)
  end

  # What the next comparison is with: the revision that was seen last.
  defp seen(client, _key, :get, _result), do: client
  defp seen(client, key, _write, {kind, revision}) when kind in [:ok, :conflict], do: put_in(client.keys[key], revision)
  defp seen(client, _key, _write, _result), do: client

  defp perform(store, key, :get) do
    case Call.get(store, path(key), &{:ok, &1}, @timeout) do
      {:ok, value} -> {:ok, value}
      {:error, :not_found} -> {:ok, nil}
      {:error, _reason} -> :failed
    end
  end

  defp perform(store, key, {:put, value}), do: store |> Call.write(:put, path(key), value, nil, @timeout) |> written()

  # Nil: it has to be missing still.
  defp perform(store, key, {:compare_and_put, nil, value}),
    do: store |> Call.write(:create, path(key), value, nil, @timeout) |> written()

  defp perform(store, key, {:compare_and_put, revision, value}),
    do: store |> Call.write(:put, path(key), value, revision, @timeout) |> written()

  defp written({:ok, revision}), do: {:ok, revision}

  defp written({:error, {kind, {revision, _created, _version}}}) when kind in [:conflict, :exists],
    do: {:conflict, revision}

  defp written({:error, {:conflict, nil}}), do: {:conflict, nil}
  # Named so because nothing was written.
  defp written({:error, reason}) when reason in [:no_quorum, :noproc, :overloaded], do: :failed
  defp written({:error, _reason}), do: :unknown

  defp path(name) do
    {:ok, key} = Path.to_key([:test, name])
    key
  end

  # -- Files

  defp note(client, term) do
    record = :erlang.term_to_binary(term)
    :ok = :file.write(client.file, [<<byte_size(record)::32>>, record])
  end

  defp read_file(file), do: file |> File.read!() |> records() |> entries()

  # The last record of a client that was killed may be cut off.
  defp records(<<size::32, record::binary-size(size), rest::binary>>),
    do: [:erlang.binary_to_term(record) | records(rest)]

  defp records(_end), do: []

  defp entries([{:call, key, operation, call}, {:return, result, return} | records]),
    do: [{key, %{operation: operation, result: result, call: call, return: return}} | entries(records)]

  defp entries([{:call, key, operation, call} | _end]),
    do: [{key, %{operation: operation, result: :unknown, call: call, return: nil}}]

  defp entries([]), do: []
end
