defmodule Tank.Bench.Comparison.Side do
  @moduledoc """
  A store in a VM of its own, so that neither the memory nor the threads of one store weigh on another.

  The VMs talk over standard input and output; they are no Erlang nodes.
  """

  alias Tank.Bench.Machine

  @type t :: %{name: atom, store: module, dir: Path.t(), peer: pid}

  @doc "Starts the VM; its stores will be in `dir`."
  @spec start({atom, module}, Path.t()) :: t
  def start({name, store}, dir) do
    File.mkdir_p!(dir)
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    {:ok, peer, _node} = :peer.start_link(%{connection: :standard_io, args: paths, wait_boot: 60_000})
    {:ok, _started} = :peer.call(peer, :application, :ensure_all_started, [:elixir], :infinity)
    %{name: name, store: store, dir: dir, peer: peer}
  end

  @doc "Calls a function there, and waits for as long as it takes."
  @spec call(t, module, atom, [term]) :: term
  def call(side, module, function, arguments), do: :peer.call(side.peer, module, function, arguments, :infinity)

  @doc "Ends the VM, and removes its files."
  @spec stop(t) :: :ok
  def stop(side) do
    :ok = :peer.stop(side.peer)
    Machine.remove!(side.dir)
  end
end
