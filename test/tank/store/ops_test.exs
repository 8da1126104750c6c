defmodule Tank.Store.OpsTest do
  use ExUnit.Case, async: true
  use Tank.Store.Testing

  import ExUnit.CaptureIO

  alias Tank.Store.{Error, IEx, Ops, Tree}

  @moduletag :tmp_dir

  defp printed(fun) do
    me = self()
    text = capture_io(fn -> send(me, {:result, fun.()}) end)
    assert_received {:result, :ok}
    text
  end

  test "status and members are printed", %{store: store} do
    assert printed(fn -> Ops.status(store) end) =~ "store #{inspect(store)}: quorum ok"
    assert printed(fn -> Ops.members(store) end) == "#{node()}\n"
    assert printed(fn -> IEx.status(store) end) =~ "quorum ok"
  end

  test "a backup is written and restored, with progress", %{store: store, tmp_dir: dir} do
    for n <- 1..200, do: Tree.put!(store, [:a, "#{n}"], n)
    file = Path.join(dir, "backup")
    text = printed(fn -> Ops.backup(store, file) end)
    assert text =~ ~r/^backup: digest \d+, entries 200,/m
    assert printed(fn -> Ops.restore(file, Path.join(dir, "restored")) end) =~ ~r/^restore: .*entries 200/m

    assert_raise Error, ~r/not empty|holds/, fn ->
      capture_io(fn -> Ops.restore(file, Path.join(dir, "restored")) end)
    end
  end

  test "entries are exported and imported", %{store: store, tmp_dir: dir} do
    Tree.put!(store, [:a], 1)
    file = Path.join(dir, "export")
    assert printed(fn -> Ops.export(store, file) end) =~ "export: entries 1"
    Tree.delete!(store, [:a])
    assert printed(fn -> Ops.import(store, file) end) =~ "import: entries 1"
    assert Tree.get(store, [:a]) == {:ok, 1}
  end

  test "an error raises, with a message that says what to do", %{store: store} do
    assert_raise Error, ~r/no member of this cluster/, fn -> Ops.remove_member(store, :nobody@nowhere) end
    assert_raise Error, ~r/Give force: true if that is wanted/, fn -> Ops.force_new_cluster(store) end
    assert_raise Error, "the store is not running", fn -> Ops.backup(:never_started, "never") end

    assert_raise ArgumentError, "unknown option :timeot, did you mean :timeout?", fn ->
      Ops.members(store, timeot: 1)
    end

    assert printed(fn -> Ops.force_new_cluster(store, force: true) end) =~ "is the only member of a new cluster"
  end

  test "a tree is printed, and bounded", %{store: store} do
    Tree.put!(store, [:users, "ann"], %{role: :admin})
    Tree.put!(store, [:users, "bob", "key"], String.duplicate("x", 10_000))
    for n <- 100..199, do: Tree.put!(store, [:many, "#{n}"], n)

    assert printed(fn -> IEx.tree(store, [:users]) end) == """
           [:users]
           ├── "ann" = %{role: :admin}
           └── "bob"
               └── "key" = "#{String.duplicate("x", 60)}" <> ...
           """

    assert printed(fn -> IEx.tree(store, [], depth: 1) end) == """
           []
           ├── :many (100 children)
           └── :users (2 children)
           """

    text = printed(fn -> IEx.tree(store, [:many], limit: 3) end)
    assert length(String.split(text, "\n", trim: true)) == 5
    assert text =~ "└── ... more"
  end

  test "changes are printed until the watch is ended", %{store: store} do
    {:ok, io} = StringIO.open("")
    leader = Process.group_leader()
    Process.group_leader(self(), io)
    {:ok, pid} = IEx.watch(store, [:w])
    Process.group_leader(self(), leader)
    eventually("the watch", fn -> :sys.get_state(pid).watch end)
    {:ok, first} = Tree.put(store, [:w, "a"], 1)
    {:ok, second} = Tree.delete(store, [:w, "a"])

    text = "#{first} created [:w, \"a\"] = 1\n#{second} deleted [:w, \"a\"]\n"
    eventually("the changes", fn -> StringIO.contents(io) == {"", text} || {:not_yet, StringIO.contents(io)} end)
    :ok = IEx.unwatch(pid)
  end
end
