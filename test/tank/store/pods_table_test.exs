defmodule Tank.Store.PodsTableTest do
  # The option `:pods_table`: the pods in the ETS table `:tank_pods`.
  use Tank.Store.TankCase, async: false

  alias Tank.Store.{Error, Tree}

  @moduletag :tmp_dir
  @table :tank_pods

  defp rows, do: @table |> :ets.tab2list() |> Enum.sort() |> Enum.map(&elem(&1, 0))

  defp start(dir, options \\ []), do: start_supervised!({Tank.Store, [data_dir: dir, pods_table: true] ++ options})

  test "there is no table unless it is asked for", %{tmp_dir: dir} do
    start_supervised!({Tank.Store, data_dir: dir})
    :ok = Tank.Store.put_pod(pod("web"))
    assert :ets.whereis(@table) == :undefined
  end

  test "a row is there when a write returns", %{tmp_dir: dir} do
    start(dir)

    for n <- 1..200 do
      name = "web#{rem(n, 10)}"
      pod = %{pod(name) | restart: Enum.at([:always, :never], rem(n, 2))}
      :ok = Tank.Store.put_pod(pod)
      assert :ets.lookup(@table, name) == [{name, pod}]
    end

    assert Tank.Store.create_pod(pod("web1")) == {:error, :exists}
    :ok = Tank.Store.create_pod(pod(:job))
    assert [{:job, %Tank.Pod{name: :job}}] = :ets.lookup(@table, :job)
    :ok = Tank.Store.delete_pod("web1")
    assert :ets.lookup(@table, "web1") == []
    :ok = Tank.Store.delete_pod("nobody")
    assert length(rows()) == 10
    assert :ets.info(@table, :protection) == :protected
  end

  test "several writers each find their own row", %{tmp_dir: dir} do
    start(dir)

    1..8
    |> Enum.map(fn writer ->
      Task.async(fn ->
        for n <- 1..50, name = "w#{writer}-#{n}" do
          :ok = Tank.Store.put_pod(pod(name))
          [{^name, _pod}] = :ets.lookup(@table, name)
        end
      end)
    end)
    |> Task.await_many(60_000)

    assert length(rows()) == 400
  end

  test "it is filled at the start, and holds pods only", %{tmp_dir: dir} do
    start(dir)
    :ok = Tank.Store.put_pod(pod("web"))
    {:ok, _revision} = Tree.put(:tank, [:tank, :pods, "web", :status], :running)
    {:ok, revision} = Tree.put(:tank, [:elsewhere], 1)
    :ok = Tank.Store.Projection.await(Tank.Store.PodsTable, revision)
    assert rows() == ["web"]
    stop_supervised!(Tank.Store)
    assert :ets.whereis(@table) == :undefined
    start(dir)
    assert rows() == ["web"]
  end

  test "its process is restarted, and the table is there again", %{tmp_dir: dir} do
    start(dir)
    :ok = Tank.Store.put_pod(pod("web"))
    Process.exit(Process.whereis(Tank.Store.PodsTable), :kill)
    eventually("the table to be filled again", fn -> :ets.whereis(@table) != :undefined and rows() == ["web"] end)
    :ok = Tank.Store.put_pod(pod("db"))
    assert rows() == ["db", "web"]
  end

  test "the owner is killed, and starts again with the table", %{tmp_dir: dir} do
    start(dir)
    :ok = Tank.Store.put_pod(pod("web"))
    kill_tank()
    :ok = Tank.Store.put_pod(pod("db"))
    assert rows() == ["db", "web"]
  end

  test "a table of another process is left alone", %{tmp_dir: dir} do
    :ets.new(@table, [:named_table])

    assert {:error, {:store_init_failed, %Error{} = error}} =
             start_supervised({Tank.Store, data_dir: dir, pods_table: true}) |> unwrap()

    assert Exception.message(error) =~ "tank_pods"
    :ets.delete(@table)
    start(dir)
  end

  defp unwrap({:error, {reason, _child}}), do: {:error, reason}
  defp unwrap(other), do: other

  test "the option is suggested for a similar one", %{tmp_dir: dir} do
    assert_raise ArgumentError, ~r/unknown option :pods_tabel, did you mean :pods_table\?/, fn ->
      Tank.Store.start_link(data_dir: dir, pods_tabel: true)
    end
  end

  test "the option is a boolean" do
    assert_raise ArgumentError, ~r/option :pods_table must be a boolean, got: :yes/, fn ->
      Tank.Store.start_link(pods_table: :yes)
    end
  end
end
