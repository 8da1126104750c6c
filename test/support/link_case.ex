defmodule Tank.Store.LinkCase do
  @moduledoc """
  For tests of a cluster on slow, distant or lossy links (`Tank.Store.Lab`): what runs on the nodes, and how figures are
  taken and told.

  A bound that does not hold is noted, and the test goes on: one run tells all that is wrong on a link.
  """

  use ExUnit.CaseTemplate

  import Tank.Store.{ClusterCase, TankCase}

  alias Tank.Store.{Lab, LinkCase, Network, Tree, Wire}

  using do
    quote do
      use Tank.Store.ClusterCase, async: false
      import Tank.Store.LinkCase

      @moduletag :tmp_dir
      @moduletag skip: Tank.Store.Lab.missing() && "no lab: #{Tank.Store.Lab.missing()}"
    end
  end

  # Between two small writes: often enough to meet every moment of a transfer, and no load.
  @pause_ms 10
  # A cluster that is stuck is to be told of within minutes.
  @small_ms 60_000
  # Fewer would have no percentiles.
  @samples_min 20

  @doc "A cluster of three, on links that pass everything on at once: `{lab, leader, followers}`."
  def start_lab_cluster(dir, options \\ []) do
    lab = Lab.up(3)
    peers = start_cluster(dir, 3, options ++ Lab.node_options(lab))
    leader = await_leader(peers)
    {lab, leader, peers -- [leader]}
  end

  @doc """
  Gives the links a quality, and opens the nodes' connections again: TCP would take the link for the former one for many
  seconds. Gives the leader and the followers, once they write.
  """
  def settle(lab, peers, link) do
    :ok = Lab.link(lab, link)
    for peer <- peers, other <- peers, peer != other, do: call(peer, :erlang, :disconnect_node, [other.node])
    await_writer(peers, link)
  end

  @doc "The leader and the followers, once the leader's writes are acknowledged."
  def await_writer(peers, link) do
    eventually(
      "a leader that writes on the link #{inspect(link)}",
      fn ->
        leader = await_leader(peers)
        answer = put(leader, "settle", 1, 10_000)
        if match?({:ok, _revision}, answer), do: {leader, peers -- [leader]}, else: {:not_yet, answer}
      end,
      60_000
    )
  end

  @doc """
  Milliseconds that plain TCP takes on the leader's links for so many bytes to each follower at once: they share its
  outgoing link, as copies of a write do. A function of the bytes.
  """
  def wire(lab, leader, followers) do
    addresses =
      for follower <- followers do
        {port, _listener} = call(follower, Wire, :listen, [])
        {Network.address(number(lab, follower)), port}
      end

    fn bytes -> leader |> call(Wire, :transfer, [addresses, bytes], :infinity) |> Enum.max() end
  end

  @doc """
  Milliseconds that small messages take in a plain TCP connection from the leader to a follower that carries parts of
  large ones as well, with so many bytes on their way.
  """
  def small_among_parts(lab, leader, follower, window, for_ms) do
    {port, _listener} = call(follower, Wire, :listen, [])
    address = {Network.address(number(lab, follower)), port}
    call(leader, Wire, :small_among_parts, [address, window, for_ms], :infinity)
  end

  @doc "A node's number in the lab."
  def number(lab, peer), do: Enum.find(1..lab.network.count, &(Network.address(&1) == peer.host))

  @doc "The terms of all members, and who leads by what each says."
  def authority(peers) do
    for peer <- peers do
      {:ok, status} = cluster(peer, :status, [store()])
      {status.term, status.leader}
    end
  end

  @doc "Writes a value of so many random bytes: `{ms, result}`."
  def put_bytes(peer, name, bytes, timeout),
    do: call(peer, LinkCase, :local_put_bytes, [name, bytes, timeout], :infinity)

  @doc "A transaction that puts so many bytes in values of 1 MiB: `{ms, result}`."
  def txn_bytes(peer, name, bytes, timeout),
    do: call(peer, LinkCase, :local_txn_bytes, [name, bytes, timeout], :infinity)

  @doc "Milliseconds of small writes, one after the other. The test ends if one fails."
  def small_writes(peer, count) do
    {ms, results} = peer |> call(LinkCase, :local_small_writes, [count], :infinity) |> Enum.unzip()
    failed = for result <- results, elem(result, 0) != :ok, do: result
    if not check(failed == [], "small writes: #{inspect(Enum.frequencies(failed))}"), do: verdict("no small writes")
    ms
  end

  @doc "Calls `fun` while small writes are made: its result, and `%{ms: [...], errors: [...]}` of the writes."
  def with_small_writes(peer, fun) do
    writer = call(peer, LinkCase, :start_small_writes, [])
    result = fun.()
    {result, call(peer, LinkCase, :stop_small_writes, [writer], :infinity)}
  end

  @doc """
  So many writers put values of so many bytes for `for_ms`, after `warm_up_ms` that do not count. How many were
  acknowledged, and the errors.
  """
  def write_together(peer, writers, bytes, warm_up_ms, for_ms),
    do: call(peer, LinkCase, :local_write_together, [writers, bytes, warm_up_ms, for_ms], :infinity)

  # -- Figures

  @doc "The sample at a share of the sorted samples; nil of none."
  def percentile([], _share), do: nil

  def percentile(samples, share),
    do: samples |> Enum.sort() |> Enum.at(min(floor(length(samples) * share), length(samples) - 1))

  @doc "Notes that something is wrong, unless `true?`."
  def check(true? = true, _wrong), do: true?

  def check(false, wrong) do
    Process.put(LinkCase, [wrong | Process.get(LinkCase, [])])
    false
  end

  @doc "Fails with all that was noted."
  def verdict(what) do
    case Process.get(LinkCase, []) do
      [] -> :ok
      wrong -> ExUnit.Assertions.flunk("#{what}:\n" <> Enum.map_join(Enum.reverse(wrong), "\n", &"  - #{&1}"))
    end
  end

  @doc "Prints rows below their heads, as a table."
  def table(title, heads, rows) do
    rows = for row <- [heads | rows], do: Enum.map(row, &cell/1)

    widths =
      rows
      |> Enum.zip_with(&Function.identity/1)
      |> Enum.map(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    lines = for row <- rows, do: row |> Enum.zip_with(widths, &String.pad_leading/2) |> Enum.join("  ")
    IO.puts("\n#{title}\n" <> Enum.join(lines, "\n"))
  end

  defp cell(nil), do: "-"
  defp cell(number) when is_float(number) and abs(number) < 10, do: :erlang.float_to_binary(number, decimals: 1)
  defp cell(number) when is_float(number), do: "#{round(number)}"
  defp cell(other), do: to_string(other)

  # -- On the nodes

  @doc false
  def local_put_bytes(name, bytes, timeout) do
    value = :rand.bytes(bytes)
    timed(fn -> local_put(name, value, timeout) end)
  end

  @doc false
  def local_txn_bytes(name, bytes, timeout) do
    operations =
      for part <- 0..div(bytes - 1, 1_048_576) do
        {:put, [:test, "#{name}-#{part}"], :rand.bytes(min(1_048_576, bytes - part * 1_048_576))}
      end

    timed(fn -> Tree.txn(store(), [], operations, [], timeout: timeout) end)
  end

  @doc false
  def local_small_writes(count) do
    # After an error, no more.
    Enum.reduce_while(1..count, [], fn number, samples ->
      {_ms, result} = sample = small_write(number)
      {if(elem(result, 0) == :ok, do: :cont, else: :halt), [sample | samples]}
    end)
  end

  @doc false
  def start_small_writes, do: spawn(fn -> write_small(0, [], []) end)

  @doc false
  def stop_small_writes(writer) do
    ref = make_ref()
    send(writer, {:stop, self(), ref})
    receive do: ({^ref, samples} -> samples)
  end

  @doc false
  # Each writer begins another value as soon as the last one was acknowledged.
  def local_write_together(writers, bytes, warm_up_ms, for_ms) do
    began = System.monotonic_time(:millisecond) + warm_up_ms
    value = :rand.bytes(bytes)

    1..writers
    |> Task.async_stream(&write_until(&1, value, began, began + for_ms, 0, []),
      max_concurrency: writers,
      timeout: :infinity
    )
    |> Enum.reduce({0, []}, fn {:ok, {count, errors}}, {all, failed} -> {all + count, errors ++ failed} end)
  end

  defp write_until(writer, value, from, until, count, errors) do
    # What is begun in time counts only if it ends in time, too.
    result = local_put("together-#{writer}", value, 30_000)
    now = System.monotonic_time(:millisecond)
    errors = if match?({:ok, _revision}, result), do: errors, else: [result | errors]
    count = if errors == [] and now in from..until, do: count + 1, else: count
    if now < until, do: write_until(writer, value, from, until, count, errors), else: {count, errors}
  end

  defp write_small(number, samples, errors) do
    receive do
      {:stop, pid, ref} when number >= @samples_min or errors != [] ->
        send(pid, {ref, %{ms: samples, errors: errors}})
    after
      @pause_ms ->
        case small_write(number) do
          {ms, {:ok, _revision}} -> write_small(number + 1, [ms | samples], errors)
          {ms, error} -> write_small(number + 1, [ms | samples], [error | errors])
        end
    end
  end

  defp small_write(number), do: timed(fn -> local_put("small", number, @small_ms) end)

  defp timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {microseconds / 1_000, result}
  end
end
