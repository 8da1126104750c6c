defmodule Tank.Khepri.Access do
  @moduledoc false
  # Where a function reads and writes: in a store, by its id, or in the transaction that the process runs.
  #
  # A write to a store is planned in the caller, on this member's view. If that view may be old, and the plan comes to
  # nothing or to an error, it is made again on a view that is current. What it writes is committed if all that it
  # relied on still holds, and planned again otherwise.

  alias Tank.Khepri.{Async, Core, Engine, Error, Options, Running}
  alias Tank.Store.{Deadline, Tx}

  @type where :: atom | {:tx}
  # Another transaction takes a millisecond or a few.
  @wait_max_ms 20
  @retry_ms 20

  @doc "Has `fun` read from a view, as `favor` and `condition` in the options say."
  @spec read(where, map, (Engine.source(), map -> result)) :: result | {:error, term} when result: term
  def read({:tx}, opts, fun), do: fun.(Running.fetch!().tx, Options.within(opts))

  def read(store, opts, fun) do
    opts = Options.query(opts)
    with {:ok, view} <- view_to_read(store, opts), do: fun.(view, opts)
  end

  @doc "A view for a function that reads."
  @spec view_to_read(atom, map) :: {:ok, Engine.source()} | {:error, term}
  def view_to_read(store, opts) do
    Running.refuse_nested!(store)
    deadline = opts |> Options.timeout() |> Deadline.in_ms()

    case opts do
      %{condition: {:applied, {index, _term}}} ->
        with :ok <- Engine.await_applied(store, index, Deadline.remaining(deadline)),
             do: view(store, :low_latency, deadline)

      %{favor: :consistency} ->
        :ok = Async.flush(store, Deadline.remaining(deadline))
        view(store, :consistency, deadline)

      _default ->
        view(store, :low_latency, deadline)
    end
  end

  @doc "Has `fun` plan a write; `options` is the function of `Tank.Khepri.Options` that checks the options."
  @spec write(where, map, (map -> map), (Tx.t(), map -> result)) :: result | :ok | {:error, term} when result: term
  def write(store, opts, options, fun) do
    Running.refuse_nested!(store)
    opts = options.(opts)
    Async.call(store, opts, fn -> run(store, opts, fn tx -> fun.(tx, opts) end) end)
  end

  @doc """
  A command of operations. `plan.(source, opts)` gives them, by path, for a source that may be nil: then it may ask for
  one by `:needs_source`. `answer.(ops, responses, opts, source)` makes the answer of what they answered.
  """
  @spec command(where, map, (map -> map), plan, answer) :: {:ok, map} | :ok | {:error, term}
        when plan: (Engine.source() | nil, map -> {:ok, [{list, tuple}]} | {:error, term} | :needs_source),
             answer: ([{list, tuple}], [tuple], map, (() -> Engine.source()) -> {:ok, map})
  def command({:tx}, opts, _options, plan, answer) do
    %{tx: tx} = running = Running.fetch_to_write!()
    opts = Options.within(opts)

    with {:ok, ops} <- plan.(tx, opts),
         {:ok, responses} <- apply_all(running, ops, opts),
         do: answer.(ops, responses, opts, fn -> tx end)
  end

  def command(store, opts, options, plan, answer) do
    Running.refuse_nested!(store)
    opts = options.(opts)
    call = %{store: store, opts: opts, plan: plan, answer: answer}
    command = fn -> planned_command(call, plan.(nil, opts)) end
    Async.call(store, opts, if(Async.later?(opts), do: known(call, plan.(nil, opts)) || command, else: command))
  end

  # One whose operations do not depend on what there is may go with others.
  defp known(call, {:ok, [_ | _] = ops} = planned) do
    %{
      store: call.store,
      ops: ops,
      timeout: Options.timeout(call.opts),
      alone: fn -> planned_command(call, planned) end,
      answer: fn responses -> answer(call, ops, responses, call.opts |> Options.timeout() |> Deadline.in_ms()) end
    }
  end

  defp known(_call, _needs_source), do: nil

  defp planned_command(call, planned) do
    call = Map.put(call, :deadline, call.opts |> Options.timeout() |> Deadline.in_ms())

    case planned do
      :needs_source -> attempt_command(call, 0)
      {:ok, ops} -> direct(call, ops)
      {:error, _reason} = error -> error
    end
  end

  defp answer(call, ops, responses, deadline),
    do: call.answer.(ops, responses, call.opts, fn -> elem(view(call.store, :low_latency, deadline), 1) end)

  # Nothing was looked at: nothing can conflict.
  defp direct(call, ops) do
    case commit(call.store, [], ops, call.deadline) do
      {:error, reason} when reason in [:no_quorum, :overloaded] ->
        retry(reason, call.deadline, fn -> direct(call, ops) end)

      # The caller is told of the node that is in the way, or that is missing.
      {:error, {:mismatch, _node}} ->
        attempt_command(call, 0)

      committed ->
        committed(call, ops, committed, fn -> direct(call, ops) end)
    end
  end

  defp attempt_command(call, tried) do
    again = fn -> attempt_command(call, tried + 1) end

    with {:ok, view, current?} <- view_to_write(call.store, tried, call.deadline) do
      case {planned(call.store, view, &call.plan.(&1, call.opts)), current?} do
        {{{:ok, [_ | _] = ops}, _none, compare}, _current?} ->
          committed(call, ops, commit(call.store, compare, ops, call.deadline), fn -> wait_and(tried, again) end)

        {_nothing_to_do, false} ->
          again.()

        {{{:ok, []}, _none, _compare}, true} ->
          {:ok, %{}}

        {{{:error, _reason} = error, _none, _compare}, true} ->
          error
      end
    end
  end

  defp wait_and(tried, again) do
    wait(tried)
    again.()
  end

  defp committed(call, ops, {:ok, revision, responses}, _again) do
    Tank.Khepri.Projections.await(call.store, revision)
    answer(call, ops, responses, call.deadline)
  end

  defp committed(_call, _ops, :conflict, again), do: again.()

  defp committed(call, _ops, {:error, {:keep_while, _path, _index, _why} = reason}, _again),
    do: {:error, Core.refused(reason, call.opts)}

  defp committed(call, _ops, {:error, reason}, again), do: retry(reason, call.deadline, again)

  # Within a transaction: what is answered is what the caller relies on.
  defp apply_all(running, ops, opts) do
    responses = Enum.map(ops, fn {_path, op} -> apply_one(running, op) end)

    case Enum.find(responses, &match?({:error, _reason}, &1)) do
      nil -> {:ok, responses}
      {:error, {:keep_while, _path, _index, _why} = reason} -> {:error, Core.refused(reason, opts)}
      {:error, _reason} = error -> error
    end
  end

  # Few are refused. A run in which one was is made again, and then each is done at once.
  defp apply_one(%{tx: tx, assumes?: assumes?}, op) do
    with {:ok, response} <- if(assumes? and Engine.silent?(op), do: Tx.assume(tx, op), else: Engine.apply_op(tx, op)),
         do: response
  end

  @doc "Plans and commits until it succeeds or the time is over."
  @spec run(atom, map, (Tx.t() -> result)) :: result | {:error, term} when result: term
  def run(store, opts, plan), do: attempt(store, plan, opts |> Options.timeout() |> Deadline.in_ms(), 0)

  defp attempt(store, plan, deadline, tried) do
    with {:ok, view, current?} <- view_to_write(store, tried, deadline) do
      {result, ops, compare} = planned(store, view, plan)

      cond do
        ops != [] and not match?({:error, _}, result) -> commit(store, {result, ops, compare}, plan, deadline, tried)
        current? -> result
        true -> attempt(store, plan, deadline, tried + 1)
      end
    end
  end

  defp planned(store, view, plan) do
    tx = Tx.open(store, view)
    result = plan.(tx)
    %{ops: ops, compare: compare} = Tx.close()
    {result, Enum.reverse(ops), compare}
  after
    Tx.close()
  end

  defp commit(store, {result, ops, compare}, plan, deadline, tried) do
    case commit(store, compare, Enum.map(ops, &{nil, &1}), deadline) do
      {:ok, revision, _responses} ->
        Tank.Khepri.Projections.await(store, revision)
        result

      :conflict ->
        wait_and(tried, fn -> attempt(store, plan, deadline, tried + 1) end)

      {:error, reason} ->
        retry(reason, deadline, fn -> attempt(store, plan, deadline, tried + 1) end)
    end
  end

  @doc "Commits operations, with their paths, if all comparisons hold."
  @spec commit(atom, [tuple], [{term, tuple}], Deadline.t()) ::
          {:ok, non_neg_integer, [tuple]} | :conflict | {:error, term}
  def commit(store, compare, ops, deadline) do
    ops = Enum.map(ops, fn {_path, op} -> op end)

    with :conflict <- Engine.commit(store, compare, ops, Deadline.remaining(deadline)),
         do: if(Deadline.remaining(deadline) == 0, do: {:error, :timeout}, else: :conflict)
  end

  # The first attempt uses this member's view, current or not; later ones ask the leader.
  defp view_to_write(store, 0, deadline) do
    with :wait <- Engine.current_view(store),
         {:ok, view} <- view(store, :low_latency, deadline),
         do: {:ok, view, false}
  end

  defp view_to_write(store, _tried, deadline) do
    with {:ok, view} <- view(store, :consistency, deadline), do: {:ok, view, true}
  end

  @doc "A view; waits for a quorum until the time is over."
  @spec view(atom, :consistency | :low_latency, Deadline.t()) :: {:ok, Engine.source()} | {:error, term}
  def view(store, favor, deadline) do
    case Engine.view(store, favor, Deadline.remaining(deadline)) do
      {:ok, view} -> {:ok, view}
      {:error, reason} -> retry(reason, deadline, fn -> view(store, favor, deadline) end)
    end
  end

  @doc "Tries again what failed for a passing reason, surely without an effect, until the time is over."
  @spec retry(term, Deadline.t(), (() -> result)) :: result | {:error, term} when result: term
  def retry(reason, deadline, again) when reason in [:no_quorum, :overloaded] do
    case Deadline.remaining(deadline) do
      0 ->
        {:error, :timeout}

      left ->
        receive after: (min(@retry_ms, left) -> :ok)
        again.()
    end
  end

  def retry(reason, _deadline, _again), do: {:error, reason}

  @doc "A random time, so that those that met do not meet again."
  @spec wait(non_neg_integer) :: :ok
  def wait(tried) do
    most = min(@wait_max_ms, Integer.pow(2, min(tried, 5)))
    receive after: (:erlang.phash2(make_ref(), most + 1) -> :ok)
  end

  @doc "The arguments of a function, checked: a native pattern."
  @spec pattern(term) :: list
  def pattern(path) do
    pattern = Tank.Khepri.Path.from_string(path)
    :ok = Tank.Khepri.Path.ensure_is_valid(pattern)
    pattern
  end

  @doc false
  @spec error(atom, map) :: {:error, Error.t()}
  def error(name, props), do: {:error, Error.new(name, props)}
end
