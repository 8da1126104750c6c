defmodule Tank.Store.Network do
  @moduledoc """
  A network of namespaces on this machine, one for each node of a test, whose links can be cut. Needs root.

  Each namespace has an address, 10.78.0.1 and on, and an epmd of its own; a switch joins them.
  """

  defstruct [:prefix, :count]

  @doc "Makes the network; it ends with the test."
  def up(count) do
    # Other tests of this machine may have a network too.
    network = %__MODULE__{prefix: "tank#{System.pid()}", count: count}
    ExUnit.Callbacks.on_exit(fn -> down(network) end)
    sweep()
    switch = switch(network)
    ip(~w(netns add #{switch}))
    ip(~w(-n #{switch} link add br0 type bridge))
    ip(~w(-n #{switch} link set br0 up))

    for number <- 1..count do
      namespace = namespace(network, number)
      ip(~w(netns add #{namespace}))
      ip(~w(link add eth0 netns #{namespace} type veth peer name p#{number} netns #{switch}))
      ip(~w(-n #{namespace} link set lo up))
      ip(~w(-n #{namespace} addr add #{address(number)}/24 dev eth0))
      ip(~w(-n #{namespace} link set eth0 up))
      ip(~w(-n #{switch} link set p#{number} master br0))
      ip(~w(-n #{switch} link set p#{number} up))
    end

    network
  end

  @doc "The address of a node."
  def address(number), do: "10.78.0.#{number}"

  @doc "What `:peer` starts the VM of a node with."
  def exec(network, number) do
    erl = System.find_executable("erl")
    {~c"/usr/bin/env", Enum.map(~w(ip netns exec #{namespace(network, number)} #{erl}), &String.to_charlist/1)}
  end

  @doc "Loses all that `from` sends to `to`, without a word."
  def cut(network, from, to), do: rule(network, "-A", from, to)

  @doc "Cuts one node off from all others, both ways."
  def isolate(network, number) do
    for other <- 1..network.count, other != number do
      cut(network, number, other)
      cut(network, other, number)
    end
  end

  @doc "Mends all links."
  def heal(network) do
    for number <- 1..network.count, do: run_in(network, number, ~w(iptables -F INPUT))
    :ok
  end

  @doc "Lets at most so many bits a second leave a node, as `tc` writes it: `\"40mbit\"`."
  def slow_down(network, number, rate) do
    run_in(network, number, ~w(tc qdisc add dev eth0 root tbf rate #{rate} burst 64kb latency 400ms))
    :ok
  end

  @doc "Runs a command in a node's namespace, and gives what it printed."
  def run_in(network, number, command), do: ip(~w(netns exec #{namespace(network, number)}) ++ command)

  @doc "Runs `ip` in a node's namespace."
  def ip_in(network, number, arguments), do: ip(~w(-n #{namespace(network, number)}) ++ arguments)

  @doc "The namespace where all links meet."
  def switch(network), do: "#{network.prefix}sw"

  @doc "Takes the links' ends off the bridge, for another switch, and gives their names."
  def leave_bridge(network) do
    for number <- 1..network.count do
      ip(~w(-n #{switch(network)} link set p#{number} nomaster))
      "p#{number}"
    end
  end

  # A test that was killed leaves its network behind.
  defp sweep do
    {names, 0} = System.cmd("ip", ~w(netns list), stderr_to_stdout: true)

    for [name, pid] <- Regex.scan(~r/^tank(\d+)(?:n\d+|sw)\b/m, names),
        not File.exists?("/proc/#{pid}"),
        do: remove(name)
  end

  defp rule(network, action, from, to) do
    run_in(network, to, ~w(iptables #{action} INPUT -s #{address(from)} -j DROP))
    :ok
  end

  defp down(network) do
    for name <- Enum.map(1..network.count, &namespace(network, &1)) ++ [switch(network)], do: remove(name)
  end

  defp remove(namespace) do
    {pids, _status} = System.cmd("ip", ~w(netns pids #{namespace}), stderr_to_stdout: true)
    # The epmd that the first VM in there started; and VMs, when a test failed half-way.
    for pid <- String.split(pids), pid =~ ~r/^\d+$/, do: System.cmd("kill", ["-9", pid], stderr_to_stdout: true)
    System.cmd("ip", ~w(netns del #{namespace}), stderr_to_stdout: true)
  end

  defp namespace(network, number), do: "#{network.prefix}n#{number}"

  defp ip(arguments) do
    case System.cmd("ip", arguments, stderr_to_stdout: true) do
      {output, 0} -> output
      {output, status} -> raise "ip #{Enum.join(arguments, " ")}: #{output} (#{status})"
    end
  end
end
