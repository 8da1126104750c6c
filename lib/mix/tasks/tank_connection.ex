defmodule Mix.Tasks.Tank.Connection do
  @moduledoc false
  # How a task reaches the node that a store runs on.

  @doc """
  Connects this VM to `node`. A VM that is no node becomes one, named after `task`; the options `name:` and `cookie_file:` are
  strings. The cookie may be in the environment variable `TANK_COOKIE`: on a command line every user would see it. Raises when the node cannot be reached.
  """
  @spec connect(node, String.t(), keyword) :: :ok
  def connect(node, task, options) do
    unless Node.alive?(), do: become_a_node(options[:name] || "#{task}_#{System.pid()}", kind(node))
    if cookie = cookie(options[:cookie_file]), do: Node.set_cookie(node, String.to_atom(cookie))
    unless Node.connect(node) == true, do: Mix.raise("#{node} cannot be reached: is it up, and is the cookie right?")
    :ok
  end

  defp cookie(nil), do: System.get_env("TANK_COOKIE")

  defp cookie(file) do
    case File.read(file) do
      {:ok, cookie} -> String.trim(cookie)
      {:error, reason} -> Mix.raise("#{file}, which is to have the cookie: #{:file.format_error(reason)}")
    end
  end

  defp become_a_node(name, kind) do
    # A hidden node connects to the one it asks, and to no other.
    Application.put_env(:kernel, :dist_auto_connect, :once)
    _ = System.cmd("epmd", ["-daemon"])

    with {:error, reason} <- :net_kernel.start(String.to_atom(name), %{name_domain: kind, hidden: true}),
         do: Mix.raise("cannot become a node: #{inspect(reason)}")
  end

  defp kind(node), do: if(node |> Atom.to_string() |> String.contains?("."), do: :longnames, else: :shortnames)
end
