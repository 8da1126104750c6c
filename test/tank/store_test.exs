defmodule Tank.StoreTest do
  # The documented API, line by line, on one store that all tests of this module share.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.Error

  doctest Tank.Store

  # What later versions of Tank call, and no documentation mentions.
  @accessors [children_at: 1, delete_at: 1, get_at: 1, put_at: 2]
  @documented [
    child_spec: 1,
    create_pod: 1,
    delete_pod: 1,
    get_pod: 1,
    list_pods: 0,
    put_pod: 1,
    start_link: 0,
    start_link: 1
  ]

  setup_all do
    start_supervised!({Tank.Store, data_dir: module_dir(__MODULE__)})
    :ok
  end

  setup do
    :ok = Tank.Store.delete_at([])
  end

  describe "the module" do
    test "exports the documented functions and the accessors, and nothing else" do
      assert Tank.Store.__info__(:functions) == Enum.sort(@documented ++ @accessors)
      assert Tank.Store.__info__(:macros) == []
    end

    test "documents each function with an example, and hides the accessors" do
      {:docs_v1, _, :elixir, _, %{"en" => _}, _, docs} = Code.fetch_docs(Tank.Store)
      functions = for {{:function, name, arity}, _, _, doc, _} <- docs, do: {{name, arity}, doc}
      hidden = for {function, :hidden} <- functions, do: function
      shown = for {function, %{"en" => text}} <- functions, do: {function, text}

      assert Enum.sort(hidden) == @accessors
      # `start_link/0` is `start_link/1` with its default.
      assert shown |> Enum.map(&elem(&1, 0)) |> Enum.sort() == @documented -- [start_link: 0]
      for {function, text} <- shown, do: assert(text =~ "iex>", "#{inspect(function)} has no example")
    end

    test "child_spec is exactly what supervisors of Tank have" do
      opts = [store_id: :s, data_dir: "d"]
      assert Tank.Store.child_spec(opts) == %{id: Tank.Store, start: {Tank.Store, :start_link, [opts]}, type: :worker}
      assert Tank.Store.child_spec([]) == %{id: Tank.Store, start: {Tank.Store, :start_link, [[]]}, type: :worker}
    end

    test "the process is registered under its name" do
      assert Process.alive?(Process.whereis(Tank.Store))
    end
  end

  describe "put_pod" do
    test "creates, then overwrites" do
      assert Tank.Store.put_pod(pod("web")) == :ok
      assert Tank.Store.get_pod("web") == {:ok, pod("web")}
      assert Tank.Store.put_pod(pod("web", restart: :never)) == :ok
      assert Tank.Store.get_pod("web") == {:ok, pod("web", restart: :never)}
      assert Tank.Store.list_pods() == [pod("web", restart: :never)]
    end

    test "takes the pods of the examples, and gives them back" do
      {pods, _bindings} = Code.eval_file("examples/pods.exs")
      for pod <- pods, do: assert(Tank.Store.put_pod(pod) == :ok)
      for pod <- pods, do: assert(Tank.Store.get_pod(pod.name) === {:ok, pod})
      assert Enum.sort(Tank.Store.list_pods()) === Enum.sort(pods)
    end

    test "takes a Tank.Pod that is defined elsewhere, with fields of its own" do
      theirs = %{__struct__: Tank.Pod, name: "theirs", replicas: 3, labels: %{"a" => ~c"b"}}
      assert Tank.Store.put_pod(theirs) == :ok
      assert Tank.Store.get_pod("theirs") === {:ok, theirs}
      assert Tank.Store.create_pod(theirs) == {:error, :exists}
      assert Tank.Store.list_pods() === [theirs]
    end
  end

  describe "create_pod" do
    test "creates what is absent" do
      assert Tank.Store.create_pod(pod("web")) == :ok
      assert Tank.Store.get_pod("web") == {:ok, pod("web")}
    end

    test "leaves the stored pod untouched" do
      :ok = Tank.Store.put_pod(pod("web"))
      {:ok, before} = Tank.Store.Cluster.status(:tank)
      assert Tank.Store.create_pod(pod("web", restart: :never)) == {:error, :exists}
      assert Tank.Store.create_pod(pod("web")) == {:error, :exists}
      assert Tank.Store.get_pod("web") == {:ok, pod("web")}
      {:ok, later} = Tank.Store.Cluster.status(:tank)
      assert {later.revision, later.digest} == {before.revision, before.digest}
    end

    test "creates again what was deleted" do
      :ok = Tank.Store.create_pod(pod("web"))
      :ok = Tank.Store.delete_pod("web")
      assert Tank.Store.create_pod(pod("web", restart: :never)) == :ok
      assert Tank.Store.get_pod("web") == {:ok, pod("web", restart: :never)}
    end
  end

  describe "get_pod" do
    test "is :not_found for what was never there, and for what is gone" do
      assert Tank.Store.get_pod("web") == {:error, :not_found}
      :ok = Tank.Store.put_pod(pod("web"))
      :ok = Tank.Store.delete_pod("web")
      assert Tank.Store.get_pod("web") == {:error, :not_found}
    end

    test "raises Tank.Store.Error when it cannot know" do
      # The store is stopped under Tank.Store, which is held up and so does not notice yet.
      owner = Process.whereis(Tank.Store)
      :sys.suspend(owner)
      :ok = Tank.Store.Cluster.stop(:tank)
      for _ <- 1..2, do: assert_raise(Error, "the store is not running", fn -> Tank.Store.get_pod("web") end)
      assert %Error{reason: :noproc} = catch_error(Tank.Store.get_at([:x]))
      assert %Error{reason: :noproc} = catch_error(Tank.Store.list_pods())
      assert %Error{reason: :noproc} = catch_error(Tank.Store.children_at([:x]))
      # Writes have room for an error in what they return.
      assert Tank.Store.put_pod(pod("web")) == {:error, :noproc}
      assert Tank.Store.create_pod(pod("web")) == {:error, :noproc}
      assert Tank.Store.delete_pod("web") == {:error, :noproc}
      assert Tank.Store.put_at([:x], 1) == {:error, :noproc}
      assert Tank.Store.delete_at([:x]) == {:error, :noproc}
      :sys.resume(owner)
      await_tank(owner)
    end
  end

  describe "delete_pod" do
    test "deletes, and a missing pod is fine" do
      :ok = Tank.Store.put_pod(pod("web"))
      :ok = Tank.Store.put_pod(pod("db"))
      assert Tank.Store.delete_pod("web") == :ok
      assert Tank.Store.delete_pod("web") == :ok
      assert Tank.Store.delete_pod("never") == :ok
      assert Tank.Store.list_pods() == [pod("db")]
    end
  end

  describe "list_pods" do
    test "is empty, then has each pod once" do
      assert Tank.Store.list_pods() == []
      names = for i <- 1..500, do: "pod#{i}"
      for name <- names, do: :ok = Tank.Store.put_pod(pod(name))
      assert listed_names() == Enum.sort(names)
    end

    test "shows a process its own writes at once, without a sleep" do
      1..20
      |> Task.async_stream(
        fn writer ->
          for i <- 1..50, name = "pod#{writer}-#{i}" do
            :ok = Tank.Store.put_pod(pod(name))
            assert pod(name) in Tank.Store.list_pods()
            :ok = Tank.Store.put_pod(pod(name, restart: :never))
            assert pod(name, restart: :never) in Tank.Store.list_pods()
            :ok = Tank.Store.delete_pod(name)
            refute Enum.any?(Tank.Store.list_pods(), &(&1.name == name))
          end
        end,
        max_concurrency: 20,
        timeout: 60_000
      )
      |> Stream.run()
    end

    test "shows nothing that was written elsewhere" do
      :ok = Tank.Store.put_pod(pod("web"))

      elsewhere = [
        [],
        [:tank],
        [:tank, :pods],
        [:tank, :pods, "web", "status"],
        [:tank, :pods, "gone", :a],
        [:tank, :pods, "web", "web"],
        [:tank, "pods", "web2"],
        ["tank", :pods, "web2"],
        [:tank, :podsx, "web2"],
        [:tank, :pod, "web2"],
        [:tank_web, "users", "web2"],
        [:pods, "web2"],
        ["web2"]
      ]

      for path <- elsewhere, do: assert(Tank.Store.put_at(path, pod("web2")) == :ok)
      assert Tank.Store.list_pods() == [pod("web")]
      assert Tank.Store.get_pod("web2") == {:error, :not_found}
      assert Tank.Store.get_pod("gone") == {:error, :not_found}
    end

    test "is where put_at writes when it writes to a pod's path" do
      :ok = Tank.Store.put_at([:tank, :pods, "web"], pod("web"))
      assert Tank.Store.get_pod("web") == {:ok, pod("web")}
      assert Tank.Store.get_at([:tank, :pods, "web"]) == {:ok, pod("web")}
      assert Tank.Store.list_pods() == [pod("web")]
    end
  end

  describe "what is not a pod" do
    for {what, value} <- [
          {"a plain map", %{name: "web"}},
          {"another struct", %Tank.Container{name: "web", image: "i"}},
          {"nil", nil},
          {"a keyword list", [name: "web"]},
          {"a name", "web"},
          {"the module", Tank.Pod},
          {"a pod without a name", %{__struct__: Tank.Pod}}
        ] do
      test "#{what} raises FunctionClauseError" do
        assert_raise FunctionClauseError, fn -> Tank.Store.put_pod(unquote(Macro.escape(value))) end
        assert_raise FunctionClauseError, fn -> Tank.Store.create_pod(unquote(Macro.escape(value))) end
        assert Tank.Store.list_pods() == []
      end
    end

    test "a name that is neither a string nor an atom raises FunctionClauseError" do
      for name <- [1, ~c"web", {"web"}, ["web"], %{}] do
        assert_raise FunctionClauseError, fn -> Tank.Store.get_pod(name) end
        assert_raise FunctionClauseError, fn -> Tank.Store.delete_pod(name) end
      end
    end
  end
end
