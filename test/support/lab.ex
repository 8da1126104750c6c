defmodule Tank.Store.Lab do
  @moduledoc """
  A network (`Tank.Store.Network`) whose links have a rate, a round trip and a loss. Needs root.

  The kernel's netem does it where there is one, on each node's way out. Otherwise a switch of ours takes the bridge's
  place (`native/tank_lab`): a process in a namespace of its own, which ends with the test's process.

  All that a node sends passes its outgoing link, which has the rate, and a queue of 200 ms of it. Loss and delay follow.
  """

  alias Mix.TankNative.Cargo
  alias Tank.Store.Network

  defstruct [:network, :switch]

  # TCP hands a virtual interface up to 64 KB in one piece. In pieces of 8 segments a lost frame stays a small one, and
  # the switch carries 1 Gbit/s with 0.4 of a core.
  @segments_max 8
  @queue_ms 200
  @answer_ms 10_000
  @build_ms 300_000
  @frame_bytes 1_514

  @doc "Why there can be no lab here, or nil."
  def missing do
    cond do
      System.cmd("id", ["-u"]) != {"0\n", 0} -> "needs root"
      System.find_executable("ip") == nil -> "needs ip (iproute2)"
      not namespaces?() -> "needs network namespaces"
      true -> nil
    end
  end

  @doc "Makes the network, with links that pass everything on at once; it ends with the test."
  def up(count) do
    network = Network.up(count)
    for number <- 1..count, do: settle_interface(network, number)
    if netem?(), do: %__MODULE__{network: network}, else: %__MODULE__{network: network, switch: start_switch(network)}
  end

  @doc """
  Gives all links the same quality: `rate:` in bits a second of each node's outgoing link, `rtt:` in milliseconds between
  two nodes, `loss:` the share of frames that is lost, in each direction. What is not named is perfect.
  """
  def link(lab, options) do
    options = Keyword.validate!(options, rate: nil, rtt: 0, loss: 0)
    for number <- nodes(lab), do: set_link(lab, number, options)
    :ok
  end

  @doc "Lets all links pass everything on at once."
  def heal(%__MODULE__{switch: nil} = lab), do: link(lab, [])

  def heal(lab) do
    order(lab, "clear")
    :ok
  end

  @doc "Bytes that have come in at a node's interface, frames and all, since it was made."
  def received_bytes(lab, number), do: counter(lab, number, "rx_bytes")

  @doc "Bytes that a node's interface has sent, frames and all, since it was made."
  def sent_bytes(lab, number), do: counter(lab, number, "tx_bytes")

  @doc """
  Frames that the switch lost because it was too slow, since the last call; 0 for netem. Figures that were measured
  meanwhile are worth nothing.
  """
  def overruns(%__MODULE__{switch: nil}), do: 0

  def overruns(lab) do
    [_all, overruns] = Regex.run(~r/overruns=(\d+)/, order(lab, "stats"))
    String.to_integer(overruns)
  end

  @doc "Options for `Tank.Store.ClusterCase.start_nodes/3`: each node in a namespace of its own."
  def node_options(lab), do: [host: &Network.address/1, exec: &Network.exec(lab.network, &1)]

  # -- Links

  defp set_link(%__MODULE__{switch: nil} = lab, number, options) do
    rate = if options[:rate], do: ["rate", "#{options[:rate]}bit"], else: []
    quality = ["delay", "#{round(options[:rtt] * 500)}us", "loss", "#{options[:loss] * 100}%"] ++ rate
    netem = ~w(tc qdisc replace dev eth0 root netem limit #{limit(options)}) ++ quality
    Network.run_in(lab.network, number, netem)
  end

  defp set_link(lab, number, options) do
    order(lab, "set #{number} * rate_bits=#{options[:rate] || 0} queue_ms=#{@queue_ms}")

    for other <- nodes(lab), other != number do
      order(lab, "set #{number} #{other} delay_ms=#{options[:rtt] / 2} loss=#{options[:loss]}")
    end
  end

  # Netem counts frames, those that are delayed included.
  defp limit(options) do
    bits = (options[:rate] || 10_000_000_000) * (@queue_ms + options[:rtt] / 2) / 1_000
    Integer.to_string(max(round(bits / 8 / @frame_bytes), 100))
  end

  defp nodes(lab), do: 1..lab.network.count

  # -- The kernel

  # Asking for addresses must not be what waits for a lost frame, for a second.
  defp settle_interface(network, number) do
    Network.ip_in(network, number, ~w(link set eth0 gso_max_segs #{@segments_max}))
    # Nor may TCP begin with what it learnt of a former link.
    Network.run_in(network, number, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save"])

    for other <- 1..network.count, other != number do
      mac = network |> Network.run_in(other, ~w(cat /sys/class/net/eth0/address)) |> String.trim()
      Network.ip_in(network, number, ~w(neigh replace #{Network.address(other)} lladdr #{mac} dev eth0 nud permanent))
    end
  end

  defp counter(lab, number, name) do
    lab.network
    |> Network.run_in(number, ~w(cat /sys/class/net/eth0/statistics/#{name}))
    |> String.trim()
    |> String.to_integer()
  end

  defp namespaces? do
    name = "tank#{System.pid()}try"
    {_output, added} = System.cmd("ip", ~w(netns add #{name}), stderr_to_stdout: true)
    if added == 0, do: System.cmd("ip", ~w(netns del #{name}), stderr_to_stdout: true)
    added == 0
  end

  defp netem? do
    name = "tank#{System.pid()}try"
    {_output, 0} = System.cmd("ip", ~w(netns add #{name}), stderr_to_stdout: true)
    arguments = ~w(netns exec #{name} tc qdisc add dev lo root netem delay 1ms)
    {_output, status} = System.cmd("ip", arguments, stderr_to_stdout: true)
    System.cmd("ip", ~w(netns del #{name}), stderr_to_stdout: true)
    status == 0
  end

  # -- The switch

  defp start_switch(network) do
    executable = build_switch()
    interfaces = Network.leave_bridge(network)
    seed = :rand.uniform(1_000_000)
    IO.puts("the switch's seed: #{seed}")

    switch =
      Port.open({:spawn_executable, System.find_executable("ip")}, [
        :binary,
        :exit_status,
        line: 65_536,
        args: ["netns", "exec", Network.switch(network), executable, "#{seed}" | interfaces]
      ])

    "ready" = answer(switch)
    switch
  end

  defp order(lab, line) do
    true = Port.command(lab.switch, [line, ?\n])
    "ok" <> rest = answer(lab.switch)
    rest
  end

  defp answer(switch) do
    receive do
      {^switch, {:data, {:eol, line}}} -> line
      {^switch, {:exit_status, status}} -> raise "the switch ended: #{status}"
    after
      @answer_ms -> raise "the switch does not answer"
    end
  end

  # Seconds, and nothing when it is built: it needs none of the engine.
  defp build_switch do
    target_dir = Cargo.target_dir(File.cwd!())
    arguments = ["#{div(@build_ms, 1_000)}"] ++ ~w(cargo build --release --locked --quiet -p tank_lab)

    {output, status} = System.cmd("timeout", arguments, env: [{"CARGO_TARGET_DIR", target_dir}], stderr_to_stdout: true)

    if status != 0, do: raise("cargo build -p tank_lab: #{output} (#{status})")
    Elixir.Path.join(target_dir, "release/tank_switch")
  end
end
