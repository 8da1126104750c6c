defmodule Tank.Store.ReleaseNode do
  @moduledoc """
  A node that is started from a release, and is asked by the commands of the release only.
  """

  import ExUnit.Assertions

  @enforce_keys [:dir, :name, :env]
  defstruct [:dir, :name, :env, :port, :os_pid]

  @deadline_ms 120_000

  @doc "Copies an application of `examples/` to `to`, with its dependency on this project where it was."
  def copy_app!(from, to) do
    File.mkdir_p!(Path.dirname(to))
    File.cp_r!(from, to)
    for left <- ["_build", "fleet_data"], do: File.rm_rf!(Path.join(to, left))
    mix_exs = Path.join(to, "mix.exs")
    File.write!(mix_exs, String.replace(File.read!(mix_exs), ~s(path: "../.."), "path: #{inspect(File.cwd!())}"))
  end

  @doc "Runs mix as the author of that application would."
  def mix!(dir, args) do
    env = for(name <- ["MIX_BUILD_PATH", "MIX_TARGET", "RELEASE_COOKIE"], do: {name, nil}) ++ [{"MIX_ENV", "prod"}]
    {output, status} = System.cmd("mix", args, cd: dir, env: env, stderr_to_stdout: true)
    assert status == 0, String.slice(output, -4_000, 4_000)
    output
  end

  def start(%__MODULE__{} = node) do
    env = for {name, value} <- node.env, do: {to_charlist(name), to_charlist(value)}

    port =
      Port.open(
        {:spawn_executable, bin(node)},
        [:binary, :exit_status, :stderr_to_stdout, args: ["start"], env: env, cd: Path.dirname(node.dir)]
      )

    # The script becomes the VM: one process id.
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    %{node | port: port, os_pid: os_pid}
  end

  @doc "Runs a command of the release; gives what it printed and its exit status."
  def command(node, command, expression),
    do: System.cmd(bin(node), [command | List.wrap(expression)], env: node.env, stderr_to_stdout: true)

  def rpc!(node, expression) do
    {output, status} = command(node, "rpc", expression)
    assert status == 0, "#{expression} on #{node.name} ended with #{status}: #{output}"
    String.trim(output)
  end

  @doc "Repeats an rpc until it ends with status 0, and `fun` is true of what it printed."
  def await(node, expression, fun \\ fn _output -> true end), do: await(node, expression, fun, now() + @deadline_ms)

  defp await(node, expression, fun, deadline) do
    {output, status} = command(node, "rpc", expression)

    cond do
      status == 0 and fun.(String.trim(output)) -> String.trim(output)
      now() < deadline -> await(node, expression, fun, deadline)
      true -> flunk("#{expression} on #{node.name} ended with #{status} at last: #{output}")
    end
  end

  def kill(node) do
    {_output, 0} = System.cmd("kill", ["-9", Integer.to_string(node.os_pid)])
    assert await_exit(node) != 0
    node
  end

  def stop(node) do
    assert {_output, 0} = command(node, "stop", [])
    assert await_exit(node) == 0
    node
  end

  defp await_exit(%{port: port} = node) do
    receive do
      {^port, {:exit_status, status}} -> status
    after
      @deadline_ms -> flunk("#{node.name} did not end")
    end
  end

  defp bin(node), do: Path.join(node.dir, "bin/fleet")
  defp now, do: System.monotonic_time(:millisecond)
end
