defmodule Tank.Store.AlarmsTest do
  use Tank.Store.TankCase, async: true

  import ExUnit.CaptureLog

  alias Tank.Store.{Alarms, Cluster}

  @moduletag :tmp_dir

  test "an alarm is logged once, is in the status while it is raised, and is gone when it is cleared", %{tmp_dir: dir} do
    start_store(dir, store_id: :alarms_test)
    assert {:ok, %{alarms: []}} = Cluster.status(:alarms_test)

    log =
      capture_log(fn ->
        :ok = Alarms.set(:alarms_test, :disk_is_loud, "the disk is loud: replace it", %{decibels: 80})
        :ok = Alarms.set(:alarms_test, :disk_is_loud, "the disk is loud: replace it", %{decibels: 90})
      end)

    assert length(String.split(log, "store :alarms_test: alarm disk_is_loud: the disk is loud: replace it")) == 2
    details = %{message: "the disk is loud: replace it", decibels: 90}
    assert {:ok, %{alarms: [disk_is_loud: ^details]} = status} = Cluster.status(:alarms_test)
    assert Tank.Store.StatusText.render(:alarms_test, {:ok, status}) =~ "ALARM disk_is_loud: the disk is loud"
    assert Alarms.list(:another_store) == []

    assert capture_log(fn -> Alarms.clear(:alarms_test, :disk_is_loud) end) =~ "alarm disk_is_loud is cleared"
    assert capture_log(fn -> Alarms.clear(:alarms_test, :disk_is_loud) end) == ""
    assert {:ok, %{alarms: []}} = Cluster.status(:alarms_test)
  end
end
