defmodule Tank.ContainerTest do
  use ExUnit.Case, async: true

  alias Tank.{Container, Mount}

  doctest Tank.Container

  defp new(fields), do: Container.new([name: "app", image: "alpine"] |> Keyword.merge(fields))

  @path "/a/b"
  @mount %Mount{volume: "data", path: "/data"}

  @good [
    name: ["app", "app_2.x-y"],
    image: ["alpine", "registry:5000/a/b@sha256:00", "ü", {:rootfs, "/"}, {:rootfs, @path}],
    command: [[], ["sh", "-c", ""], ["wörld"]],
    args: [[], ["a b", ""]],
    env: [%{}, %{"A" => "", "b.c" => "x=y\nz"}],
    working_dir: [nil, "/", @path],
    user: [nil, "root", "0:0"],
    mounts: [[], [@mount], [@mount, %{@mount | path: "/other"}]],
    limits: [
      %{},
      %{memory: 1, cpu: {50_000, 100_000}, pids: :max, share: 0.5},
      %{"io" => %{"8:0" => %{rbps: 1, prio: {:be, {4, [1, 2]}}}}, nested: %{a: %{b: %{}}}},
      %{memory: 1_000_000_000_000_000_000_000_000, hugepages: [], deep: {{{}}}}
    ],
    tty: [true, false]
  ]

  for {field, values} <- @good, {value, index} <- Enum.with_index(values) do
    test "#{field} may be (#{index}) #{inspect(value)}" do
      value = unquote(Macro.escape(value))
      assert {:ok, %Container{unquote(field) => ^value}} = new([{unquote(field), value}])
    end
  end

  @bad [
    name: [nil, "", "a/b", :app, ~c"app"],
    image:
      [nil, "", :alpine, ~c"alpine", <<255>>, "a\0", {:rootfs, "rel"}, {:rootfs, nil}] ++
        [{:rootfs, ""}, {:rootfs, "/a/../b"}, {:rootfs, "/a\0"}, {:oci, "/a"}, {:rootfs}, %{}],
    command: [nil, "sh", ~c"sh", ["sh" | "c"], [:sh], ["a\0"], [<<255>>], %{}],
    args: [nil, "x", [1], ["a" | :b], {"a"}],
    working_dir: ["", "rel", "/a/../b", :tmp, ~c"/tmp", "/a\0"],
    user: ["", 0, :root, ~c"root", <<255>>],
    mounts: [nil, %{}, "data", {[]}, [[] | :b]],
    limits:
      [nil, [], [memory: 1], "1", %{memory: nil}, %{nil => 1}, %{{1} => 1}, %{1 => 1}] ++
        [%{a: %{b: nil}}, %{a: {1, nil}}, %{a: [1 | 2]}, %{a: <<255>>}, %{a: <<1::3>>}] ++
        [%{<<255>> => 1}],
    tty: [nil, "true", 1, :yes]
  ]

  for {field, values} <- @bad, {value, index} <- Enum.with_index(values) do
    test "#{field} may not be (#{index}) #{inspect(value, limit: 5)}" do
      value = unquote(Macro.escape(value))
      assert new([{unquote(field), value}]) == {:error, {unquote(:"invalid_#{field}"), value}}
    end
  end

  test "limits hold nothing that means nothing elsewhere" do
    for bad <- [self(), make_ref(), &is_atom/1] do
      assert {:error, {:invalid_limits, _}} = new(limits: %{a: {1, [bad]}})
      assert {:error, {:invalid_limits, _}} = new(limits: %{bad => 1})
    end
  end

  test "an environment that is refused is told by names, without the values" do
    for {env, names} <- [
          {%{a: "b"}, [:a]},
          {%{"A" => 1, "B" => "", "C" => nil}, ["A", "C"]},
          {%{"" => "b"}, [""]},
          {%{"A=secret" => "c"}, ["A"]},
          {%{"A\0" => "b"}, ["A\0"]},
          {%{"A" => "b\0"}, ["A"]}
        ] do
      assert new(env: env) == {:error, {:invalid_env, names}}
    end

    for env <- [nil, [], [{"A", "b"}], [a: "b"], "A=b"],
        do: assert(new(env: env) == {:error, {:invalid_env, :not_a_map}})
  end

  test "is printed without its environment, also in a pod" do
    {:ok, container} = new(env: %{"PASSWORD" => "hunter2"})
    refute inspect(container) =~ "hunter2"
    refute inspect(%Tank.Pod{name: "web", containers: [container]}) =~ "hunter2"
    assert inspect(container) =~ container.image
  end

  test "a struct is neither an environment nor limits" do
    for struct <- [~D[2024-06-01], MapSet.new(), %Mount{}] do
      assert {:error, {:invalid_env, [_name | _more]}} = new(env: struct)
      assert new(limits: struct) == {:error, {:invalid_limits, struct}}
      assert new(limits: %{a: struct}) == {:error, {:invalid_limits, %{a: struct}}}
    end
  end

  test "mounts have their own reasons" do
    assert new(mounts: [@mount, :data]) == {:error, {:invalid_mount, :data}}
    assert new(mounts: [[volume: "data"]]) == {:error, {:invalid_path, nil}}
    assert new(mounts: [[path: "/data"]]) == {:error, {:invalid_volume, nil}}
    assert new(mounts: [[volumes: 1]]) == {:error, {:unknown_keys, [:volumes]}}
  end

  test "no two mounts are at one path, however it is spelled" do
    mounts = [@mount, [volume: "other", path: "//data/./"]]
    assert new(mounts: mounts) == {:error, {:duplicate_paths, ["/data"]}}
  end

  test "paths have one spelling" do
    assert {:ok, %Container{image: {:rootfs, "/a/b"}, working_dir: "/c"}} =
             new(image: {:rootfs, "//a/./b/"}, working_dir: "/c/")
  end

  test "anything else is no container" do
    for bad <- [nil, "app", [1], [{:name, "a"} | :b], %Mount{}, {}] do
      assert Container.new(bad) == {:error, {:invalid_container, bad}}
      assert_raise ArgumentError, ~r/cannot build Tank.Container/, fn -> Container.new!(bad) end
    end
  end

  test "a bad container raises with its name and field" do
    error = assert_raise ArgumentError, fn -> Container.new!(name: "app", image: "") end
    assert error.message =~ ~s(cannot build Tank.Container "app": image: got "", expected)
  end
end
