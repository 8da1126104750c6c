defmodule Tank.Khepri.Together do
  @moduledoc false
  # Several commands in one log entry, each with an answer of its own.
  #
  # Those go together of which no node is at, above or below one of another command: what each of them does, and answers,
  # is then what it would do by itself. When one is refused, all are, and nothing is done: then they are tried in halves,
  # until the one that is refused is by itself.

  alias Tank.Khepri.{Access, Projections}
  alias Tank.Store.Deadline

  @commands_max 256
  @bytes_max 256 * 1024

  @typedoc """
  A command: a function that does it, or one whose operations are known. `answer` makes the answer of what they answered,
  `alone` does it by itself.
  """
  @type command :: (() -> term) | planned
  @type planned :: %{
          store: atom,
          ops: [{list, tuple}],
          timeout: timeout,
          answer: ([tuple] -> term),
          alone: (() -> term)
        }
  @typep batch :: %{paths: MapSet.t(), above: MapSet.t(), bytes: non_neg_integer, count: non_neg_integer} | :full

  @doc "Does a command by itself."
  @spec alone(command) :: term
  def alone(%{alone: alone}), do: alone.()
  def alone(command), do: command.()

  @doc "The beginning of a batch."
  @spec begin(command) :: batch
  def begin(command) do
    case join(%{paths: MapSet.new(), above: MapSet.new(), bytes: 0, count: 0}, command) do
      {:ok, batch} -> batch
      :alone -> :full
    end
  end

  @doc "Adds a command, unless it has to be done after those."
  @spec join(batch, command) :: {:ok, batch} | :alone
  def join(%{} = batch, %{ops: ops}) do
    paths = Enum.map(ops, &elem(&1, 0))
    bytes = batch.bytes + Enum.sum(Enum.map(ops, &bytes/1))

    if batch.count < @commands_max and bytes <= @bytes_max and Enum.all?(paths, &apart?(batch, &1)),
      do: {:ok, %{added(batch, paths) | bytes: bytes, count: batch.count + 1}},
      else: :alone
  end

  def join(_batch, _unknown_or_full), do: :alone

  defp bytes({_path, op}),
    do: op |> Tuple.to_list() |> Enum.filter(&is_binary/1) |> Enum.map(&byte_size/1) |> Enum.sum()

  defp apart?(batch, path) do
    not MapSet.member?(batch.paths, path) and not MapSet.member?(batch.above, path) and
      not Enum.any?(above(path), &MapSet.member?(batch.paths, &1))
  end

  defp added(batch, paths) do
    above = Enum.flat_map(paths, &above/1)
    %{batch | paths: Enum.into(paths, batch.paths), above: Enum.into(above, batch.above)}
  end

  defp above(path), do: for(n <- 0..(length(path) - 1)//1, do: Enum.take(path, n))

  @doc "Does commands that go together; gives an answer for each."
  @spec run([command]) :: [term]
  def run([command]), do: [guarded(fn -> alone(command) end)]

  def run(commands), do: run(commands, commands |> Enum.map(& &1.timeout) |> Enum.min() |> Deadline.in_ms())

  defp run([%{store: store} | _] = commands, deadline) do
    case Access.commit(store, [], Enum.flat_map(commands, & &1.ops), deadline) do
      {:ok, revision, responses} ->
        :ok = Projections.await(store, revision)
        answers(commands, responses)

      # They may have been done.
      {:error, :timeout} = error ->
        Enum.map(commands, fn _command -> error end)

      {:error, reason} when reason in [:no_quorum, :overloaded] ->
        case Access.retry(reason, deadline, fn -> run(commands, deadline) end) do
          {:error, _reason} = error -> Enum.map(commands, fn _command -> error end)
          results -> results
        end

      _refused ->
        {some, others} = Enum.split(commands, div(length(commands), 2))
        run(some) ++ run(others)
    end
  end

  defp answers([], []), do: []

  defp answers([command | commands], responses) do
    {own, others} = Enum.split(responses, length(command.ops))
    [guarded(fn -> command.answer.(own) end) | answers(commands, others)]
  end

  # What a command raises reaches the caller when it looks at the answer.
  defp guarded(fun) do
    fun.()
  catch
    class, reason -> {:exception, class, reason, __STACKTRACE__}
  end
end
