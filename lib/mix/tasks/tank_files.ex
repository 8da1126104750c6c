defmodule Mix.Tasks.Tank.Files do
  @moduledoc false
  # What the tasks about files of a running node's stores share. No task itself: it has no `run/1`.

  alias Mix.Tasks.Tank.Connection

  # The tasks of this project compile without the rest of it, which needs what they build.
  @compile {:no_warn_undefined, Tank.Store.Error}

  @bar_columns 40
  # A backup takes as long as it takes; a node that does not answer for a day never does.
  @longest_ms 24 * 60 * 60 * 1000
  @switches [node: :string, cookie_file: :string, store: :string, name: :string]

  @doc "Has `Tank.Store.Backup` of the node in `arguments` do something with the file there."
  def run(task, function, arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)

    unless match?([_file], rest) and options[:node],
      do: Mix.raise("usage: mix #{task} FILE --node NAME@HOST [--store STORE]")

    node = String.to_atom(options[:node])
    Connection.connect(node, "tank_files", options)
    [file] = rest
    report(ask(node, function, [String.to_atom(options[:store] || "tank"), file]))
  end

  @doc "Prints how it went; ends with status 1 for an error."
  def report({:ok, result}) do
    clear_bar()
    Mix.shell().info(Enum.map_join(Enum.sort(result), ", ", fn {key, value} -> "#{label(key)} #{value}" end))
  end

  def report({:error, reason}) do
    clear_bar()
    Mix.shell().error("failed: #{Exception.message(Tank.Store.Error.from_native(reason))}")
    exit({:shutdown, 1})
  end

  @doc "Draws how far something is, over what was drawn before; only on a terminal."
  def bar(done, total) do
    if IO.ANSI.enabled?() do
      filled = if total == 0, do: @bar_columns, else: min(div(done * @bar_columns, total), @bar_columns)

      IO.write(
        :stderr,
        "\r[#{String.duplicate("#", filled)}#{String.duplicate(".", @bar_columns - filled)}] #{percent(done, total)}"
      )
    end
  end

  @doc """
  So many of so many, in percent.

      iex> for {done, total} <- [{0, 0}, {1, 3}, {7, 7}], do: Mix.Tasks.Tank.Files.percent(done, total)
      ["100 %", "33 %", "100 %"]
  """
  def percent(_done, 0), do: "100 %"
  def percent(done, total), do: "#{min(div(done * 100, total), 100)} %"

  defp clear_bar, do: if(IO.ANSI.enabled?(), do: IO.write(:stderr, "\r\e[K"))

  defp label(key), do: key |> Atom.to_string() |> String.replace("_", " ")

  # The function tells this process how far it is: a function of this VM cannot run over there.
  defp ask(node, function, arguments) do
    me = self()
    options = [progress: {me, :progress}]
    {pid, monitor} = spawn_monitor(fn -> exit({:answer, call(node, function, arguments ++ [options])}) end)
    wait(pid, monitor)
  end

  defp wait(pid, monitor) do
    receive do
      {:progress, done, total} ->
        bar(done, total)
        wait(pid, monitor)

      {:DOWN, ^monitor, :process, ^pid, {:answer, answer}} ->
        answer

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        exit(reason)
    end
  end

  defp call(node, function, arguments) do
    :erpc.call(node, Tank.Store.Backup, function, arguments, @longest_ms)
  catch
    :error, {:exception, :undef, _stacktrace} -> {:error, :no_tank_store}
    :error, {:erpc, reason} -> {:error, reason}
  end
end
