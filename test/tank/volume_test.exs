defmodule Tank.VolumeTest do
  use ExUnit.Case, async: true

  alias Tank.Volume

  doctest Tank.Volume

  for source <- [:managed, :empty_dir, :tmpfs, {:tmpfs, 1}, {:host, "/"}, {:host, "/srv/a"}] do
    test "source may be #{inspect(source)}" do
      volume = %Volume{name: "data", source: unquote(source)}
      assert Volume.new(name: "data", source: unquote(source)) == {:ok, volume}
    end
  end

  for source <-
        [nil, "managed", :host, {:tmpfs, 0}, {:tmpfs, 1.0}, {:tmpfs, "1"}, {:host, nil}] ++
          [{:host, ""}, {:host, "rel"}, {:host, "/a/.."}, {:host, ~c"/a"}, {:nfs, "/a"}] do
    test "source may not be #{inspect(source)}" do
      assert Volume.new(name: "data", source: unquote(source)) ==
               {:error, {:invalid_source, unquote(source)}}
    end
  end

  test "the path of the host has one spelling" do
    assert {:ok, volume} = Volume.new(name: "data", source: {:host, "/a//b/"})
    assert volume.source == {:host, "/a/b"}
  end

  test "name is a name" do
    for bad <- [nil, "", :data, "a/b", ".."] do
      assert Volume.new(name: bad) == {:error, {:invalid_name, bad}}
    end
  end

  test "anything else is no volume" do
    for bad <- [nil, "data", [1], [{:name, "a"} | :b], %Tank.Mount{}] do
      assert Volume.new(bad) == {:error, {:invalid_volume, bad}}
      assert_raise ArgumentError, ~r/cannot build Tank.Volume/, fn -> Volume.new!(bad) end
    end
  end

  test "keys are the fields, each once" do
    assert Volume.new(name: "data", size: 1) == {:error, {:unknown_keys, [:size]}}
    assert Volume.new(name: "a", name: "b") == {:error, {:duplicate_keys, [:name]}}
  end
end
