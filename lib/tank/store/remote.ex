defmodule Tank.Store.Remote do
  @moduledoc false
  # Calls to other nodes that surely end in time: also when the node has to be connected first, which suspends whoever
  # asks for seconds when nobody answers.

  alias Tank.Store.Deadline

  @doc "What `apply(module, function, args)` gives on `node`; `{:error, :nodedown | :timeout | :noproc}` if nothing."
  @spec call(node, module, atom, [term], Deadline.t()) :: term
  def call(node, module, function, args, _deadline) when node == node(), do: apply(module, function, args)

  def call(node, module, function, args, deadline) do
    {pid, monitor} = spawn_monitor(fn -> exit({:answer, ask(node, module, function, args, deadline)}) end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:answer, answer}} -> answer
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit(reason)
    after
      Deadline.remaining(deadline) ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        no_answer(node)
    end
  end

  defp ask(node, module, function, args, deadline) do
    :erpc.call(node, module, function, args, Deadline.remaining(deadline))
  catch
    :error, {:erpc, :noconnection} -> {:error, :nodedown}
    :error, {:erpc, :timeout} -> no_answer(node)
    # A node without this library, or with another version of it: no store that we could talk to.
    :error, {:exception, :undef, _stacktrace} -> {:error, :noproc}
    # A process that it called ended there, as when the store or the node is just being stopped.
    :exit, {:exception, _reason} -> {:error, :noproc}
    :exit, {:signal, _reason} -> {:error, :noproc}
  end

  defp no_answer(node), do: if(node in Node.list(:connected), do: {:error, :timeout}, else: {:error, :nodedown})
end
