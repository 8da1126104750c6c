defmodule Tank.Store.Dashboard.Views.Overview do
  @moduledoc false
  # How the store is: what is wrong, who its members are, and how much it holds.

  @behaviour Tank.Store.Dashboard.Pages

  import Tank.Store.Dashboard.Html, only: [el: 2, el: 3]

  alias Tank.Store.Dashboard.{Format, Sampler}
  alias Tank.Store.Dashboard.Views.Activity
  alias Tank.Store.Error

  # The sampler looks every second.
  @stale_ms 5_000

  @impl true
  def page(context, request) do
    live = live(context, request)

    {200,
     [el(:div, ["data-live": "/live", "data-every": 2_000], live), el(:div, [class: "plots"], Activity.overview())]}
  end

  @impl true
  def live(context, _request) do
    {at_ms, status} = Sampler.now(context.store_id)
    age_ms = System.system_time(:millisecond) - at_ms
    [stale(age_ms) | show(context, status)]
  end

  defp stale(age_ms) when age_ms < @stale_ms, do: nil

  defp stale(age_ms),
    do: el(:p, [class: "notice bad"], "The store does not answer: this is how it was #{Format.duration(age_ms)} ago.")

  defp show(context, {:error, reason}) do
    say = "#{inspect(context.store_id)} does not run on this node"

    [
      state("bad", "Not running", say),
      el(:p, [class: "notice bad"], ["#{say}: ", Exception.message(Error.from_native(reason)), "."])
    ]
  end

  defp show(_context, {:ok, status}),
    do: [banner(status), alarms(status.alarms), figures(status), members(status.members)]

  # -- The state, which is also told to screen readers when it changes

  defp banner(%{role: :forming}), do: state("warn", "Waits for its cluster", "The store waits for its cluster")

  defp banner(%{failure: failure}) when failure != nil,
    do: state("bad", "Read-only", "The disk fails: the store is read-only")

  defp banner(%{quorum: false}), do: state("bad", "No quorum", "The store has no quorum")

  defp banner(%{alarms: [_one | _more]} = status),
    do: state("warn", alarm_count(status.alarms), "The store has #{alarm_count(status.alarms)}", leader(status))

  defp banner(status), do: state("good", "Healthy", "The store is healthy", leader(status))

  defp state(class, text, say, more \\ nil) do
    el(:div, [class: "state", "data-say": [say, more] |> Enum.reject(&is_nil/1) |> Enum.join(", ")], [
      el(:span, [class: "badge " <> class], text),
      if(more, do: el(:span, [class: "muted"], more))
    ])
  end

  defp alarm_count([_one]), do: "1 alarm"
  defp alarm_count(alarms), do: "#{length(alarms)} alarms"

  defp leader(%{leader: nil}), do: "no leader"
  defp leader(%{leader: leader}) when leader == node(), do: "this member leads"
  defp leader(%{leader: leader}), do: "#{leader} leads"

  defp alarms([]), do: nil

  defp alarms(alarms) do
    el(:section, [class: "alarms", "aria-label": "Alarms"], [
      el(:ul, for({name, details} <- alarms, do: el(:li, [el(:strong, name), " ", details.message])))
    ])
  end

  # -- Figures

  defp figures(status) do
    el(:dl, [class: "figures"], [
      figure("Entries", Format.number(status.entries), "#{Format.bytes(status.value_bytes)} of data"),
      figure("Revision", Format.number(status.revision), "term #{status.term}"),
      figure("Memory", Format.bytes(status.memory_bytes), "of values"),
      figure("Disk", Format.bytes(status.disk_bytes), "of all files"),
      figure("Writes in flight", Format.number(status.in_flight), "not answered yet"),
      figure("Log", Format.number(status.last_log_index || 0), "#{Format.number(unapplied(status))} not applied")
    ])
  end

  defp unapplied(status), do: max((status.last_log_index || 0) - status.applied_index, 0)

  defp figure(name, value, more),
    do: el(:div, [el(:dt, name), el(:dd, [class: "value"], value), el(:dd, [class: "muted"], more)])

  # -- Members

  defp members(members) do
    el(:section, [class: "card", "aria-labelledby": "members"], [
      el(:h2, [id: "members"], "Members"),
      Format.table("Members of the cluster", ["Member", "Role", "Lag", "State"], Enum.map(members, &member/1))
    ])
  end

  defp member(member) do
    here = if member.node == node(), do: el(:span, [class: "tag"], "here")
    [[Atom.to_string(member.node), " ", here], role(member.role), Format.number(member.lag), reachable(member)]
  end

  defp role(:leader), do: el(:span, [class: "tag leader"], "leader")
  defp role(role), do: Atom.to_string(role)

  defp reachable(%{node: node}) when node == node(), do: el(:span, [class: "dot good"], "up")
  defp reachable(%{reachable: true}), do: el(:span, [class: "dot good"], "answers")
  defp reachable(%{reachable: false}), do: el(:span, [class: "dot bad"], "no answer")
  # Only the leader knows.
  defp reachable(_unknown), do: el(:span, [class: "muted"], "known to the leader")
end
