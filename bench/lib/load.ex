defmodule Tank.Bench.Load do
  @moduledoc "Processes that call something in a loop, and how often and how fast they got their answers."

  alias Tank.Bench.Histogram

  @type result :: %{rate: float, p50: float, p99: float, p999: float, count: non_neg_integer}

  @doc """
  `clients` processes, each calling `make.(client)` once for a function that is then called with 0, 1, 2, ... for
  `seconds`. It must return `:ok`, or the benchmark ends.
  """
  @spec run(pos_integer, number, (pos_integer -> (non_neg_integer -> :ok))) :: result
  def run(clients, seconds, make) do
    run_all([{:load, clients, make}], seconds).load
  end

  @doc "Several such loads at once, each with a name."
  @spec run_all([{atom, pos_integer, (pos_integer -> (non_neg_integer -> :ok))}], number) :: %{atom => result}
  def run_all(loads, seconds) do
    started = for {name, clients, make} <- loads, do: {name, Histogram.new(), start(clients, make)}
    settle()
    begin = System.monotonic_time(:nanosecond)
    deadline = begin + trunc(seconds * 1.0e9)
    for {_name, histogram, tasks} <- started, task <- tasks, do: send(task.pid, {:go, deadline, histogram})

    for {name, histogram, tasks} <- started, into: %{} do
      {counts, ends} = tasks |> Task.await_many(:infinity) |> Enum.unzip()
      [p50, p99, p999] = Histogram.percentiles(histogram, [0.5, 0.99, 0.999])
      elapsed = (Enum.max(ends) - begin) / 1.0e9
      {name, %{rate: Enum.sum(counts) / elapsed, p50: p50, p99: p99, p999: p999, count: Enum.sum(counts)}}
    end
  end

  @doc "`clients` processes that never stop calling."
  @spec run_forever((pos_integer -> (non_neg_integer -> :ok)), pos_integer) :: no_return
  def run_forever(make, clients) do
    for client <- 1..clients, do: Task.async(fn -> forever(make.(client), 0) end)
    Process.sleep(:infinity)
  end

  @doc "Numbers from 0 to `n` - 1 in an order without a pattern, for next to nothing: each from the one before."
  @spec next(non_neg_integer, pos_integer) :: {non_neg_integer, non_neg_integer}
  def next(seed, n) do
    seed = Bitwise.band(seed * 1_103_515_245 + 12_345, 0x7FFFFFFF)
    {rem(Bitwise.bsr(seed, 8), n), seed}
  end

  @doc "Garbage of what went before is not what is measured."
  @spec settle :: :ok
  def settle do
    :erlang.garbage_collect()
    Process.sleep(50)
  end

  defp forever(call, count) do
    :ok = call.(count)
    forever(call, count + 1)
  end

  defp start(clients, make) do
    for client <- 1..clients do
      Task.async(fn ->
        call = make.(client)

        receive do
          {:go, deadline, histogram} -> loop(call, 0, deadline, histogram, System.monotonic_time(:nanosecond))
        end
      end)
    end
  end

  defp loop(_call, count, deadline, _histogram, now) when now >= deadline, do: {count, now}

  defp loop(call, count, deadline, histogram, begin) do
    :ok = call.(count)
    now = System.monotonic_time(:nanosecond)
    Histogram.add(histogram, now - begin)
    loop(call, count + 1, deadline, histogram, now)
  end
end
