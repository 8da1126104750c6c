defmodule Mix.Tasks.Tank.Status do
  @shortdoc "Shows the stores of a running node: members, roles, lag, sizes"

  @moduledoc """
  Shows the stores of a running node, and how their clusters are.

      mix tank.status --node tank@10.0.0.1 [--cookie-file FILE] [--store STORE] [--name NAME]

  | option | |
  |---|---|
  | `--node` | the node to ask; needed |
  | `--cookie-file` | a file with its cookie, if that is not the one in `~/.erlang.cookie`. The environment variable `TANK_COOKIE` will do, too; there is no option for the cookie itself, which every user of the machine could read |
  | `--store` | only this store; all that run there otherwise |
  | `--name` | the name of the node that asks, if the one made up does not fit the network |

  It ends with status 1 when the node cannot be asked, or when a store has no quorum.
  """

  use Mix.Task

  alias Mix.Tasks.Tank.Connection
  alias Tank.Store.{Cluster, Formation, StatusText}

  # The tasks of this project compile without the rest of it, which needs what they build.
  @compile {:no_warn_undefined, StatusText}

  @timeout 10_000
  @switches [node: :string, cookie_file: :string, store: :string, name: :string]

  @impl true
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)
    if rest != [] or options[:node] == nil, do: Mix.raise("usage: mix tank.status --node NAME@HOST [--store STORE]")

    node = String.to_atom(options[:node])
    Connection.connect(node, "tank_status", options)

    case stores(node, options[:store]) do
      [] ->
        Mix.shell().info("no store runs on #{node}")

      stores ->
        Mix.shell().info(stores |> Enum.map(fn {id, status} -> StatusText.render(id, status) end) |> Enum.join("\n"))
        unless Enum.all?(stores, &match?({_id, {:ok, %{quorum: true}}}, &1)), do: exit({:shutdown, 1})
    end
  end

  # Those that wait for their cluster do not run yet, and are shown.
  defp stores(node, nil) do
    ids = ask(node, Cluster, :get_store_ids, []) ++ ask(node, Formation, :forming_ids, [])
    for id <- Enum.uniq(ids), do: {id, ask(node, Cluster, :status, [id])}
  end

  defp stores(node, store), do: [{String.to_atom(store), ask(node, Cluster, :status, [String.to_atom(store)])}]

  defp ask(node, module, function, arguments) do
    :erpc.call(node, module, function, arguments, @timeout)
  catch
    :error, {:exception, :undef, _stacktrace} -> Mix.raise("#{node} does not have tank_store")
    :error, {:erpc, reason} -> Mix.raise("#{node} does not answer: #{inspect(reason)}")
  end
end
