defmodule Tank.Pod.NetworkTest do
  use ExUnit.Case, async: true

  alias Tank.Nic
  alias Tank.Pod.Network

  doctest Tank.Pod.Network

  @eth0 [name: "eth0", ip: :dhcp]

  test "what is left out is empty" do
    assert Network.new([]) == {:ok, %Network{nics: [], dns: []}}
  end

  test "NICs are a proper list, each with its own reasons" do
    assert {:ok, %Network{nics: [%Nic{name: "eth0"}, %Nic{name: "eth1"}]}} =
             Network.new(nics: [@eth0, %{"name" => "eth1", "ip" => "10.0.0.1/8"}])

    for bad <- [nil, %{}, :eth0, [@eth0 | :more]] do
      assert Network.new(nics: bad) == {:error, {:invalid_nics, bad}}
    end

    assert Network.new(nics: [@eth0, "eth1"]) == {:error, {:invalid_nic, "eth1"}}
    assert Network.new(nics: [[name: "eth0"]]) == {:error, {:invalid_ip, nil}}
    assert Network.new(nics: [@eth0, @eth0]) == {:error, {:duplicate_names, ["eth0"]}}
  end

  test "name servers are addresses" do
    assert {:ok, %Network{dns: ["1.1.1.1", "::1"]}} = Network.new(dns: ["1.1.1.1", "::1"])

    for bad <- [nil, "1.1.1.1", [nil], ["1.1.1"], ["1.1.1.1" | "::1"], %{}, [~c"1.1.1.1"]] do
      assert Network.new(dns: bad) == {:error, {:invalid_dns, bad}}
    end
  end

  test "anything else is no network" do
    for bad <- [nil, :host, "host", [1], [{:dns, []} | :b], %Tank.Mount{}] do
      assert Network.new(bad) == {:error, {:invalid_network, bad}}
      assert_raise ArgumentError, ~r/cannot build Tank.Pod.Network/, fn -> Network.new!(bad) end
    end
  end

  test "keys are the fields, each once" do
    assert Network.new(nic: [], domain: "") == {:error, {:unknown_keys, [:domain, :nic]}}
    assert Network.new(dns: [], dns: []) == {:error, {:duplicate_keys, [:dns]}}
  end
end
