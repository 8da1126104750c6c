defmodule Tank.PodTest do
  use ExUnit.Case, async: true

  alias Tank.{Container, Mount, Nic, Pod, Volume}
  alias Tank.Pod.Network

  doctest Tank.Pod

  @app [name: "app", image: "nginx:1.27"]

  # A pod that is fine, but for the fields given.
  defp pod(fields \\ []), do: Keyword.merge([name: "web", containers: [@app]], fields)

  defp reason(fields) do
    input = pod(fields)
    assert {:error, reason} = Pod.new(input)
    # Every reason has its sentence.
    assert_raise ArgumentError, ~r/\Acannot build Tank.Pod/, fn -> Pod.new!(input) end
    reason
  end

  test "what is left out gets its default" do
    assert Pod.new(name: "web", containers: [@app]) ==
             {:ok,
              %Pod{
                name: "web",
                containers: [
                  %Container{
                    name: "app",
                    image: "nginx:1.27",
                    command: [],
                    args: [],
                    env: %{},
                    working_dir: nil,
                    user: nil,
                    mounts: [],
                    limits: %{},
                    tty: false
                  }
                ],
                network: :none,
                volumes: [],
                restart: :always
              }}
  end

  test "the whole tree is built, however it is written" do
    structs = %Pod{
      name: "web",
      containers: [
        %Container{
          name: "app",
          image: "nginx:1.27",
          mounts: [%Mount{volume: "data", path: "/data", read_only: true}]
        }
      ],
      volumes: [%Volume{name: "data", source: {:host, "/srv/data"}}],
      network: %Network{nics: [%Nic{name: "eth0", ip: {"10.0.0.5", 24}}], dns: ["10.0.0.1"]},
      restart: :never
    }

    keywords = [
      name: "web",
      containers: [@app ++ [mounts: [[volume: "data", path: "/data", read_only: true]]]],
      volumes: [[name: "data", source: {:host, "/srv/data"}]],
      network: [nics: [[name: "eth0", ip: {"10.0.0.5", 24}]], dns: ["10.0.0.1"]],
      restart: :never
    ]

    mount = %{"volume" => "data", "path" => "/data", "read_only" => true}

    maps = %{
      "name" => "web",
      "containers" => [%{"name" => "app", "image" => "nginx:1.27", "mounts" => [mount]}],
      "volumes" => [%{"name" => "data", "source" => {:host, "/srv/data"}}],
      "network" => %{
        "nics" => [%{"name" => "eth0", "ip" => {"10.0.0.5", 24}}],
        "dns" => ["10.0.0.1"]
      },
      "restart" => :never
    }

    mixed = Map.merge(Map.new(keywords), %{volumes: structs.volumes, network: structs.network})

    for input <- [structs, keywords, Map.new(keywords), maps, mixed] do
      assert Pod.new(input) == {:ok, structs}
      assert Pod.new!(input) == structs
    end
  end

  describe "name" do
    for name <- ["a", "7", "web", "Web-1", "shop.example_eu", String.duplicate("x", 63)] do
      test "#{name} is fine" do
        assert {:ok, %Pod{name: unquote(name)}} = Pod.new(pod(name: unquote(name)))
      end
    end

    @bad ["", "-a", "a-", ".", "..", "a/b", "a b", "a\n", "ä", "a\0", <<255>>] ++
           [nil, :web, ~c"web", 1, {:a}, %{}, String.duplicate("x", 64)]

    for {name, index} <- Enum.with_index(@bad) do
      test "is refused (#{index}): #{inspect(name, printable_limit: 20)}" do
        name = unquote(Macro.escape(name))
        assert reason(name: name) == {:invalid_name, name}
      end
    end

    test "missing is the same as nil" do
      assert Pod.new(containers: [@app]) == {:error, {:invalid_name, nil}}
      assert Pod.new(%{}) == {:error, {:invalid_name, nil}}
      assert Pod.new([]) == {:error, {:invalid_name, nil}}
      assert Pod.new(%Pod{}) == {:error, {:invalid_name, nil}}
    end
  end

  describe "containers" do
    test "are at least one" do
      assert Pod.new(name: "web") == {:error, :no_containers}
      assert reason(containers: []) == :no_containers
      assert reason(containers: nil) == :no_containers
    end

    test "are a proper list" do
      for bad <- [%{}, "app", :app, {@app}, [@app | @app |> Map.new()]] do
        assert reason(containers: bad) == {:invalid_containers, bad}
      end
    end

    test "are each something with fields" do
      for bad <- [
            nil,
            "app",
            1,
            {:name, "app"},
            [1],
            [{:name, "a"} | :b],
            %Mount{},
            ~D[2024-06-01]
          ] do
        assert reason(containers: [@app, bad]) == {:invalid_container, bad}
      end
    end

    test "have their own reasons" do
      assert reason(containers: [@app, [name: "b"]]) == {:invalid_image, nil}
      assert reason(containers: [@app, [image: "b"]]) == {:invalid_name, nil}
      assert reason(containers: [@app ++ [img: 1]]) == {:unknown_keys, [:img]}
    end

    test "do not share a name" do
      other = [name: "b", image: "b"]
      containers = [@app, other, @app, other, @app, [name: "c", image: "c"]]
      assert reason(containers: containers) == {:duplicate_names, ["app", "b"]}
    end
  end

  describe "network" do
    test "is shared, absent or its own" do
      for network <- [:host, :none, %Network{}] do
        assert {:ok, %Pod{network: ^network}} = Pod.new(pod(network: network))
      end

      assert {:ok, %Pod{network: %Network{}}} = Pod.new(pod(network: []))
      assert {:ok, %Pod{network: %Network{}}} = Pod.new(pod(network: %{}))
    end

    test "is nothing else" do
      for bad <- [nil, "host", :bridge, 1, {:host}, [1], [:a | :b], %Mount{}] do
        assert reason(network: bad) == {:invalid_network, bad}
      end
    end

    test "has its own reasons" do
      assert reason(network: [dns: :none]) == {:invalid_dns, :none}
      assert reason(network: [nics: [[name: "eth0"]]]) == {:invalid_ip, nil}
      assert reason(network: [nic: []]) == {:unknown_keys, [:nic]}
    end
  end

  describe "volumes" do
    @data [name: "data"]

    test "are a proper list of volumes" do
      for bad <- [nil, %{}, "data", [@data | :more]] do
        assert reason(volumes: bad) == {:invalid_volumes, bad}
      end

      assert reason(volumes: [@data, "more"]) == {:invalid_volume, "more"}
      assert reason(volumes: [@data, [name: ""]]) == {:invalid_name, ""}
    end

    test "do not share a name" do
      assert reason(volumes: [@data, @data]) == {:duplicate_names, ["data"]}
    end

    test "exist when they are mounted, and are told once per container" do
      mounts = fn volumes -> for v <- volumes, do: [volume: v, path: "/#{v}/#{unique()}"] end

      containers = [
        [name: "a", image: "i", mounts: mounts.(["data", "x", "y", "x"])],
        [name: "b", image: "i", mounts: mounts.(["x"])]
      ]

      assert reason(containers: containers, volumes: [@data]) ==
               {:unknown_volume_refs, [{"a", "x"}, {"a", "y"}, {"b", "x"}]}

      volumes = [@data, [name: "x"], [name: "y"]]
      assert {:ok, _pod} = Pod.new(pod(containers: containers, volumes: volumes))
    end

    defp unique, do: System.unique_integer([:positive])
  end

  test "restart is one of three atoms" do
    for restart <- [:always, :on_failure, :never] do
      assert {:ok, %Pod{restart: ^restart}} = Pod.new(pod(restart: restart))
    end

    for bad <- [nil, "always", :sometimes, true, 0, [:always]] do
      assert reason(restart: bad) == {:invalid_restart, bad}
    end
  end

  describe "keys" do
    test "that are no fields are listed, sorted" do
      assert reason(zone: 1, labels: 2) == {:unknown_keys, [:labels, :zone]}

      assert Pod.new(%{1 => 2, {:a} => 3, "name" => "web"}) ==
               {:error, {:unknown_keys, [1, {:a}]}}

      assert Pod.new(%{"__struct__" => Pod}) == {:error, {:unknown_keys, ["__struct__"]}}
      assert Pod.new(__struct__: Pod) == {:error, {:unknown_keys, [:__struct__]}}
    end

    test "that are no fields never become atoms" do
      key = "never_an_atom_#{unique()}"
      assert Pod.new(%{key => 1}) == {:error, {:unknown_keys, [key]}}
      assert_raise ArgumentError, fn -> String.to_existing_atom(key) end
    end

    test "are given once" do
      assert Pod.new([name: "b"] ++ pod()) == {:error, {:duplicate_keys, [:name]}}
      assert Pod.new(%{"name" => "b", name: "a"}) == {:error, {:duplicate_keys, [:name]}}
    end
  end

  test "a struct put together by hand is checked like a map" do
    assert Pod.new(Map.put(%Pod{name: "web"}, :extra, 1)) == {:error, {:unknown_keys, [:extra]}}
    assert Pod.new(%{__struct__: Pod, name: "web"}) == {:error, :no_containers}
  end

  test "what has no fields is no pod" do
    for bad <-
          [nil, :web, "web", ~c"web", 1, 1.5, {}, self(), make_ref(), &is_atom/1, <<1::3>>] ++
            [[1], [{:name, "a"} | :b], [{"name", "a"}], %Volume{}, %{__struct__: 5}] do
      assert Pod.new(bad) == {:error, {:invalid_pod, bad}}
      assert_raise ArgumentError, fn -> Pod.new!(bad) end
    end
  end

  describe "the message of new!/1" do
    defp message(input) do
      assert_raise(ArgumentError, fn -> Pod.new!(input) end).message
    end

    test "leads to the container and the field, and says what to write" do
      assert message(pod(containers: [@app, %{"name" => "db", "image" => nil}])) ==
               ~s(cannot build Tank.Pod "web": containers[1] "db", image: got nil, ) <>
                 ~s(expected a non-empty string such as "nginx:1.27", or {:rootfs, absolute_path})
    end

    test "goes as deep as it has to" do
      mounts = [[volume: "a", path: "/a"], [volume: "b", path: "b"]]

      assert message(pod(containers: [@app ++ [mounts: mounts]])) =~
               ~s(containers[0] "app", mounts[1], path: got "b", expected an absolute path)

      assert message(pod(network: [nics: [[name: "eth0", ip: :auto]]])) =~
               ~s(network, nics[0] "eth0", ip: got :auto, expected)
    end

    test "lists the fields there are" do
      assert message(pod(containers: [@app ++ [img: 1]])) =~
               ~s(containers[0] "app": unknown keys [:img]; remove them, or choose from :name, :image)
    end

    test "names the volume and who wanted it" do
      containers = [@app ++ [mounts: [[volume: "data", path: "/data"]]]]
      assert message(pod(containers: containers)) =~ ~s(no such volume: "data" of "app"; add it)
    end

    test "keeps the environment to itself, and huge values short" do
      env = %{"PASSWORD" => "hunter2", "PORT" => 80}
      refute message(pod(containers: [@app ++ [env: env]])) =~ "hunter2"
      assert byte_size(message(String.duplicate("x", 100_000))) < 400
      assert byte_size(message(Enum.to_list(1..100_000))) < 400
    end

    test "can show a struct that cannot be inspected" do
      assert message(pod(network: %{__struct__: MapSet, map: 5})) =~ "network: got"
    end
  end

  test "the examples are a dozen checked pods of different names" do
    {pods, _bindings} = Code.eval_file(Path.expand("../../examples/pods.exs", __DIR__))

    assert length(pods) == 12
    assert pods |> Enum.uniq_by(& &1.name) |> length() == 12
    for pod <- pods, do: assert(Pod.new(pod) == {:ok, pod})
  end
end
