defmodule Tank.Store.Server.Joining do
  @moduledoc false
  # The server's part when its store becomes a member of another cluster, or of one of its own.
  #
  #     open --join, replace--> closed, set aside --> open as a new member --admitted--> open, published
  #      ^                                               |      |
  #      +------- refused: what it was comes back -------+      +--not known: asks until it is --> the one or the other
  #
  # `Tank.Store.Join` shows the whole of a join, `Tank.Store.Replacement` what leads to a replacement.

  alias Tank.Store.{Deadline, Error, Identity, Inbox, Join, Log, LongCall, Members, Options, Running}
  alias Tank.Store.Formation.Forming
  alias Tank.Store.Server.{Opening, Serving, State}

  # How often, and for how long, the cluster that was joined is asked what became of that.
  @ask_again_ms 500
  @ask_timeout 3_000

  # How long a new member in the place of one whose disk went back in time may take to catch up.
  @replace_timeout 3_600_000

  @type reply :: {:reply, :ok | {:error, term}, State.t()} | {:stop, {:shutdown, Error.t()}, {:error, term}, State.t()}

  @doc "Makes the store a new member of another cluster."
  @spec join(State.t(), map, Deadline.t()) :: reply
  def join(state, request, deadline) do
    with :ok <- deafen(state, request.left?), do: join_anew(request, deadline, state)
  end

  @doc "Has the store serve nobody any more."
  @spec retire(State.t(), left? :: boolean) :: reply
  def retire(state, left?) do
    with :ok <- deafen(state, left?) do
      Running.delete(state.config.store_id)
      {:reply, :ok, state}
    end
  end

  @doc "Makes the store the only member of a cluster of its own."
  @spec go_alone(State.t()) :: reply
  def go_alone(%State{config: config} = state) do
    :ok = Identity.leaving_cluster(config)
    state = Serving.close(state)

    case LongCall.open(config |> Options.to_native() |> Map.put(:alone, true), state.link) do
      {:ok, store} ->
        :ok = Identity.opened(config, store)
        state = Serving.publish(state, store)
        mark_formed(config)
        {:reply, :ok, state}

      {:error, reason} ->
        open_again({:error, Error.public(reason)}, state)
    end
  end

  @doc "Replaces this member by a new one. When it comes to nothing, it is opened again, and raises its alarm again."
  @spec replace(State.t(), map, String.t()) :: {:ok, State.t()} | {:stop, Error.t(), State.t()}
  def replace(%State{config: %{store_id: store_id}} = state, request, why) do
    :ok = Inbox.attach(store_id, nil)

    case join_anew(request, Deadline.in_ms(@replace_timeout), state) do
      {:reply, :ok, state} ->
        text = "store #{inspect(store_id)}: a new member has taken the place of the former one, #{why}"
        Log.log(store_id, :notice, :members, text)
        {:ok, state}

      {:reply, {:error, reason}, state} ->
        text = "store #{inspect(store_id)}: was not replaced by a new member: #{inspect(reason)}"
        Log.log(store_id, :warning, :members, text)
        {:ok, state}

      {:stop, {:shutdown, error}, _answer, state} ->
        {:stop, error, state}
    end
  end

  @doc "Asks what became of a member of which it is not known whether it was taken in."
  @spec resolve(State.t()) :: {:ok, State.t()} | {:stop, Error.t(), State.t()}
  def resolve(%State{joining: {member_id, request}, config: config} = state) do
    case Join.resolve(config.store_id, member_id, request, Deadline.in_ms(@ask_timeout)) do
      :voter ->
        {:ok, stay(state, Deadline.in_ms(@ask_timeout))}

      :removed ->
        state |> Serving.close() |> open_old()

      {:error, _reason} ->
        Process.send_after(self(), :resolve, @ask_again_ms)
        {:ok, state}
    end
  end

  @doc "Takes in what the search for a cluster came to."
  @spec formed(State.t(), term) :: State.t()
  def formed(%State{forming: forming} = state, {:decided, decision}) when decision in [:open, :found] do
    case Opening.open(%{state | forming: Forming.opening(forming)}) do
      {:ok, %{forming: forming} = state} ->
        Forming.ended(forming)
        %{state | forming: nil}

      {:stop, error, state} ->
        fail_forming(state, error)
    end
  end

  def formed(%State{forming: forming, config: config} = state, {:decided, {:join, request}}) do
    case open_new(request, %{state | forming: Forming.opening(forming)}) do
      {:ok, member_id, state} ->
        admit = &Join.admit(config.store_id, state.store, member_id, request, &1)
        %{state | forming: Forming.admit(state.forming, request, admit), joining: {member_id, request}}

      {:error, reason} ->
        fail_forming(state, Error.from_native(reason))
    end
  end

  def formed(state, {:decided, {:admitted, :ok}}), do: stay(state, Deadline.in_ms(@ask_timeout))

  # It is not known whether the new member votes.
  def formed(state, {:decided, {:admitted, {:unknown, _reason}}}) do
    send(self(), :resolve)
    %{state | forming: %{state.forming | worker: nil}}
  end

  def formed(state, {:decided, {:admitted, {:error, reason}}}) do
    state = Serving.close(state)
    %{state | joining: nil, forming: Forming.search(state.forming, reason)}
  end

  def formed(state, {:decided, {:error, reason}}), do: fail_forming(state, reason)
  def formed(state, crash), do: fail_forming(state, {:tank, :formation_failed, %{why: crash}})

  @doc "The store will not be in a cluster: the instance is stopped."
  @spec fail_forming(State.t(), term) :: State.t()
  def fail_forming(state, reason), do: %{state | forming: Forming.fail(state.forming, reason)}

  # Takes nothing more from other nodes: it belongs to a member that is about to end. And nobody can come in any more who
  # is not one already, since a learner's answers are not heard. But another member may have come in since the caller
  # looked: ending would leave it behind without a word.
  defp deafen(%State{config: %{store_id: store_id}} = state, left?) do
    :ok = Inbox.attach(store_id, nil)

    with {:error, reason} <- if(left?, do: :ok, else: alone(state)) do
      :ok = Inbox.attach(store_id, state.store)
      {:reply, {:error, reason}, state}
    end
  end

  defp alone(state) do
    with {:ok, cluster} <- Members.of(state.store) do
      if Members.others(cluster) == [],
        do: :ok,
        else: {:error, {:tank, :cluster_has_other_members, %{store_id: state.config.store_id}}}
    end
  end

  defp join_anew(request, deadline, %State{config: config} = state) do
    state = Serving.close(state)

    case open_new(request, state) do
      {:ok, member_id, state} ->
        :ok = Identity.joining(config, state.store)
        ask_in(member_id, request, deadline, state)

      {:error, reason} ->
        open_again({:error, Error.public(reason)}, state)
    end
  end

  # Opens a new member of the cluster that is to take it in. What was there is set aside.
  defp open_new(request, %State{config: config} = state) do
    options = config |> Options.to_native() |> Map.put(:joining, request.cluster_id)
    options = if request.role == :witness, do: Map.put(options, :witness, true), else: options

    with {:ok, store} <- LongCall.open(options, state.link) do
      :ok = Inbox.attach(config.store_id, store)
      {:ok, %{member_id: member_id}} = Members.of(store)
      {:ok, member_id, %{state | store: store}}
    end
  end

  defp ask_in(member_id, request, deadline, %State{config: config, store: store} = state) do
    case Join.admit(config.store_id, store, member_id, request, deadline) do
      :ok ->
        {:reply, :ok, stay(state, deadline)}

      {:error, reason} ->
        open_again({:error, reason}, Serving.close(state))

      {:unknown, reason} ->
        send(self(), :resolve)
        {:reply, {:error, reason}, %{state | joining: {member_id, request}}}
    end
  end

  # From here on it is a member, whatever the rest of this says.
  defp stay(%State{config: config, store: store} = state, deadline) do
    :ok = Identity.opened(config, store)
    Join.settle(store, deadline)
    state = Serving.publish(state, store)
    joined(%{state | joining: nil})
  end

  defp joined(%State{forming: nil} = state), do: state

  defp joined(%State{forming: forming} = state) do
    state = Opening.opened(state)
    Forming.ended(forming)
    %{state | forming: nil}
  end

  # What was set aside comes back with this.
  defp open_again(answer, state) do
    case open_old(state) do
      {:ok, state} -> {:reply, answer, state}
      {:stop, error, state} -> {:stop, {:shutdown, error}, answer, state}
    end
  end

  # Nothing was set aside.
  defp open_old(%State{forming: forming} = state) when forming != nil,
    do: {:ok, %{state | store: nil, joining: nil, forming: Forming.search(forming, :not_taken_in)}}

  defp open_old(%State{config: config} = state) do
    case LongCall.open(Options.to_native(config), state.link) do
      {:ok, store} ->
        :ok = Identity.opened(config, store)
        {:ok, %{Serving.publish(state, store) | joining: nil}}

      {:error, reason} ->
        Serving.warn("opening the store as it was", config, reason)
        {:stop, Error.from_native(reason), state}
    end
  end

  defp mark_formed(config) do
    with {:error, reason} <- LongCall.mark_formed(config.data_dir),
         do: Serving.warn("marking it as formed", config, reason)
  end
end
