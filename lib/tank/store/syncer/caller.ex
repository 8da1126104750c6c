defmodule Tank.Store.Syncer.Caller do
  @moduledoc false
  # Calls the consumer, one thing after the other: asks the merger for the next when the consumer is done with the last.

  alias Tank.Store.Syncer
  alias Tank.Store.Syncer.Merger

  @spec start_link(pid, module | pid, reference) :: {:ok, pid}
  def start_link(merger, callbacks, ref), do: Task.start_link(fn -> run(merger, callbacks, ref) end)

  defp run(merger, callbacks, ref) do
    case Merger.next(merger) do
      :done ->
        :ok

      out ->
        Syncer.deliver(callbacks, ref, out)
        run(merger, callbacks, ref)
    end
  end
end
