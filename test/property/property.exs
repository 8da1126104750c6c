defmodule Tank.Store.Property do
  @moduledoc """
  Properties by PropEr, and generators that PropEr lacks.

  PropEr draws from the process's `:rand`, which ExUnit seeds: `mix test --seed N` repeats a run.
  """

  import :proper_types,
    only: [
      atom: 0,
      binary: 0,
      bitstring: 0,
      exactly: 1,
      float: 0,
      frequency: 1,
      integer: 0,
      integer: 2,
      lazy: 1,
      list: 1,
      oneof: 1,
      resize: 2,
      sized: 1
    ]

  @doc """
  Checks `property`, which returns a boolean or raises, for `numtests` values of `generator`. Fails with the smallest
  value found for which it does not hold, and with what it raised for that one.

  The values are small unless `:max_size` says otherwise: a term of size 42 is lists in lists, of megabytes.
  """
  def check(generator, numtests, opts \\ [], property) do
    # PropEr itself cannot take exceptions: it asks for stack traces in a way that the BEAM no longer knows.
    forall = :proper.forall(generator, &(run(property, &1) == :ok))

    case :proper.counterexample(forall, [:quiet, {:numtests, numtests} | opts ++ [max_size: 16]]) do
      true -> :ok
      [value] -> ExUnit.Assertions.flunk(story(value, run(property, value)))
      other -> ExUnit.Assertions.flunk("PropEr gave up: " <> inspect(other))
    end
  end

  defp run(property, value) do
    if property.(value), do: :ok, else: "it returned false"
  rescue
    error -> Exception.format(:error, error, __STACKTRACE__)
  catch
    kind, reason -> Exception.format(kind, reason, __STACKTRACE__)
  end

  defp story(value, why) do
    seed = ExUnit.configuration()[:seed]
    shown = inspect(value, limit: :infinity, printable_limit: :infinity, structs: false, pretty: true)
    "does not hold (mix test --seed #{seed}) for\n\n#{shown}\n\n#{describe(why)}"
  end

  defp describe(:ok), do: "and holds when tried again: it depends on more than that value"
  defp describe(why), do: why

  @doc "Whether two terms are the same: `===`, which takes 0.0 for -0.0, and the same in their encoding."
  def same?(a, b), do: a === b and encoding(a) == encoding(b)

  defp encoding(term), do: :erlang.term_to_binary(term, [:deterministic])

  @doc "PropEr's `?LET`."
  def map(generator, fun), do: :proper_types.bind(generator, fun, false)

  @doc "Any term there is."
  def any_term, do: sized(&term/1)

  defp term(size) when size <= 1, do: leaf()

  defp term(size) do
    # A list is as long as the size at its level says.
    smaller = resize(div(size, 3), lazy(fn -> term(div(size, 3)) end))

    frequency([
      {8, leaf()},
      {2, list(smaller)},
      {1, improper(smaller)},
      {2, map(list(smaller), &List.to_tuple/1)},
      {2, map(list({smaller, smaller}), &Map.new/1)},
      {1, map({integer(33, 80), leaf()}, fn {count, value} -> Map.new(1..count, &{&1, value}) end)},
      {1, map(list(smaller), &MapSet.new/1)},
      {1, map(list({atom(), smaller}), & &1)},
      {1, map({smaller, smaller}, fn {a, b} -> %Tank.Pod{name: "x", containers: [a], network: b} end)},
      {1, map({smaller, smaller}, fn {a, b} -> %Tank.Container{limits: %{a => b}, mounts: [%Tank.Mount{path: a}]} end)},
      {1, map(smaller, fn a -> fn b -> {a, b} end end)}
    ])
  end

  defp leaf do
    oneof([
      atom(),
      oneof([nil, true, false, :"", :日本語, :"a b/c", :é, Elixir, String.to_atom(String.duplicate("ü", 255))]),
      integer(),
      large_integer(),
      float(),
      oneof([0.0, -0.0, 1.0e308, -5.0e-324, 0.1]),
      binary(),
      text(),
      bitstring(),
      map(text(), &String.to_charlist/1),
      oneof([exactly([]), exactly({}), exactly(%{}), exactly(""), exactly(<<0::1>>), exactly([[] | []])]),
      time(),
      process_bound()
    ])
  end

  defp large_integer do
    map({integer(0, 2000), integer(), oneof([1, -1])}, fn {bits, offset, sign} ->
      sign * Integer.pow(2, bits) + offset
    end)
  end

  defp text, do: map(list(oneof([integer(?a, ?z), integer(0, 0x7F), integer(0x80, 0xD7FF)])), &List.to_string/1)

  defp time do
    oneof([
      exactly(~U[2024-02-29 23:59:59.999999Z]),
      exactly(%DateTime{DateTime.utc_now() | time_zone: "Europe/Vienna", zone_abbr: "CET", utc_offset: 3600}),
      map(integer(-100_000, 100_000), &Date.add(~D[2000-01-01], &1)),
      exactly(~N[0000-01-01 00:00:00]),
      exactly(~T[00:00:00.000]),
      exactly(1..10//3),
      exactly(~r/^a+b?$/iu)
    ])
  end

  # Terms that belong to a process, a node or a module.
  defp process_bound do
    # A process and a reference of a node that was never seen here; made from bytes.
    node = <<119, 5, "n@far">>
    far_pid = :erlang.binary_to_term(<<131, 88, node::binary, 77::32, 1::32, 9::32>>)
    far_ref = :erlang.binary_to_term(<<131, 90, 3::16, node::binary, 9::32, 1::32, 2::32, 3::32>>)

    oneof([
      exactly(self()),
      exactly(make_ref()),
      exactly(hd(Port.list())),
      exactly(&String.length/1),
      exactly(far_pid),
      exactly(far_ref)
    ])
  end

  # A proper list's first cell may have any tail.
  defp improper(element) do
    map({element, list(element), leaf()}, fn {first, rest, tail} -> List.foldr([first | rest], tail, &[&1 | &2]) end)
  end
end
