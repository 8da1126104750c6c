defmodule Mix.Tasks.Tank.Export do
  @shortdoc "Writes the entries of a store of a running node to a text"

  @moduledoc """
  Has a running node write the entries of a store to a text (`Tank.Store.Backup.export/3`), and shows how far it is.

      mix tank.export FILE --node tank@10.0.0.1 [--cookie-file FILE] [--store STORE] [--name NAME]

  FILE is a file of that node, with its full path. The store is `tank` unless given. It ends with status 1 when there is
  no export.
  """

  use Mix.Task

  @impl true
  def run(arguments), do: Mix.Tasks.Tank.Files.run("tank.export", :export, arguments)
end
