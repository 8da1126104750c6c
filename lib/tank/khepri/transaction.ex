defmodule Tank.Khepri.Transaction do
  @moduledoc false
  # Runs a function in the caller over a view, and commits what it wrote if all that it read still holds; runs it again
  # otherwise. `ro` and `auto` begin with this member's view, without a quorum; `rw` with one that is current. A function
  # that wants to write, and fails on a view that may be old, is run again on a current one.

  import Tank.Khepri.Records, only: [is_node_id: 1, is_special: 1, is_condition: 1]

  alias Tank.Khepri.{Access, Async, Core, Error, Options, Path, Running}
  alias Tank.Store.{Deadline, Tx}

  @modes [:ro, :rw, :auto]

  @spec run(atom, fun | Path.pattern(), list, atom, map) :: {:ok, term} | :ok | {:error, term}
  def run(store, fun, args, mode, opts)
      when is_atom(store) and is_function(fun) and is_list(args) and is_atom(mode) and is_map(opts) do
    if mode not in @modes or not is_function(fun, length(args)) do
      {:arity, arity} = Function.info(fun, :arity)
      Error.misuse(:denied_tx_fun_with_invalid_args, %{fun: fun, arity: arity, args: args})
    end

    start(store, fun, args, mode, opts)
  end

  def run(store, path, args, mode, opts)
      when is_atom(store) and
             (is_binary(path) or path == [] or is_node_id(hd(path)) or is_special(hd(path)) or is_condition(hd(path))) and
             is_list(args) and mode in @modes and is_map(opts) do
    pattern = Access.pattern(path)
    mode = if mode == :auto, do: :rw, else: mode
    start(store, fn -> stored(pattern, args) end, [], mode, opts)
  end

  defp start(store, fun, args, mode, opts) do
    Running.refuse_nested!(store)
    opts = if mode == :ro, do: Options.ro(opts), else: opts |> Options.rw() |> Map.merge(Map.take(opts, [:favor]))
    deadline = opts |> Options.timeout() |> Deadline.in_ms()
    call = %{store: store, fun: fun, args: args, mode: mode, opts: opts, deadline: deadline, assumes?: true}
    run = fn -> attempt(call, 0) end

    case opts[:async] do
      none when none in [nil, false] -> Async.call(store, opts, run)
      _async -> later(call, opts, run)
    end
  end

  # What turns out to read only is answered at once.
  defp later(%{mode: :auto} = call, opts, run) do
    with {:ok, view, _current?} <- view(call, 0),
         {{:ok, result}, %{ops: [], wants_to_write?: false}} <- called(call, view) do
      {:ok, result}
    else
      _writes_or_failed -> Async.call(call.store, opts, fn -> bare(run.()) end)
    end
  end

  defp later(call, opts, run), do: Async.call(call.store, opts, fn -> bare(run.()) end)

  defp bare({:ok, result}), do: result
  defp bare(error), do: error

  # A store that does not answer is told of as if it were what the function returned: callers rely on it.
  defp attempt(call, tried) do
    case view(call, tried) do
      {:ok, view, current?} -> attempt(call, tried, view, current?)
      {:error, reason} -> {:ok, {:error, reason}}
    end
  end

  defp attempt(call, tried, view, current?) do
    case {called(call, view), current?} do
      {{_result, %{refused?: true}}, _current?} -> attempt(%{call | assumes?: false}, tried)
      {{{:failed, _failure}, %{wants_to_write?: true}}, false} -> attempt(call, tried + 1)
      {{{:failed, {:aborted, reason}}, _state}, _current?} -> {:error, reason}
      {{{:failed, {class, reason, stacktrace}}, _state}, _current?} -> :erlang.raise(class, reason, stacktrace)
      {{{:ok, result}, %{ops: []}}, _current?} -> {:ok, result}
      {{{:ok, result}, state}, _current?} -> commit(call, tried, result, state)
    end
  end

  defp called(call, view) do
    ref = make_ref()
    tx = Tx.open(call.store, view)
    Running.put(%{tx: tx, store: call.store, ref: ref, write?: call.mode != :ro, assumes?: call.assumes?})
    result = apply_safely(call, ref)
    %{ops: ops} = done = Tx.close()
    {result, Map.merge(done, %{ops: Enum.reverse(ops), wants_to_write?: ops != [] or call.mode == :rw})}
  after
    Running.erase()
    Tx.close()
  end

  defp apply_safely(call, ref) do
    {:ok, apply(call.fun, call.args)}
  catch
    :throw, {__MODULE__, ^ref, reason} -> {:failed, {:aborted, reason}}
    class, reason -> {:failed, {class, reason, __STACKTRACE__}}
  end

  @spec abort(term) :: no_return
  def abort(reason), do: throw({__MODULE__, Running.fetch!().ref, reason})

  defp commit(call, tried, result, state) do
    case Access.commit(call.store, state.compare, Enum.map(state.ops, &{nil, &1}), call.deadline) do
      {:ok, revision, _responses} ->
        Tank.Khepri.Projections.await(call.store, revision)
        {:ok, result}

      :conflict ->
        Access.wait(tried)
        attempt(call, tried + 1)

      # It was assumed that none is refused; or what an operation asked for itself has changed.
      {:error, {:keep_while, _path, _index, _why}} ->
        if not call.assumes?, do: Access.wait(tried)
        attempt(%{call | assumes?: false}, tried + 1)

      {:error, reason} ->
        case Access.retry(reason, call.deadline, fn -> attempt(call, tried + 1) end) do
          {:error, reason} -> {:ok, {:error, reason}}
          done -> done
        end
    end
  end

  defp view(%{mode: :ro} = call, _tried) do
    with {:ok, view} <- Access.view_to_read(call.store, call.opts), do: {:ok, view, true}
  end

  defp view(%{mode: :auto} = call, 0) do
    favor = Map.get(call.opts, :favor, :low_latency)
    with {:ok, view} <- Access.view(call.store, favor, call.deadline), do: {:ok, view, favor == :consistency}
  end

  defp view(call, _tried) do
    with {:ok, view} <- Access.view(call.store, :consistency, call.deadline), do: {:ok, view, true}
  end

  # -- Stored procedures

  defp stored(pattern, args) do
    %{tx: tx} = Running.fetch!()

    case Core.get(tx, pattern, %{props_to_return: [:payload], expect_specific_node: true}) do
      {:ok, found} -> found |> Map.to_list() |> call_stored(args)
      {:error, reason} -> abort(reason)
    end
  end

  defp call_stored([{_path, %{sproc: fun}}], args) when is_function(fun, length(args)), do: apply(fun, args)
  defp call_stored([{path, %{sproc: _fun}}], _args), do: abort(Error.new(:sproc_invalid_as_tx_fun, %{path: path}))
  defp call_stored([{path, _props}], _args), do: abort(Error.new(:no_sproc_at_given_path, %{path: path}))
end
