defmodule Tank.Store.Dashboard.Recorder do
  @moduledoc false
  # The latest changes under a path, for all browsers that look at it: one watch, whoever looks.
  #
  # Each browser asks for what came after what it has, and waits for that (a long poll). Of a busy path a few changes in a
  # time are printed, and the others counted. The process ends when nobody has asked for a while.
  #
  #     watching --cancelled, killed--> starting --watch--> watching
  #                                       ^  |store is down
  #                                       +--+ every second

  use GenServer, restart: :temporary
  use Tank.Store.HideState, show: [:store_id, :path, :number]

  alias Tank.Store.{Names, ProcessCall, Watch}
  alias Tank.Store.Dashboard.TermText

  @kept 100
  # How many are printed in that time.
  @printed 25
  @window_ms 250
  @wait_ms 10_000
  @idle_ms 30_000
  @retry_ms 1_000
  # One revision may change a million entries, and comes as one message.
  @max_heap %{size: 64 * 1024 * 1024, kill: true, error_logger: false}

  @typedoc "A change as it is shown; `left_out` of those before it are not."
  @type row :: %{
          number: pos_integer,
          revision: non_neg_integer,
          type: atom,
          path: Tank.Store.Path.t(),
          value: String.t() | nil,
          at_ms: integer,
          left_out: non_neg_integer
        }
  @typedoc "The newest first; `number` is what the next question begins with."
  @type answer :: %{rows: [row], number: non_neg_integer, state: :watching | :down, left_out: non_neg_integer}

  defmodule Supervisor do
    @moduledoc false
    # The recorders of a dashboard: a bounded number of them.

    alias Tank.Store.Dashboard.Context
    alias Tank.Store.Names

    @recorders_max 32

    @spec child_spec(Context.t()) :: Elixir.Supervisor.child_spec()
    def child_spec(context),
      do: %{id: __MODULE__, start: {__MODULE__, :start_link, [context.store_id]}, type: :supervisor}

    @spec start_link(atom) :: Elixir.Supervisor.on_start()
    def start_link(store_id),
      do: DynamicSupervisor.start_link(strategy: :one_for_one, max_children: @recorders_max, name: name(store_id))

    @spec name(atom) :: GenServer.name()
    def name(store_id), do: {:via, Registry, {Names, {:dashboard_recorders, store_id}}}
  end

  @doc "What came after `number`, at once: for a page that is new, 0."
  @spec look(atom, Tank.Store.Path.t(), non_neg_integer) :: {:ok, answer} | {:error, :too_many | :noproc | :timeout}
  def look(store_id, path, number), do: ask(store_id, path, {:look, number})

  @doc "Waits until something came after `number`, or for ten seconds."
  @spec wait(atom, Tank.Store.Path.t(), non_neg_integer) :: :ok
  def wait(store_id, path, number) do
    _woken_or_gone = ask(store_id, path, {:wait, number})
    :ok
  end

  def start_link({store_id, path}),
    do:
      GenServer.start_link(__MODULE__, {store_id, path},
        name: name(store_id, path),
        spawn_opt: [max_heap_size: @max_heap]
      )

  @impl true
  def init({store_id, path}) do
    state = %{
      store_id: store_id,
      path: path,
      watch: nil,
      rows: [],
      number: 0,
      left_out: 0,
      printed: 0,
      window: 0,
      waiting: [],
      asked: now()
    }

    Process.send_after(self(), :idle?, @idle_ms)
    {:ok, watch(state)}
  end

  @impl true
  def handle_call(question, from, state), do: question(question, from, %{state | asked: now()})

  @impl true
  def handle_info({:store_watch, ref, message}, %{watch: %{ref: ref}} = state), do: {:noreply, told(message, state)}
  def handle_info(:watch, %{watch: nil} = state), do: {:noreply, watch(state)}
  def handle_info({:wake, from}, state), do: {:noreply, wake(from, state)}

  def handle_info(:idle?, state) do
    Process.send_after(self(), :idle?, @idle_ms)
    if state.waiting == [] and now() - state.asked > @idle_ms, do: {:stop, :normal, state}, else: {:noreply, state}
  end

  # It was killed: its last message, if there was one, would have come before.
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, %{watch: %{pid: pid}} = state),
    do: {:noreply, watch_again(state)}

  def handle_info(_other, state), do: {:noreply, state}

  # -- Questions

  # A page of another recorder, which has ended since, may have come further.
  defp question({:look, number}, _from, state) do
    rows = Enum.take_while(state.rows, &(&1.number > number or number > state.number))

    answer = %{
      rows: rows,
      number: state.number,
      left_out: state.left_out,
      state: if(state.watch, do: :watching, else: :down)
    }

    {:reply, answer, state}
  end

  defp question({:wait, number}, _from, state) when number != state.number, do: {:reply, :ok, state}

  defp question({:wait, _number}, from, state) do
    Process.send_after(self(), {:wake, from}, @wait_ms)
    {:noreply, %{state | waiting: [from | state.waiting]}}
  end

  defp wake(from, state) do
    if from in state.waiting, do: GenServer.reply(from, :ok)
    %{state | waiting: List.delete(state.waiting, from)}
  end

  defp wake_all(state) do
    for from <- state.waiting, do: GenServer.reply(from, :ok)
    %{state | waiting: []}
  end

  # -- The watch

  defp watch(state) do
    case Watch.start(state.store_id, state.path,
           from: :now,
           favor: :low_latency,
           progress_interval_ms: :infinity,
           mailbox_max: 100
         ) do
      {:ok, watch} ->
        Process.monitor(watch.pid)
        %{state | watch: watch}

      {:error, _down} ->
        watch_again(state)
    end
  end

  defp watch_again(state) do
    Process.send_after(self(), :watch, @retry_ms)
    %{state | watch: nil}
  end

  defp told({:changes, revision, changes}, %{number: number} = state) do
    state = Enum.reduce(changes, open_window(state), &change(&1, revision, &2))
    if state.number > number, do: wake_all(state), else: state
  end

  # What it could not keep up with is left out, as most of a busy path is.
  defp told({:cancelled, _reason}, state), do: watch_again(state)
  defp told(_other, state), do: state

  defp open_window(state) do
    if now() - state.window >= @window_ms, do: %{state | window: now(), printed: 0}, else: state
  end

  defp change(_change, _revision, %{printed: @printed} = state),
    do: %{state | left_out: state.left_out + 1}

  defp change(change, revision, state) do
    row = %{
      number: state.number + 1,
      revision: revision,
      type: change.type,
      path: change.path,
      value: if(change.type in [:created, :updated], do: TermText.of_term(change.value)),
      at_ms: System.system_time(:millisecond),
      left_out: state.left_out
    }

    rows = Enum.take([row | state.rows], @kept)
    %{state | rows: rows, number: row.number, left_out: 0, printed: state.printed + 1}
  end

  # -- Finding it

  defp ask(store_id, path, question) do
    with {:ok, pid} <- find(store_id, path) do
      case ProcessCall.call(pid, question, @wait_ms + 5_000) do
        {:error, reason} -> {:error, reason}
        answer -> {:ok, answer}
      end
    end
  end

  defp find(store_id, path) do
    case GenServer.whereis(name(store_id, path)) do
      nil -> start(store_id, path)
      pid -> {:ok, pid}
    end
  end

  defp start(store_id, path) do
    supervisor = Supervisor.name(store_id)

    case ProcessCall.run(fn -> DynamicSupervisor.start_child(supervisor, {__MODULE__, {store_id, path}}) end) do
      {:ok, pid} -> {:ok, pid}
      {:error, {:already_started, pid}} -> {:ok, pid}
      {:error, :max_children} -> {:error, :too_many}
      {:error, _ends} -> {:error, :noproc}
    end
  end

  defp name(store_id, path), do: {:via, Registry, {Names, {:dashboard_recorder, store_id, path}}}

  defp now, do: System.monotonic_time(:millisecond)
end
