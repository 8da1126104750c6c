defmodule Tank.Store.Formation.Forming do
  @moduledoc false
  # The Server's part in forming a cluster: what it keeps and answers while it has no store. `Tank.Store.Formation` shows
  # the whole.
  #
  #     begin --> searching --> the Server opens a store --> ended
  #                ^   |------> fail: the instance is stopped, whoever waits is told why
  #                |   +------> the Server has a new member taken in --> ended
  #                +------------------- that came to nothing

  alias Tank.Store.{Alarms, Error, Instance, Log, LongCall, Names, Options, Reopening, Server}
  alias Tank.Store.Formation.Search

  # Nodes that boot at the same time find each other sooner: nobody needs to be told of that.
  @alarm_after_ms 2_000

  defstruct [:config, :holds, :token, :worker, :since, :failed, :promised, :ended_with, waiting: []]

  @typedoc """
  `worker`: the process that decides. `promised`: the node that this one promised to found nothing to. `failed`: why the
  last join failed. `ended_with`: why forming failed.
  """
  @type t :: %__MODULE__{}

  @doc """
  What a server begins with, by what its directory holds: opening the store, also to find out what is wrong with the
  directory, or looking for its cluster.
  """
  @spec begin(Server.config()) :: :open | {:form, t}
  def begin(%{store_id: store_id} = config) do
    formation = config[:formation]

    case LongCall.peek(config.data_dir, Atom.to_string(store_id)) do
      {:ok, {:holds, cluster_id, _member_id, formed?}} ->
        hold(store_id, cluster_id)
        if formation == nil or formed? or ran?(config), do: :open, else: {:form, search(new(config, cluster_id))}

      {:ok, :blank} ->
        # One that must not be made is not: opening it says why.
        if formation == nil or not Options.creates?(config), do: :open, else: {:form, search(new(config, nil))}

      {:error, _reason} ->
        :open
    end
  end

  @doc "Notes the cluster that the store is in, for nodes that ask while it is not open."
  @spec hold(atom, non_neg_integer | nil) :: :ok
  def hold(store_id, cluster_id) do
    Registry.unregister(Names, {:holds, store_id})
    if cluster_id, do: {:ok, _pid} = Registry.register(Names, {:holds, store_id}, cluster_id)
    :ok
  end

  @doc "Looks for the cluster; again, when a join came to nothing."
  @spec search(t, term) :: t
  def search(%{config: %{store_id: store_id} = config} = forming, failed \\ nil) do
    if forming.holds == nil, do: hold(store_id, nil)
    token = make_ref()
    search = %{server: self(), store_id: store_id, formation: config.formation, token: token}
    worker = Search.start_link(Map.merge(search, %{holds: forming.holds, failed: failed}))
    %{forming | token: token, worker: worker, failed: failed}
  end

  @doc "Has a cluster take in the new member that the Server opened."
  @spec admit(t, map, (Tank.Store.Deadline.t() -> term)) :: t
  def admit(%{config: %{store_id: store_id}} = forming, request, admit) do
    note(forming, %{blank: nil})
    hold(store_id, request.cluster_id)
    text = "store #{inspect(store_id)} joins the cluster #{request.cluster_id} of #{request.node}"
    Log.log(store_id, :info, :formation, text)
    %{forming | token: nil, worker: Search.admit(admit)}
  end

  @doc "The Server is about to open the store: for others it is neither blank nor a member until then."
  @spec opening(t) :: t
  def opening(forming) do
    note(forming, %{blank: nil})
    %{forming | token: nil, worker: nil}
  end

  @doc "Answers a call while the cluster is being formed."
  @spec call(term, GenServer.from(), t) :: {:reply, term, t} | {:noreply, t}
  def call(:await_formed, _from, %{ended_with: reason} = forming) when reason != nil,
    do: {:reply, {:error, reason}, forming}

  def call(:await_formed, from, forming), do: {:noreply, %{forming | waiting: [from | forming.waiting]}}

  def call({:searching, token, nodes, waits}, _from, %{token: token} = forming) do
    blank = if forming.holds == nil, do: {token, nodes, forming.config.formation.role}
    # At the beginning of a round it still waits for what it waited for.
    note(forming, if(waits, do: %{blank: blank, waits: waits}, else: %{blank: blank}))
    if waits && now() - forming.since >= @alarm_after_ms, do: alarm(forming, waits)
    # Whoever is no longer listed does not count any more.
    promised = if forming.promised in nodes, do: forming.promised
    {:reply, :ok, %{forming | promised: promised}}
  end

  def call({:promise, token, founder}, _from, %{token: token, holds: nil, promised: promised} = forming)
      when promised in [nil, founder],
      do: {:reply, true, %{forming | promised: founder}}

  def call({:release, token, founder}, _from, %{token: token, promised: founder} = forming),
    do: {:reply, true, %{forming | promised: nil}}

  def call({kind, _token, _founder}, _from, forming) when kind in [:promise, :release], do: {:reply, false, forming}
  def call(_request, _from, forming), do: {:reply, {:error, :noproc}, forming}

  @doc "The store is open, and in its cluster."
  @spec ended(t) :: :ok
  def ended(%{config: %{store_id: store_id}} = forming) do
    Alarms.clear(store_id, :forming)
    Registry.unregister(Names, {:forming, store_id})
    Enum.each(forming.waiting, &GenServer.reply(&1, :ok))
  end

  @doc "Ends in vain: the instance is stopped, and whoever waits is told why."
  @spec fail(t, term) :: t
  def fail(%{config: %{store_id: store_id}} = forming, reason) do
    text = "store #{inspect(store_id)} does not start: #{Exception.message(Error.from_native(reason))}"
    Log.error(store_id, :formation, text)
    Enum.each(forming.waiting, &GenServer.reply(&1, {:error, reason}))
    # It waits for this process to end, so another one asks for it.
    [instance | _above] = Process.get(:"$ancestors")
    spawn(fn -> Instance.stop(store_id, instance) end)
    %{stop(forming) | waiting: [], ended_with: reason}
  end

  @doc "The Server ends."
  @spec stop(t) :: t
  def stop(forming) do
    if forming.worker, do: Process.exit(forming.worker, :kill)
    Alarms.clear(forming.config.store_id, :forming)
    %{forming | worker: nil, token: nil}
  end

  defp new(%{store_id: store_id} = config, holds) do
    noted = config |> Map.take([:data_dir, :owner]) |> Map.merge(%{blank: nil, waits: nil})
    {:ok, _pid} = Registry.register(Names, {:forming, store_id}, noted)
    %__MODULE__{config: config, holds: holds, since: now()}
  end

  defp note(%{config: %{store_id: store_id}}, changes) do
    {_new, _old} = Registry.update_value(Names, {:forming, store_id}, &Map.merge(&1, changes))
    :ok
  end

  defp alarm(%{config: %{store_id: store_id}}, waits) do
    message = "it serves nobody until its cluster is formed or found, and waits: #{waits}"
    Alarms.set(store_id, :forming, message, %{waits: waits})
  end

  # What ran before is opened as what it was, or not at all.
  defp ran?(config), do: Reopening.ran?(config.reopening)

  defp now, do: System.monotonic_time(:millisecond)
end
