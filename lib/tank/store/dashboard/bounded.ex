defmodule Tank.Store.Dashboard.Bounded do
  @moduledoc false
  # Runs what may take too long or too much memory, such as printing a value, in a process that is given up then.

  @megawords 1024 * 1024

  @type failure :: :timeout | :memory | {:crash, String.t()}

  @doc "What `fun` gives, within a time and a number of megawords of memory."
  @spec run((() -> result), timeout, pos_integer) :: {:ok, result} | {:error, failure} when result: term
  def run(fun, timeout_ms, megawords) do
    me = self()
    ref = make_ref()
    bound = %{size: megawords * @megawords, kill: true, error_logger: false}
    options = [:monitor, max_heap_size: bound]
    {pid, monitor} = :erlang.spawn_opt(fn -> send(me, {ref, attempt(fun)}) end, options)

    receive do
      {^ref, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^pid, _killed} ->
        {:error, :memory}
    after
      timeout_ms -> give_up(pid, monitor, ref)
    end
  end

  defp give_up(pid, monitor, ref) do
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
    # It may have been ready just now.
    receive do: ({^ref, result} -> result), after: (0 -> {:error, :timeout})
  end

  # A crash is told, not reported: its report would show values.
  defp attempt(fun) do
    {:ok, fun.()}
  catch
    kind, reason -> {:error, {:crash, why(kind, reason, __STACKTRACE__)}}
  end

  defp why(:error, reason, stack), do: "#{inspect(Exception.normalize(:error, reason, stack).__struct__)}#{at(stack)}"
  defp why(kind, _reason, stack), do: "#{kind}#{at(stack)}"

  defp at([{module, function, arguments, location} | _callers]) do
    arity = if is_list(arguments), do: length(arguments), else: arguments
    " in #{Exception.format_mfa(module, function, arity)}, line #{location[:line]}"
  end

  defp at([]), do: ""
end
