defmodule Tank.Store.Backend.RacesTest do
  # What an address manager does at once from many hosts: claim blocks, release them, and take them over.
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Backend, KVPair}
  alias Tank.Store.Backend.{AlreadyExists, DoesNotExist, UpdateConflict}

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    {:ok, client} = dir |> start_store() |> Backend.new([:ipam])
    %{client: client}
  end

  test "16 hosts race for 16 blocks: each ends with one, and no block has two owners", %{client: client} do
    claimed = at_once(1..16, fn host -> {host, claim(client, host, Enum.shuffle(1..16))} end)
    assert claimed |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> length() == 16
    {:ok, blocks, _revision} = Backend.list(client, ["blocks"])
    assert Enum.sort(for %{key: [_blocks, block], value: host} <- blocks, do: {host, block}) == Enum.sort(claimed)
  end

  test "a block that is released while an address is taken of it stays, or the address is not taken: 300 races",
       %{client: client} do
    for n <- 1..300 do
      {:ok, block} = Backend.create(client, %KVPair{key: ["blocks", "#{n}"], value: []})

      [released, taken] =
        at_once([:release, :take], fn
          :release -> Backend.delete(client, block)
          :take -> Backend.update(client, %{block | value: [:address]})
        end)

      case {released, taken} do
        {:ok, {:error, %DoesNotExist{}}} ->
          assert {:error, %DoesNotExist{}} = Backend.get(client, block.key)

        {{:error, %UpdateConflict{current: current}}, {:ok, in_use}} ->
          assert current == in_use
          assert Backend.get(client, block.key) == {:ok, in_use}
      end
    end
  end

  test "who claims what is being given up hears of the conflict, and succeeds with what it holds", %{client: client} do
    {:ok, affinity} = Backend.create(client, %KVPair{key: ["affinity", "host-1"], value: :confirmed})
    {:ok, pending} = Backend.update(client, %{affinity | value: :pending_deletion})
    assert {:error, %UpdateConflict{current: current}} = Backend.update(client, %{affinity | value: :claimed})
    assert current == pending
    assert {:ok, claimed} = Backend.update(client, %{current | value: :claimed})
    # The one that wanted to give it up is too late.
    assert {:error, %UpdateConflict{current: ^claimed}} = Backend.delete(client, pending)
    assert Backend.get(client, ["affinity", "host-1"]) == {:ok, claimed}
  end

  defp claim(client, host, [block | others]) do
    case Backend.create(client, %KVPair{key: ["blocks", "#{block}"], value: host}) do
      {:ok, _kv} -> "#{block}"
      {:error, %AlreadyExists{existing: %{value: owner}}} when owner != host -> claim(client, host, others)
    end
  end

  defp at_once(inputs, fun), do: inputs |> Enum.map(&Task.async(fn -> fun.(&1) end)) |> Task.await_many(30_000)
end
