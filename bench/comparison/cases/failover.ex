defmodule Tank.Bench.Comparison.Cases.Failover do
  @moduledoc """
  A `kill -9` of the leader of three members, while four processes write at each of the two others.

  An outage is the longest time between one write that is acknowledged and the next one: by any of the writers, and for
  the writer that has to wait longest, which is told of an error or of nothing.
  """

  @behaviour Tank.Bench.Comparison.Case

  alias Tank.Bench.{Members, Pods, Store}

  @writers 4
  @before_ms 1_000
  @after_ms 8_000

  @impl true
  def title, do: "Killing the leader of three"

  @impl true
  def metrics, do: [{:outage, "ms without any acknowledged put", :less}, {:longest, "ms for one writer", :less}]

  @impl true
  def stages(_settings) do
    [%{sides: [tank: Store.Tank, khepri: Store.Khepri], setup: %{pods: 100}, points: [%{}], warm_up: false}]
  end

  @impl true
  def prepare(store, dir, %{pods: pods}) do
    :ok = Members.start(store, dir)
    [leader | _followers] = Members.members()
    :ok = Members.call(leader, Store, :fill, [store, pods])
  end

  @impl true
  def measure(store, _dir, %{pods: pods}, _seconds) do
    [leader | survivors] = Members.members()
    arguments = [store, pods, @before_ms + @after_ms]
    writing = for member <- survivors, do: Task.async(fn -> Members.call(member, __MODULE__, :write, arguments) end)
    Process.sleep(@before_ms)
    killed = System.os_time(:microsecond)
    :ok = Members.kill(leader)
    writers = writing |> Task.await_many(:infinity) |> Enum.concat()
    :ok = Members.revive(leader)
    %{outage: longest([Enum.concat(writers)], killed), longest: longest(writers, killed)}
  end

  @doc "Runs on a member: the times at which each writer had a put acknowledged."
  @spec write(module, pos_integer, pos_integer) :: [[integer]]
  def write(store, pods, duration_ms) do
    deadline = System.os_time(:microsecond) + duration_ms * 1000

    1..@writers
    |> Enum.map(&Task.async(fn -> acknowledged(store, pods, &1, deadline, []) end))
    |> Task.await_many(:infinity)
  end

  # Goes on until one is acknowledged after the deadline, so that an outage has an end.
  defp acknowledged(store, pods, count, deadline, times) do
    result = attempt(store, Pods.pod(Pods.name(1 + rem(count, pods))))
    now = System.os_time(:microsecond)

    cond do
      result != :ok -> acknowledged(store, pods, count + 1, deadline, times)
      now > deadline -> [now | times]
      true -> acknowledged(store, pods, count + 1, deadline, [now | times])
    end
  end

  defp attempt(store, pod) do
    with {:error, _reason} = error <- store.put(pod) do
      # As a caller would, rather than spin.
      Process.sleep(5)
      error
    end
  catch
    :exit, reason -> {:error, reason}
  end

  # In milliseconds, among those that end after `since`.
  defp longest(writers, since) do
    gaps =
      for times <- writers,
          [before, later] <- times |> Enum.sort() |> Enum.chunk_every(2, 1, :discard),
          later > since,
          do: later - before

    Enum.max(gaps) / 1000
  end
end
