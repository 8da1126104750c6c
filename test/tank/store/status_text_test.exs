defmodule Tank.Store.StatusTextTest do
  use ExUnit.Case, async: true
  doctest Tank.Store.StatusText

  test "a status at a glance" do
    status = %{
      role: :leader,
      term: 7,
      leader: :a@h,
      quorum: true,
      revision: 12,
      entries: 12_345,
      last_log_index: 90,
      applied_index: 88,
      memory_bytes: 2048,
      disk_bytes: 10,
      in_flight: 0,
      malformed_frames: 0,
      foreign_frames: 3,
      digest: 255,
      alarms: [],
      members: [
        %{node: :a@h, role: :leader, member_id: 1, lag: 0, reachable: true},
        %{node: :bb@h, role: :voter, member_id: 2, lag: 1500, reachable: false},
        %{node: :c@h, role: :learner, member_id: 3, lag: nil, reachable: nil}
      ]
    }

    assert Tank.Store.StatusText.render(:tank, {:ok, status}) == """
           store :tank: quorum ok, leader a@h, term 7
           this member: leader, revision 12, 12,345 entries, log 90 (2 not applied)
           memory 2.0 KiB, disk 10 B, 0 writes in flight, dropped frames 3, digest 00000000000000ff
             member  role     lag
             a@h     leader   0
             bb@h    voter    1,500  NO ANSWER
             c@h     learner  -
           """

    assert Tank.Store.StatusText.render(:tank, {:ok, %{status | quorum: false, leader: nil}}) =~
             "NO QUORUM, leader unknown"

    alarms = [member_differs: %{message: "it differs"}]

    assert Tank.Store.StatusText.render(:tank, {:ok, %{status | alarms: alarms}}) =~
             "\nALARM member_differs: it differs\n"

    assert Tank.Store.StatusText.render(:tank, {:error, :noproc}) == "store :tank: :noproc\n"
  end
end
