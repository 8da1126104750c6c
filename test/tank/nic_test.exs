defmodule Tank.NicTest do
  use ExUnit.Case, async: true

  alias Tank.Nic

  doctest Tank.Nic

  defp new(fields), do: Nic.new(Keyword.merge([name: "eth0", ip: :dhcp], fields))

  test "what is left out gets its default" do
    assert new([]) ==
             {:ok, %Nic{name: "eth0", mode: :macvlan, parent: :auto, ip: :dhcp, gateway: nil}}
  end

  @good [
    name: ["eth0", "a", "br-lan.100", String.duplicate("x", 15)],
    mode: [:bridge, :macvlan, :ipvlan, :veth],
    parent: [:auto, "enp3s0f1", "eth0.100"],
    ip:
      [:dhcp, {:ipam, "10.0.0.0/24"}, {:ipam, "public"}, {"10.0.0.1", 0}, {"10.0.0.1", 32}] ++
        [{"::1", 128}, {"2001:db8::7", 64}],
    gateway: [nil, "10.0.0.1", "fe80::1"]
  ]

  for {field, values} <- @good, value <- values do
    test "#{field} may be #{inspect(value)}" do
      assert {:ok, nic} = new([{unquote(field), unquote(value)}])
      assert nic.unquote(field)() == unquote(value)
    end
  end

  @bad [
    name: [nil, "", "eth 0", "eth/0", ".", "eth0\n", :eth0, ~c"eth0", String.duplicate("x", 16)],
    mode: [nil, "bridge", :host, 1],
    parent: [nil, "", :eth0, "br/0", ~c"br0"],
    ip:
      [nil, "", :auto, "10.0.0", "10.0.0.256/24", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/+8"] ++
        ["10.0.0.1/-1", "10.0.0.1/8/8", "::1/129", "::1/9999", "example.com", <<255>>, "1\0"] ++
        [{"10.0.0.1", 33}, {"10.0.0.1", -1}, {"10.0.0.1", "24"}, {"10.0.0.1", nil}] ++
        [{nil, 24}, {:ipam, ""}, {:ipam, nil}, {10, 0}, 1, ["10.0.0.1"], ~c"10.0.0.1"],
    gateway: ["", "10.0.0.1/24", "gateway", :auto, 1, ~c"10.0.0.1", <<255>>]
  ]

  for {field, values} <- @bad, value <- values do
    test "#{field} may not be #{inspect(value, printable_limit: 20)}" do
      value = unquote(value)
      assert new([{unquote(field), value}]) == {:error, {unquote(:"invalid_#{field}"), value}}
    end
  end

  test "an address may be written in one string" do
    for {text, ip} <- [
          {"10.0.0.5/24", {"10.0.0.5", 24}},
          {"10.0.0.5", {"10.0.0.5", 32}},
          {"2001:db8::5/64", {"2001:db8::5", 64}},
          {"::1", {"::1", 128}}
        ] do
      assert {:ok, %Nic{ip: ^ip}} = new(ip: text)
    end
  end

  test "anything else is no NIC" do
    for bad <- [nil, "eth0", [1], [{:name, "a"} | :b], %Tank.Mount{}] do
      assert Nic.new(bad) == {:error, {:invalid_nic, bad}}
      assert_raise ArgumentError, ~r/cannot build Tank.Nic/, fn -> Nic.new!(bad) end
    end
  end

  test "keys are the fields, each once" do
    assert new(address: 1, mac: 2) == {:error, {:unknown_keys, [:address, :mac]}}
    assert Nic.new(%{"name" => "a", name: "b"}) == {:error, {:duplicate_keys, [:name]}}
  end
end
