defmodule Tank.Store.Grove.Holder do
  @moduledoc false
  # A backend as a child of a supervisor: opens it, and closes it with its own end.

  use GenServer

  alias Tank.Store.Grove

  @impl true
  def init(opts) do
    Process.flag(:trap_exit, true)

    case Grove.init(opts) do
      {:ok, ref} -> {:ok, ref}
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_call(:ref, _from, ref), do: {:reply, {:ok, ref}, ref}

  @impl true
  def terminate(_reason, ref), do: Grove.close(ref)
end
