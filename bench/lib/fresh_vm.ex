defmodule Tank.Bench.FreshVm do
  @moduledoc """
  Runs a function in a VM of its own: for what the first call costs, how much memory there is, and what a `kill -9`
  leaves.
  """

  @doc """
  `module.function(arguments...)` in a new VM: `{:ok, value}`, or `:killed` when it killed itself. Anything else raises.
  """
  @spec call(module, atom, [term]) :: {:ok, term} | :killed
  def call(module, function, arguments) do
    call = Base.encode64(:erlang.term_to_binary({module, function, arguments}))
    paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])
    elixir = System.find_executable("elixir")
    entry = "#{inspect(__MODULE__)}.entry(hd(System.argv()))"

    case System.cmd(elixir, paths ++ ["-e", entry, "--", call], stderr_to_stdout: true) do
      {output, 0} -> result!(output)
      {_output, status} when status in [137, 265] -> :killed
      {output, status} -> raise "the VM ended with #{status}: #{output}"
    end
  end

  @doc "Ends this VM as a crash of the machine's power supply would: nothing of ours runs any more."
  @spec kill_self :: no_return
  def kill_self do
    System.cmd("kill", ["-9", System.pid()])
    Process.sleep(:infinity)
  end

  @doc false
  def entry(call) do
    {module, function, arguments} = call |> Base.decode64!() |> :erlang.binary_to_term()
    value = apply(module, function, arguments)
    IO.puts("result " <> Base.encode64(:erlang.term_to_binary(value)))
  end

  defp result!(output) do
    case Regex.run(~r/^result (\S+)$/m, output) do
      [_line, value] -> {:ok, value |> Base.decode64!() |> :erlang.binary_to_term()}
      nil -> raise "no result: #{output}"
    end
  end
end
