defmodule Tank.Bench.Trio do
  @moduledoc """
  A store with three members, each in a VM of its own. The VM that started them controls them through their standard
  input and is none of their nodes; it keeps one trio at a time.

  A store that can be one has the callbacks `join` and `leader` of `Tank.Bench.Store`.
  """

  @type member :: %{peer: pid, node: node, dir: Path.t(), os_pid: String.t()}

  @members 3
  # Election and joining are quick; a busy machine is not.
  @patience_ms 60_000

  @doc "Starts the three, in directories below `dir`."
  @spec start(module, Path.t()) :: :ok
  def start(store, dir) do
    members = for i <- 1..@members, do: boot(store, Path.join(dir, "member-#{i}"), "#{short(store)}-#{i}")
    [first | others] = members
    for member <- others, do: :ok = call(member, store, :join, [first.node])
    :persistent_term.put(__MODULE__, {store, members})
  end

  @doc "The members, the leader first."
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
    revived = boot(store, killed.dir, name)
    members = Enum.map(members, &if(&1.node == killed.node, do: revived, else: &1))
    :persistent_term.put(__MODULE__, {store, members})
    members()
    :ok
  end

  defp boot(store, dir, name) do
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
