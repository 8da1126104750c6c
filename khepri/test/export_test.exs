defmodule Khepri.ExportTest do
  use Khepri.StoreCase, async: true

  test "as text, there and back", %{store: s, dir: dir} do
    file = Path.join(dir, "export.erl")
    :ok = :khepri.put(s, [], :top)
    :ok = :khepri.put(s, [:a, "ü"], %{"x" => [1, 'ä']})
    :ok = :khepri.put(s, [:kept], 1, %{keep_while: %{[:a] => if_node_exists()}})
    assert :khepri.export(s, :khepri_export_erlang, file) == :ok
    assert File.read!(file) =~ "{put,[kept],{p_data,1},\#{keep_while => \#{[a] => {if_node_exists,true}}}}."
    {:ok, all} = :khepri.get_many(s, "**", %{include_root_props: true})
    :ok = :khepri.delete(s, [])
    :ok = :khepri.put(s, [:stays], 1)
    assert :khepri.import(s, :khepri_export_erlang, file) == :ok
    assert :khepri.get_many(s, "**", %{include_root_props: true}) == {:ok, Map.put(all, [:stays], 1)}
    :ok = :khepri.delete(s, [:a])
    assert :khepri.exists(s, [:kept]) == false
  end

  test "the store's own export knows stored procedures from data", %{store: s, dir: dir} do
    file = Path.join(dir, "export.txt")
    :ok = :khepri.put(s, [:proc], &Khepri.StoreCase.read/0)
    # A function as data is none.
    :ok = :khepri.put(s, [:data], :khepri_payload.data(&Khepri.StoreCase.read/0))
    :ok = :khepri.put(s, [:kept], &Khepri.StoreCase.read/0, %{keep_while: %{[:proc] => if_node_exists()}})
    told = fn -> for path <- [[:proc], [:data], [:kept]], do: :khepri.is_sproc(s, path) end
    {:ok, _export} = Tank.Store.Backup.export(s, file)
    {:ok, _import} = Tank.Store.Backup.import(s, file, replace: true)
    assert told.() == [true, false, true]
    :ok = :khepri.delete(s, [:proc])
    assert :khepri.exists(s, [:kept]) == false
  end

  test "what only the real Khepri runs is refused by name", %{store: s, dir: dir} do
    file = Path.join(dir, "sproc.erl")
    File.write!(file, "{put,[p],{p_sproc,{horus_fun,x},rw},\#{}}.\n")
    assert {:error, {:khepri, :sproc_of_another_khepri, %{path: [:p]}}} = :khepri.import(s, :khepri_export_erlang, file)
  end

  test "what is printed", %{store: s} do
    import ExUnit.CaptureIO
    :ok = :khepri.put(s, [:foo, "bar"], :value)
    :ok = :khepri.put(s, [:baz], 1)
    text = capture_io(fn -> :ok = :khepri.info(s) end)
    assert text =~ "\e[1;32m== CLUSTER MEMBERS ==\e[0m\n\n#{node()}\n"
    assert text =~ "●\n├── baz\n│     \e[38;5;246mData: 1\e[0m\n│\n╰── foo\n    ╰── <<\"bar\">>\n"
    assert capture_io(fn -> :khepri.info() end) =~ "Running stores:\n"
  end
end
