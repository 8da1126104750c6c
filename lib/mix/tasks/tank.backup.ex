defmodule Mix.Tasks.Tank.Backup do
  @shortdoc "Writes a backup of a store of a running node"

  @moduledoc """
  Has a running node write a backup of a store (`Tank.Store.Backup.create/3`), and shows how far it is.

      mix tank.backup FILE --node tank@10.0.0.1 [--cookie-file FILE] [--store STORE] [--name NAME]

  FILE is a file of that node, with its full path. The store is `tank` unless given. It ends with status 1 when there is
  no backup.
  """

  use Mix.Task

  @impl true
  def run(arguments), do: Mix.Tasks.Tank.Files.run("tank.backup", :create, arguments)
end
