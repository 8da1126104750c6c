defmodule Tank.Store.Registry.Wire do
  @moduledoc false
  # Messages between registries. They carry a format version; a registry ignores those of another one.
  #
  # | message | |
  # |---|---|
  # | `{:ask, pid}` | say all your rows, and then each change |
  # | `{:all, pid, incarnation, seq, rows}` | all rows of this node, after the change `seq` |
  # | `{:change, pid, incarnation, seq, change}` | the change `seq` |
  # | `{:bye, pid}` | this node's registry stops on purpose |

  @format_version 1
  # A connection that is busy is not waited for.
  @again_ms 100

  @doc "Sends to a registry that is connected. What cannot be sent now is caught up with by `{:again, pid}` to oneself."
  @spec send_to(pid, tuple) :: :ok
  def send_to(pid, message) do
    case :erlang.send(pid, {:tank_registry, @format_version, message}, [:noconnect, :nosuspend]) do
      :nosuspend -> Process.send_after(self(), {:again, pid}, @again_ms)
      _sent_or_gone -> :ok
    end

    :ok
  end
end
