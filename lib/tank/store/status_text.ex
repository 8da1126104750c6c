defmodule Tank.Store.StatusText do
  @moduledoc false
  # `Tank.Store.Cluster.status/1` for people: one line for what matters first, then a table of the members.

  @doc "The status of a store as lines of text."
  @spec render(atom, {:ok, map} | {:error, term}) :: String.t()
  def render(store_id, {:error, reason}), do: "store #{inspect(store_id)}: #{inspect(reason)}\n"

  def render(store_id, {:ok, status}) do
    """
    store #{inspect(store_id)}: #{quorum(status)}, leader #{status.leader || "unknown"}, term #{status.term}
    this member: #{status.role}, revision #{status.revision}, #{number(status.entries)} entries, \
    log #{status.last_log_index || 0} (#{max((status.last_log_index || 0) - status.applied_index, 0)} not applied)
    memory #{bytes(status.memory_bytes)}, disk #{bytes(status.disk_bytes)}, #{status.in_flight} writes in flight, \
    dropped frames #{status.malformed_frames + status.foreign_frames}, digest #{digest(status.digest)}
    #{table(status.members)}#{alarms(status.alarms)}\
    """
  end

  @doc """
  A number of bytes as people read it.

      iex> Enum.map([0, 1023, 1024, 1_572_864], &Tank.Store.StatusText.bytes/1)
      ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]
  """
  @spec bytes(non_neg_integer) :: String.t()
  def bytes(count) when count < 1024, do: "#{count} B"
  def bytes(count), do: bytes(count / 1024, ~w(KiB MiB GiB TiB))

  defp bytes(count, [unit | larger]) when count < 1024 or larger == [],
    do: "#{:erlang.float_to_binary(count, decimals: 1)} #{unit}"

  defp bytes(count, [_unit | larger]), do: bytes(count / 1024, larger)

  defp alarms(alarms), do: for({name, details} <- alarms, into: "", do: "ALARM #{name}: #{details.message}\n")

  defp quorum(%{role: :forming}), do: "WAITS FOR ITS CLUSTER"
  defp quorum(%{quorum: true}), do: "quorum ok"
  defp quorum(%{quorum: false}), do: "NO QUORUM"

  defp number(count), do: count |> Integer.to_string() |> String.replace(~r/\B(?=(\d{3})+$)/, ",")

  defp digest(digest), do: digest |> Integer.to_string(16) |> String.downcase() |> String.pad_leading(16, "0")

  defp table(members) do
    rows = for member <- members, do: cells(member)
    rows = [["member", "role", "lag", ""] | rows]
    widths = for column <- 0..3, do: rows |> Enum.map(&String.length(Enum.at(&1, column))) |> Enum.max()

    for row <- rows, into: "" do
      cells = row |> Enum.zip(widths) |> Enum.map_join("  ", fn {cell, width} -> String.pad_trailing(cell, width) end)
      "  " <> String.trim_trailing(cells) <> "\n"
    end
  end

  defp cells(member), do: [Atom.to_string(member.node), Atom.to_string(member.role), lag(member.lag), silent(member)]

  defp silent(%{reachable: false}), do: "NO ANSWER"
  defp silent(_member), do: ""

  # Only the leader knows.
  defp lag(nil), do: "-"
  defp lag(lag), do: number(lag)
end
