defmodule Tank.Store.InputTest do
  # Names, paths and values at their limits and beyond: each is taken as it is, or refused by name, and changes nothing.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Error

  @value_bytes_max 16 * 1024 * 1024

  setup_all do
    start_supervised!({Tank.Store, data_dir: module_dir(__MODULE__)})
    :ok
  end

  setup do
    :ok = Tank.Store.delete_at([])
  end

  describe "a pod's name" do
    for {what, name} <- [
          {"that is empty", ""},
          {"with a zero byte", "a\0b"},
          {"of the bytes that paths escape", <<0, 1, 2, 0, 1>>},
          {"with slashes", "/a//b/../c/"},
          {"that is not UTF-8", <<255, 254, 0x80>>},
          {"of 255 bytes", String.duplicate("n", 255)},
          {"of 255 zero bytes", :binary.copy(<<0>>, 255)},
          {"in another script", "日本語のポッド"},
          {"with a line break", "a\nb"},
          {"that is an atom", :web},
          {"that is the empty atom", :""},
          {"that is an atom with a space", :"a b"}
        ] do
      test "#{what} is taken as it is" do
        name = unquote(name)
        assert Tank.Store.create_pod(pod(name)) == :ok
        assert Tank.Store.put_pod(pod(name)) == :ok
        assert Tank.Store.get_pod(name) === {:ok, pod(name)}
        assert Tank.Store.list_pods() === [pod(name)]
        assert Tank.Store.children_at([:tank, :pods]) === {:ok, [{name, pod(name)}]}
        assert Tank.Store.delete_pod(name) == :ok
        assert Tank.Store.list_pods() == []
      end
    end

    test "as an atom and as a string names two pods" do
      :ok = Tank.Store.put_pod(pod("web"))
      :ok = Tank.Store.put_pod(pod(:web))
      assert Tank.Store.get_pod("web") == {:ok, pod("web")}
      assert Tank.Store.get_pod(:web) == {:ok, pod(:web)}
      :ok = Tank.Store.delete_pod(:web)
      assert Tank.Store.list_pods() == [pod("web")]
    end

    for {what, name} <- [
          {"of 256 bytes", String.duplicate("n", 256)},
          {"of 10 KB", String.duplicate("n", 10_000)},
          # The compiler does not take such an atom.
          {"of 200 two-byte characters as an atom", quote(do: String.to_atom(String.duplicate("ü", 200)))}
        ] do
      test "#{what} is too large, and no pod has it" do
        name = unquote(name)
        too_large = {:error, {:too_large, :path_component, 255}}
        assert Tank.Store.put_pod(pod(name)) == too_large
        assert Tank.Store.create_pod(pod(name)) == too_large
        assert Tank.Store.delete_pod(name) == :ok
        assert Tank.Store.get_pod(name) == {:error, :not_found}
        assert Tank.Store.list_pods() == []
      end
    end

    test "that is no name is refused" do
      for name <- [nil, 1, ~c"web", {"web"}, %{}] do
        assert Tank.Store.put_pod(pod(name)) == {:error, {:invalid_name, name}}
        assert Tank.Store.create_pod(pod(name)) == {:error, {:invalid_name, name}}
      end

      assert Tank.Store.list_pods() == []
    end
  end

  describe "a path" do
    # 1024 bytes of components, each of at most 255.
    @longest List.duplicate(String.duplicate("p", 128), 8)

    test "of 1 KiB is taken, one byte more is too large" do
      assert Tank.Store.put_at(@longest, 1) == :ok
      assert Tank.Store.get_at(@longest) == {:ok, 1}
      assert Tank.Store.put_at(@longest ++ ["p"], 1) == {:error, {:too_large, :path, 1024}}
      assert Tank.Store.delete_at(@longest ++ ["p"]) == {:error, {:too_large, :path, 1024}}
      assert Tank.Store.get_at(@longest ++ ["p"]) == {:error, :not_found}
      assert Tank.Store.children_at(@longest ++ ["p"]) == {:ok, []}
      # Empty components count for nothing.
      assert Tank.Store.put_at(@longest ++ ["", ""], 2) == :ok
      assert Tank.Store.children_at(@longest ++ [""]) == {:ok, [{"", 2}]}
    end

    test "of many components is taken" do
      path = for i <- 1..500, do: if(rem(i, 2) == 0, do: :a, else: "b")
      assert Tank.Store.put_at(path, 1) == :ok
      assert Tank.Store.get_at(path) == {:ok, 1}
      assert Tank.Store.delete_at([hd(path)]) == :ok
      assert Tank.Store.get_at(path) == {:error, :not_found}
    end

    test "that is none is refused, and says what is wrong with it" do
      for path <- ["a", :a, nil, {:a}, [1], [:a, ~c"b"], [:a | :b], [nil, 1.5], [<<1::1>>]] do
        assert {:error, {:invalid_path, why}} = Tank.Store.put_at(path, 1)
        assert is_binary(why)
        assert {:error, {:invalid_path, ^why}} = Tank.Store.delete_at(path)
        # These two have no room for it in what they return.
        assert %Error{reason: {:invalid_path, ^why}} = catch_error(Tank.Store.get_at(path))
        assert %Error{reason: {:invalid_path, ^why}} = catch_error(Tank.Store.children_at(path))
      end
    end
  end

  describe "a transaction" do
    alias Tank.Store.Tree

    test "of 32 MiB in all is taken, more is refused by name, and so is a pattern" do
      values = for i <- 1..3, do: {:put, [:v, "#{i}"], :binary.copy("v", 10 * 1024 * 1024)}
      assert {:ok, %{succeeded: true}} = Tree.txn(:tank, [], values, [])
      too_large = {:error, {:too_large, :txn, 32 * 1024 * 1024}}
      assert Tree.txn(:tank, [], [{:put, [:v, "4"], :binary.copy("v", 10 * 1024 * 1024)} | values], []) == too_large
      assert Tree.txn(:tank, [], values, [{:put, [:v, "4"], :binary.copy("v", 10 * 1024 * 1024)}]) == too_large
      data = for i <- 1..3, do: {:data, {i, :binary.copy("v", 12 * 1024 * 1024)}}
      assert Tree.delete_many(:tank, [:v, {:any, data}]) == too_large
      assert Tank.Store.get_at([:v, "4"]) == {:error, :not_found}
      {:error, reason} = too_large
      assert Exception.message(Error.from_native(reason)) =~ "over the limit of 33554432 bytes together"
    end
  end

  describe "a value" do
    # A binary's external term format is 6 bytes longer.
    @head 6

    test "at the default limit of 16 MiB is taken, one byte more is too large" do
      largest = :binary.copy("v", @value_bytes_max - @head)
      assert Tank.Store.put_at([:v], largest) == :ok
      assert Tank.Store.get_at([:v]) == {:ok, largest}
      assert Tank.Store.put_at([:v], largest <> "v") == {:error, {:too_large, :value, @value_bytes_max}}
      assert Tank.Store.put_pod(pod("web", volumes: largest)) == {:error, {:too_large, :value, @value_bytes_max}}
      assert Tank.Store.get_at([:v]) == {:ok, largest}
      assert Tank.Store.get_pod("web") == {:error, :not_found}
    end

    test "that is refused says so to a reader" do
      {:error, reason} = Tank.Store.put_at([:v], :binary.copy("v", @value_bytes_max))
      assert Exception.message(Error.from_native(reason)) == "the value is over the limit of 16777216 bytes"
    end
  end
end
