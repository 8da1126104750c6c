defmodule Tank.Store.Links.LabTest do
  # The links of the lab are what they are said to be; what is measured on them rests on that.
  use Tank.Store.ClusterCase, async: false

  alias Tank.Store.{Lab, Network, Wire}

  @moduletag :tmp_dir
  @moduletag skip: Lab.missing() && "no lab: #{Lab.missing()}"

  setup %{tmp_dir: dir} do
    lab = Lab.up(2)
    [from, to] = start_nodes(dir, 2, [store: false] ++ Lab.node_options(lab))
    {port, _listener} = call(to, Wire, :listen, [])
    %{lab: lab, from: from, to: to, address: {Network.address(2), port}}
  end

  test "a link without a quality passes on far more than any test asks for", context do
    assert transfer(context, 20_000_000) < 2_000
  end

  test "the rate, the round trip and both", %{lab: lab} = context do
    :ok = Lab.link(lab, rate: 40_000_000)
    # 2 s, and up to 6 % for the heads of the frames.
    assert_in_delta transfer(context, 10_000_000), 2_060, 200

    :ok = Lab.link(lab, rtt: 60)
    assert_in_delta round_trip(context), 60, 5

    :ok = Lab.link(lab, rtt: 20, rate: 100_000_000)
    assert_in_delta round_trip(context), 20, 5
    assert_in_delta transfer(context, 10_000_000), 860, 200

    :ok = Lab.heal(lab)
    assert round_trip(context) < 5
    assert Lab.overruns(lab) == 0
  end

  test "the loss", %{lab: lab, from: from, to: to} do
    :ok = Lab.link(lab, loss: 0.02, rtt: 10)
    {port, counter} = call(to, Wire, :count_datagrams, [])
    before = Lab.received_bytes(lab, 2)
    :ok = call(from, Wire, :send_datagrams, [{Network.address(2), port}, 10_000])

    eventually("98 % of the datagrams", fn ->
      count = call(to, Wire, :counted, [counter])
      count > 9_700 or {:not_yet, count}
    end)

    # What else is under way has 10 ms to come.
    :ok = call(from, Wire, :send_datagrams, [{Network.address(2), port}, 1])
    assert_in_delta call(to, Wire, :counted, [counter]), 9_800, 80
    assert_in_delta Lab.received_bytes(lab, 2) - before, 9_800 * 1_042, 100_000
  end

  test "a link that is cut by the kernel, and mended", %{lab: lab} = context do
    Network.cut(lab.network, 1, 2)
    transfer = Task.async(fn -> transfer(context, 1_000) end)
    assert Task.yield(transfer, 300) == nil
    :ok = Network.heal(lab.network)
    assert Task.await(transfer, 30_000) > 0
  end

  defp transfer(%{from: from, address: address}, bytes) do
    [ms] = call(from, Wire, :transfer, [[address], bytes])
    ms
  end

  # The median of ten; a busy machine delays some.
  defp round_trip(context) do
    1..10 |> Enum.map(fn _number -> transfer(context, 1) end) |> Enum.sort() |> Enum.at(5)
  end
end
