defmodule Tank.Store.ProcessCall do
  @moduledoc false
  # Calls to this library's own processes. Such a process may end at any moment, for any reason, also while it works on the
  # call: the caller gets an error and lives on. Every call of the library to a process goes through here, and every wait
  # for the end of one that has no bound of its own.

  @doc "The reply of `server`. Errors as with `run/1`."
  @spec call(GenServer.server(), term, timeout) :: term | {:error, :noproc | :timeout}
  def call(server, request, timeout), do: run(fn -> GenServer.call(server, request, timeout) end)

  @doc """
  What `fun` gives, which calls a process, as the functions of supervisors do.

  `{:error, :noproc}` when the process does not run or ended before it replied, so that the request may have been carried
  out or not; `{:error, :timeout}` when it did not reply in time. Only the exit that a call itself makes is caught: a bug
  in the caller still ends the caller.
  """
  @spec run((() -> result)) :: result | {:error, :noproc | :timeout} when result: term
  def run(fun) do
    fun.()
  catch
    :exit, {:timeout, {GenServer, :call, _arguments}} -> {:error, :timeout}
    # The server waits for itself: no end of a process, and always a bug.
    :exit, {:calling_self, {GenServer, :call, _arguments}} = reason -> exit(reason)
    :exit, {_why_it_ended, {GenServer, :call, _arguments}} -> {:error, :noproc}
  end

  @doc "Asks a process to end by sending it `message`, and waits for that. Kills it when it has not after `timeout`."
  @spec stop(pid, term, timeout) :: :ended | :killed
  def stop(pid, message, timeout) do
    monitor = Process.monitor(pid)
    send(pid, message)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ended
    after
      timeout ->
        Process.exit(pid, :kill)
        receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :killed)
    end
  end
end
