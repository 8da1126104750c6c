defmodule Tank.Bench.Members do
  @moduledoc """
  A store with some members, each in a VM of its own. The VM that started them controls them through their standard
  input and is none of their nodes; it keeps the members of one store at a time.

  A store that can be one has the callbacks `join` and `leader` of `Tank.Bench.Store`.
  """

  alias Tank.Bench.Machine

  @type member :: %{peer: pid, node: node, dir: Path.t(), os_pid: String.t()}

  # Election and joining are quick; a busy machine is not.
  @patience_ms 60_000

  @doc "Starts so many, in directories below `dir`."
  @spec start(module, Path.t(), pos_integer) :: :ok
  def start(store, dir, count \\ 3) do
    members = for i <- 1..count, do: boot(store, dir, i)
    [first | others] = members
    for member <- others, do: :ok = call(member, store, :join, [first.node])
    :persistent_term.put(__MODULE__, {store, members})
  end

  @doc "Starts one more, with an empty store that is no member of theirs yet; the number tells it from others."
  @spec spare(module, Path.t(), pos_integer) :: member
  def spare(store, dir, number), do: boot(store, dir, number)

  @doc "Ends a spare one."
  @spec discard(member) :: :ok
  def discard(member) do
    :ok = :peer.stop(member.peer)
    Machine.remove!(member.dir)
  end

  @doc "All that were started together, the leader first."
  @spec members :: [member, ...]
  def members do
    {store, members} = :persistent_term.get(__MODULE__)
    leader = await_leader(store, members, System.monotonic_time(:millisecond) + @patience_ms)
    Enum.sort_by(members, &(&1.node != leader))
  end

  @doc "Calls a function on a member; waits for as long as it takes."
  @spec call(member, module, atom, [term]) :: term
  def call(member, module, function, arguments), do: :peer.call(member.peer, module, function, arguments, :infinity)

  @doc "Ends the operating system process of a member at once."
  @spec kill(member) :: :ok
  def kill(member) do
    {_output, 0} = System.cmd("kill", ["-9", member.os_pid])
    :ok
  end

  @doc "Starts a member that was killed; returns when all agree on a leader."
  @spec revive(member) :: :ok
  def revive(killed) do
    {store, members} = :persistent_term.get(__MODULE__)
    name = killed.node |> Atom.to_string() |> String.split("@") |> hd()
    revived = boot_in(store, killed.dir, name)
    members = Enum.map(members, &if(&1.node == killed.node, do: revived, else: &1))
    :persistent_term.put(__MODULE__, {store, members})
    members()
    :ok
  end

  defp boot(store, dir, number),
    do: boot_in(store, Path.join(dir, "member-#{number}"), "#{short(store)}-#{number}")

  defp boot_in(store, dir, name) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    # A node that cannot see one of two others stays connected to the second.
    kernel = [~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false", ~c"-setcookie", ~c"bench"]

    {:ok, peer, node} =
      :peer.start(%{
        name: String.to_charlist(name),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args: paths ++ kernel,
        wait_boot: @patience_ms
      })

    member = %{peer: peer, node: node, dir: dir}
    {:ok, _started} = call(member, :application, :ensure_all_started, [:elixir])
    :ok = call(member, store, :start, [dir])
    Map.put(member, :os_pid, call(member, System, :pid, []))
  end

  defp await_leader(store, members, deadline) do
    leaders = members |> Enum.map(&call(&1, store, :leader, [])) |> Enum.uniq()

    case leaders do
      [leader] when leader != nil ->
        leader

      _no_agreement ->
        if System.monotonic_time(:millisecond) > deadline, do: raise("no leader, but #{inspect(leaders)}")
        Process.sleep(20)
        await_leader(store, members, deadline)
    end
  end

  defp short(store), do: store |> Module.split() |> List.last() |> String.downcase()
end
